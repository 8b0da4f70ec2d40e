# Moorline: everything from a fresh checkout. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
SYSTEM ?= quobyte
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
RELEASE_VENV := .venv-release
ANSIBLE_VENV := .venv-ansible
CINDER_VENV := .venv-cinder
CLOUD_VENV := .venv-cloud
PACKAGES := e2fsprogs fuse3 gcc iproute2 libvirt-clients libvirt-daemon-system libvirt-dev \
	pkg-config procps python3-dev python3-venv qemu-system-x86 qemu-utils sudo util-linux zstd
# The vCenter simulator's compiler and library, half a gigabyte: not for `make fast`, which skips
# what needs the simulator where they are missing.
VCENTER := golang-go golang-github-vmware-govmomi-dev
# The store of a fleet. Debian starts an etcd with the package: it is stopped again. Not for `make fast`.
ETCD := etcd-server etcd-client
# Each completes its own way. Not for `make fast`.
SHELLS := fish zsh
# Real servers and the client of a share. Debian starts none with the package.
GLUSTERFS := glusterfs-server
# Real servers, and what asks them. Debian starts none with the package.
NBD := nbdkit libnbd-bin
# The cloud's message broker, 60 MB. Debian starts one with the package: it is stopped again.
RABBITMQ := rabbitmq-server
# A real target of iSCSI, and QEMU's initiator. Debian starts the target with the package: it is stopped again.
TGT := tgt qemu-block-extra
# QEMU's client of Ceph. The cluster's own programs, 180 MB, are unpacked and not installed; not for `make test`.
CEPH := qemu-block-extra
# What builds Debian's packages, where a release's own is built on a machine of it.
DEBHELPER := build-essential debhelper libvirt-dev pkg-config python3-dev python3-venv
# What builds the .rpm; what it compiles needs is in PACKAGES.
RPM := rpm
# A browser of some 300 MB: not for `make test`.
CHROMIUM := chromium chromium-driver fonts-dejavu-core
# What is missing fails a test in `make test`, and skips it elsewhere.
WHOLE := MOORLINE_TEST_WHOLE=1
PARALLEL := -n 2
# Two private hosts at once, each with a libvirt of its own; the tests of a file have the same one.
PYTHON_IN_LAB := $(CURDIR)/$(BIN)/python -m lab run -- $(CURDIR)/$(BIN)/python
IN_LABS := --dist loadfile --tx '2*popen//python=$(PYTHON_IN_LAB)'

NOVA ?= 34
NOVA_VENV := .venv-nova$(NOVA)
NOVA_PYTHON := $(CURDIR)/$(NOVA_VENV)/bin/python -W ignore
# What Nova's own tests need, and do not say; and ours.
NOVA_NEEDS := ddt fixtures gabbi openstack-placement oslo.vmware oslotest osprofiler psycopg2-binary \
	PyMySQL python-barbicanclient pyvmomi requests-mock stestr testresources testscenarios testtools wsgi-intercept
# How nova-compute can run, the usual way first. Nova 32 has no native threads for it; 33 has, but
# the harness of 33 looks for the greenlet of each message.
NOVA_MODES_32 := eventlet
NOVA_MODES_33 := eventlet
NOVA_MODES_34 := threads eventlet
NOVA_THREADS_eventlet := false
NOVA_THREADS_threads := true
NOVA_TESTS ?= discover
VMWARE_TESTS ?= test_vmware_parts test_vmware_stock test_vmware_stories test_vmware_choice test_vmware_nova

.PHONY: help demo survive test test-fleet-kills test-rbd test-machine test-page host-test test-ansible test-cinder test-cloud test-nova nova-own nova-vmware fast bench bench-fleet lint unit lab-test clean \
	packages package-here package-rpm package-twice test-rpm collection dist release ready system-packages vcenter machines etcd shells glusterfs nbd tgt ceph rabbitmq debhelper rpmbuild chromium

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: ready $(if $(filter vvol,$(SYSTEM)),vcenter) $(if $(filter fleet,$(SYSTEM)),etcd) $(if $(filter rbd,$(SYSTEM)),ceph) ## the main job, on real libvirt, QEMU and FUSE: SYSTEM=quobyte, virtuozzo, hyperscale, powervm, vvol, fleet, survive, rbd
	$(if $(filter rbd,$(SYSTEM)),$(SUDO) $(BIN)/python -m lab fetch ceph)
	$(BIN)/python -m lab demo $(SYSTEM)

