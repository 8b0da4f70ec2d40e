# What a package has, of Debian or of another: make -f packaging/installed.mk ROOT=DIRECTORY WORK=DIRECTORY.
# An environment of its own beneath /opt/moorline: docs/decisions/0050-the-package-has-its-own-environment.md.
PREFIX := /opt/moorline
ENVIRONMENT := $(ROOT)$(PREFIX)
TOOLS := $(WORK)/tools
# The release's own, whatever Python is first in the path.
PYTHON ?= /usr/bin/python3
SERIES := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
LIBRARIES = $(ENVIRONMENT)/lib/python$(SERIES)/site-packages
MOORLINE = env -u MOORLINE_STATE_DIR -u PYTHONPATH $(ENVIRONMENT)/bin/python3 -m moorline.cli
SHARE := $(ROOT)/usr/share
# Beneath $(SHARE), where the release's zsh looks.
ZSH ?= zsh/site-functions

export PIP_CONSTRAINT := $(CURDIR)/constraints.txt $(CURDIR)/packaging/build-constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE := 1
export LC_ALL := C.UTF-8
# Without debugging information, which would tell the directory of pip's that it was compiled in; nor
# comes a wheel out of pip's cache that was compiled for something else.
export CFLAGS := -g0
export PIP_NO_CACHE_DIR := 1

installed: environment scripts bytecode
	install -D -m 644 -t $(ENVIRONMENT)/share/doc/moorline docs/*.md
	install -D -m 644 packaging/moorline.slice $(ROOT)/usr/lib/systemd/system/moorline.slice
	install -D -m 644 -t $(SHARE)/doc/moorline/examples packaging/moorline-alerts.yaml packaging/moorline-dashboard.json
	$(MOORLINE) config example >$(SHARE)/doc/moorline/examples/moorline.conf
	mkdir -p $(SHARE)/bash-completion/completions $(SHARE)/$(ZSH) $(SHARE)/fish/vendor_completions.d
	$(MOORLINE) completion bash >$(SHARE)/bash-completion/completions/moorline
	$(MOORLINE) completion zsh >$(SHARE)/$(ZSH)/_moorline
	$(MOORLINE) completion fish >$(SHARE)/fish/vendor_completions.d/moorline.fish
	mkdir -p $(ROOT)/etc/libvirt/hooks/qemu.d
	$(MOORLINE) hook install --directory $(ROOT)/etc/libvirt/hooks/qemu.d
	sed -i 's,$(ENVIRONMENT)/,$(PREFIX)/,g' $(ROOT)/etc/libvirt/hooks/qemu.d/moorline
	mkdir -p $(WORK)/man
	PYTHONPATH=$(LIBRARIES) $(TOOLS)/bin/python packaging/man_pages.py $(WORK)/man
	! grep -rlE '$(ROOT)|$(CURDIR)|/pip-(install|req-build)-' $(ROOT)/opt $(ROOT)/etc $(ROOT)/usr

environment:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install -q click-man
	$(PYTHON) -m venv --without-pip $(ENVIRONMENT)
	$(TOOLS)/bin/pip wheel -q --no-deps --wheel-dir $(WORK)/wheel .
	$(TOOLS)/bin/pip --python $(ENVIRONMENT)/bin/python3 install -q --no-compile "$$(echo $(WORK)/wheel/moorline-*.whl)[all]"

# Where it was built is nobody's business, nor are the libraries' own commands; but for the one
# that oslo.privsep starts.
scripts: environment
	rm $(LIBRARIES)/moorline-*.dist-info/direct_url.json
	sed -i '/direct_url\.json/d' $(LIBRARIES)/moorline-*.dist-info/RECORD
	sed -i '/^command = /d' $(ENVIRONMENT)/pyvenv.cfg
	find $(ENVIRONMENT)/bin -mindepth 1 ! -name 'python*' ! -name moorline ! -name privsep-helper -delete
	sed -i '1s,$(ENVIRONMENT)/,$(PREFIX)/,' $(ENVIRONMENT)/bin/moorline $(ENVIRONMENT)/bin/privsep-helper
	# A command's digest is of what pip wrote, with the place of the build in it.
	sed -i '\,^\.\./\.\./\.\./bin/,d' $(LIBRARIES)/*.dist-info/RECORD

# Beforehand, and valid whatever a file's time is: nothing is written beneath /opt when it runs.
bytecode: scripts
	$(PYTHON) -m compileall -q --invalidation-mode unchecked-hash -s $(ROOT) $(LIBRARIES)

.PHONY: installed environment scripts bytecode