test: lint unit lab-test host-test ## everything: lint, types, unit, contract, crash, architecture, lab, a host's stories

# Left out of the inner loop: every crash point of the large hypervisors, and the slowest with a vCenter.
SLOW := $(wildcard tests/unit/*/*_crash.py tests/unit/*/*_killed.py) \
	$(addprefix tests/unit/vsphere/test_vsphere_,command.py core.py provision.py reads.py session.py)

# Four processes on two cores: much of it waits for deadlines.
fast: ready lint ## the inner loop, a minute: lint, types, and most tests that need no lab
	MOORLINE_HISTORIES=300 $(BIN)/pytest -q -n 4 $(addprefix --ignore=,$(SLOW)) \
		tests/unit tests/architecture tests/contract/test_stores.py tests/crash/test_any_history.py

lint: ready ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

unit: ready vcenter etcd nbd shells ## unit, contract, crash and architecture tests, and all demos
	$(WHOLE) $(BIN)/pytest -q $(PARALLEL) --ignore=tests/lab --ignore=tests/machine --ignore=tests/browser --ignore=tests/cloud

lab-test: ready etcd glusterfs nbd tgt ## the tests on private hosts with real libvirt, QEMU and FUSE
	$(SUDO:%=% -E) $(WHOLE) $(BIN)/pytest -q $(IN_LABS) --ignore-glob="*/test_ansible_*.py" \
		$(if $(SUDO),tests/contract) tests/lab

# KILLS=20: how often the client of a share dies under a guest that writes to it all the time.
KILLS ?= 20
survive: ready ## a guest outlives the death of its share's client, KILLS=20 times
	$(SUDO:%=% -E) MOORLINE_KILLS=$(KILLS) $(BIN)/python -m lab run -- $(BIN)/pytest -q --timeout=$(MACHINE_SECONDS) tests/lab/test_survive*.py

# EVERY=5: of so many effects one is struck.
EVERY ?= 1
test-fleet-kills: ready etcd ## every effect of migrate, drain, evacuate and return is struck on real hosts: some hours
	$(SUDO) $(WHOLE) MOORLINE_FLEET_EVERY=$(EVERY) $(BIN)/python -m lab run -- $(BIN)/pytest -q -s tests/lab/test_fleet_kills.py

# Whole machines, each release's own systemd, libvirt and Python; all stories are not part of `make test`.
RELEASES ?= debian12,debian13
# Of one story at most: a virtual machine is emulated where KVM does not work.
MACHINE_SECONDS ?= 3600
host-test: ready machines ## the stories of a host that matter most, on a whole machine of this one's release
	$(SUDO) $(WHOLE) MOORLINE_TEST_MACHINE=here $(BIN)/pytest -q --durations=5 -m everyday tests/machine

# CUTS=20: how often a virtual machine loses its power; SEED: the moments of a run before.
test-machine: ready machines ## the stories of a host, and real storage, on whole Debian machines: RELEASES=debian12,debian13
	$(SUDO) $(WHOLE) MOORLINE_TEST_MACHINE=$(RELEASES) MOORLINE_TEST_CUTS=$(CUTS) MOORLINE_TEST_SEED=$(SEED) \
		$(BIN)/pytest -q --durations=10 --timeout=$(MACHINE_SECONDS) --ignore=tests/machine/test_rpm.py tests/machine

test-page: ready chromium ## the page of `moorline ui` in a real browser, headless
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(WHOLE) $(BIN)/pytest -q tests/browser

# ANSIBLE=2.16.*: another ansible-core than the newest that this Python can have. A private host has no network: setuptools
# builds the wheel that the role installs.
test-ansible: ready $(ANSIBLE_VENV)/.ready ## the Ansible collection, installed, in real ansible-core on a private host
	$(SUDO) $(WHOLE) $(PYTHON_IN_LAB) -m pytest -q tests/lab/test_ansible_*.py

$(ANSIBLE_VENV)/.ready: Makefile | system-packages
	$(PYTHON) -m venv --clear $(ANSIBLE_VENV)
	$(ANSIBLE_VENV)/bin/pip install -q --disable-pip-version-check 'setuptools>=70.1' 'ansible-core$(addprefix ==,$(ANSIBLE))'
	@touch $@

# Not a part of `make test`: Ceph is 180 MB.
test-rbd: ready ceph ## images of Ceph, of a real cluster, with real libvirt and QEMU, on a private host
	$(SUDO) $(BIN)/python -m lab fetch ceph
	$(SUDO) $(WHOLE) MOORLINE_CEPH=1 $(PYTHON_IN_LAB) -m pytest -q tests/lab/test_rbd*.py tests/lab/test_moving_keys.py

# Keystone, cinder-api, scheduler and volume, of PyPI. CINDER=28.*: another than the newest.
test-cinder: ready $(CINDER_VENV)/.ready ## volumes by name, of a real keystone and Cinder, on a private host
	$(SUDO) $(WHOLE) MOORLINE_CINDER=$(CURDIR)/$(CINDER_VENV) $(PYTHON_IN_LAB) -m pytest -q tests/lab/test_real_cinder.py tests/lab/test_real_cinder_extend.py

$(CINDER_VENV)/.ready: Makefile | system-packages
	$(PYTHON) -m venv --clear $(CINDER_VENV)
	$(CINDER_VENV)/bin/pip install -q --disable-pip-version-check 'cinder$(addprefix ==,$(CINDER))' keystone
	@touch $@

# A small OpenStack: keystone, placement, Nova with two compute hosts, Cinder; CLOUD_TESTS: which stories.
CLOUD_TESTS ?= tests/cloud
test-cloud: ready rabbitmq $(CLOUD_VENV)/.ready ## the plug-in in a real cloud, with libvirt, QEMU and FUSE; 2 GB of memory
	$(SUDO) $(WHOLE) MOORLINE_CLOUD=$(CURDIR)/$(CLOUD_VENV) $(PYTHON_IN_LAB) -m pytest -q --durations=5 $(CLOUD_TESTS)

$(CLOUD_VENV)/.cloud: nova/constraints-34.txt nova/constraints.txt pyproject.toml Makefile | system-packages
	$(PYTHON) -m venv $(CLOUD_VENV)
	$(CLOUD_VENV)/bin/pip install -q --disable-pip-version-check -c $< nova cinder keystone openstack-placement \
		libvirt-python -e .
	@touch $@

$(CLOUD_VENV)/.ready: $(CLOUD_VENV)/.cloud nova/pyproject.toml $(shell find nova/src -name '*.py')
	rm -rf nova/build
	$(CLOUD_VENV)/bin/pip install -q --disable-pip-version-check --force-reinstall --no-deps ./nova
	@touch $@

test-nova: nova-own $(NOVA_MODES_$(NOVA):%=nova-%) nova-vmware ## the plug-in in Nova's own functional harness: NOVA=34, 33 or 32

# The first two names have no tests: Nova prepares the process, and the plug-in is loaded into it.
nova-own: ready $(NOVA_VENV)/.ready
	@echo "Nova $(NOVA)'s own tests of its volume drivers, with the plug-in loaded:"
	$(NOVA_VENV)/bin/pip check
	OS_NOVA_DISABLE_EVENTLET_PATCHING=$(NOVA_THREADS_$(firstword $(NOVA_MODES_$(NOVA)))) $(NOVA_PYTHON) \
		-m unittest -b nova.tests.unit nova.virt.moorline \
		$(addprefix nova.tests.unit.virt.libvirt.volume.test_,mount nfs quobyte remotefs smbfs volume vzstorage)

# Each in a process of its own: what Nova binds when it is imported, and what the plug-in replaces, stays.
nova-vmware: vcenter ready $(NOVA_VENV)/.ready ## the same for its VMware driver, against the lab's vCenter
	@echo "Nova $(NOVA)'s own tests of its VMware driver, with the plug-in loaded:"
	cd nova/tests/vmware && OS_NOVA_DISABLE_EVENTLET_PATCHING=$(NOVA_THREADS_$(firstword $(NOVA_MODES_$(NOVA)))) \
		$(NOVA_PYTHON) -m unittest -b nova.tests.unit nova.virt.moorline plugged \
		$$($(NOVA_PYTHON) -c 'import pkgutil, importlib.util as u; p = "nova.tests.unit.virt.vmwareapi"; \
			print(*(f"{p}.{m.name}" for m in pkgutil.iter_modules([u.find_spec("nova").submodule_search_locations[0] \
			+ "/tests/unit/virt/vmwareapi"]) if m.name.startswith("test_")))')
	@echo "The stories, on datastores of five types:"
	cd nova/tests/vmware && for tests in $(VMWARE_TESTS); do echo "$$tests:"; \
		OS_NOVA_DISABLE_EVENTLET_PATCHING=$(NOVA_THREADS_$(firstword $(NOVA_MODES_$(NOVA)))) PYTHONPATH=$(CURDIR) \
		$(NOVA_PYTHON) -m unittest -b $$tests; done

nova-%: ready $(NOVA_VENV)/.ready
	@echo "The stories, on Nova $(NOVA) with $*:"
	cd nova/tests && MOORLINE=$(CURDIR)/$(BIN)/moorline OS_NOVA_DISABLE_EVENTLET_PATCHING=$(NOVA_THREADS_$*) \
		PYTHONPATH=$(CURDIR):$(CURDIR)/nova/tests $(CURDIR)/$(BIN)/python -m lab run -- \
		$(NOVA_PYTHON) -m unittest $(NOVA_TESTS) -v -b

$(NOVA_VENV)/.nova: nova/constraints-$(NOVA).txt nova/constraints.txt pyproject.toml Makefile | system-packages
	$(PYTHON) -m venv $(NOVA_VENV)
	$(NOVA_VENV)/bin/pip install -q --disable-pip-version-check -c $< nova libvirt-python $(NOVA_NEEDS) -e .
	@# Nova's tests look for its api-paste.ini beside the package.
	ln -sfn $(CURDIR)/$(NOVA_VENV)/etc \
		"$$($(NOVA_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/etc"
	@touch $@

# The plug-in is installed as an operator does it: beside Nova's own files.
$(NOVA_VENV)/.ready: $(NOVA_VENV)/.nova nova/pyproject.toml $(shell find nova/src -name '*.py')
	rm -rf nova/build
	$(NOVA_VENV)/bin/pip install -q --disable-pip-version-check --force-reinstall --no-deps ./nova
	@touch $@

bench: ready vcenter ## what is fast, beside raw libvirt and raw mount; writes docs/performance.md
	$(BIN)/python -m lab run -- $(BIN)/python -m bench

bench-fleet: ready etcd ## a fleet's pace and size beside etcd's own watch; HOSTS=300, of which 10 have an agent
	$(BIN)/python -m bench.fleet --hosts $(or $(HOSTS),300)

packages: ready machines ## a .deb in dist/ for each of RELEASES=debian12,debian13, built on a tree of that release
	mkdir -p dist
	for release in $$(tr , ' ' <<<'$(RELEASES)'); do \
		$(SUDO) $(BIN)/python -m lab machine package --release "$$release" dist; \
	done

package-here: debhelper ## the same for the release that this machine has, Debian 12 and 13 or Ubuntu 24.04
	mkdir -p dist
	packaging/build-deb dist

package-rpm: rpmbuild ## the same as .rpm, for the release that this machine has
	mkdir -p dist
	packaging/build-rpm dist

test-rpm: ready rpmbuild ## what the .rpm that is built here has in it; installed, upgraded, removed in a copy of this system
	$(SUDO) $(WHOLE) $(BIN)/pytest -q --timeout=$(MACHINE_SECONDS) tests/machine/test_rpm.py

# Elsewhere, later, by another umask, and by another's language and time zone.
package-twice: debhelper ## the same built twice: it must be the same, byte for byte
	first=$$(mktemp -d); second=$$(mktemp -d); trap 'rm -rf "$$first" "$$second"' EXIT; \
	(umask 022; packaging/build-deb "$$first"); \
	(umask 077; export TMPDIR="$$second" TZ=Asia/Tokyo LANG=C; packaging/build-deb "$$second"); \
	sha256sum "$$first"/*.deb; cmp "$$first"/*.deb "$$second"/*.deb

collection: $(ANSIBLE_VENV)/.ready ## the Ansible collection in dist/
	mkdir -p dist
	$(ANSIBLE_VENV)/bin/ansible-galaxy collection build --force packaging/ansible --output-path dist

dist: $(RELEASE_VENV)/.ready ## wheels and source distributions in dist/, checked by twine and check-wheel-contents
	rm -f dist/*.whl dist/*.tar.gz
	for source in . nova; do $(RELEASE_VENV)/bin/python -m build -q --outdir dist "$$source"; done
	$(RELEASE_VENV)/bin/twine check --strict dist/*.whl dist/*.tar.gz
	$(RELEASE_VENV)/bin/check-wheel-contents dist/moorline-*.whl
	$(RELEASE_VENV)/bin/check-wheel-contents --config nova/pyproject.toml dist/moorline_nova-*.whl

release: $(RELEASE_VENV)/.ready ## version and CHANGELOG.md made from changelog/: VERSION=0.2.0, or the next one
	$(RELEASE_VENV)/bin/python packaging/release.py $(VERSION)

$(RELEASE_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt \
		$$($(PYTHON) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
			print(*p["optional-dependencies"]["release"])')
	@touch $@

ready: $(VENV)/.ready ## install what is missing (apt packages, virtual environment)

# Distributions' packages are looked for each time, which takes no time, and
# installed only if one is missing.
vcenter: PACKAGES := $(VCENTER)
etcd: PACKAGES := $(ETCD)
shells: PACKAGES := $(SHELLS)
glusterfs: PACKAGES := $(GLUSTERFS)
nbd: PACKAGES := $(NBD)
tgt: PACKAGES := $(TGT)
ceph: PACKAGES := $(CEPH)
rabbitmq: PACKAGES := $(RABBITMQ)
machines: PACKAGES := debootstrap systemd-container
debhelper: PACKAGES := $(DEBHELPER)
rpmbuild: PACKAGES := $(RPM)
chromium: PACKAGES := $(CHROMIUM)
system-packages vcenter machines etcd shells glusterfs nbd tgt ceph rabbitmq debhelper rpmbuild chromium:
	@missing=(); for package in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed \
			|| missing+=("$$package"); \
	done; \
	if (( $${#missing[@]} )); then \
		echo "installing $${missing[*]}"; \
		$(SUDO) apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -qq -y --no-install-recommends "$${missing[@]}" </dev/null; \
		for service in etcd:etcd-server tgt:tgt rabbitmq-server:rabbitmq-server; do \
			if [[ -d /run/systemd/system && " $${missing[*]} " == *" $${service#*:} "* ]]; then \
				$(SUDO) systemctl disable -q --now "$${service%:*}"; \
			fi; \
		done; \
	fi

$(VENV)/.ready: pyproject.toml constraints.txt Makefile | system-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Moorline needs Python 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[libvirt,powervm,vsphere,osbrick,cinder,agent,fleet,ui,test]'
	@touch $@

clean: ## remove what the targets above have made, except for system packages
	rm -rf $(VENV) $(RELEASE_VENV) $(ANSIBLE_VENV) $(CINDER_VENV) $(CLOUD_VENV) .venv-nova* .lab build nova/build dist .mypy_cache .ruff_cache .hypothesis src/*.egg-info nova/src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
