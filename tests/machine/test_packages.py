"""The packages of `make packages`, as docs/operations.md tells: install, upgrade, remove, purge."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from lab.machine import operations, packages
from lab.machine.container import LAB, Machine
from tests.support.stage import Stage

STATE = "/var/lib/moorline"
OLDER = """set -eu
cd {lab}
dpkg-deb -R new/moorline_*.deb older
sed -i 's/^Version: .*/Version: 0.0.9/' older/DEBIAN/control
echo gone >older/opt/moorline/share/gone
mkdir -p old
dpkg-deb -Zgzip -z1 -b older old/moorline_0.0.9.deb
rm -r older
"""
"""A version before: the same files and one more, numbered lower."""
LEFT = """find / -xdev -iname '*moorline*' -not -path '/root/*' -not -path '/opt/moorline-lab*' \
-not -path '/run/*'
find /var -xdev -iname '*moorline*' -not -path '/var/log/*' -not -path '*/moorline-lab*' \
-not -path '/var/lib/apt/*' -not -path '/var/cache/*'
systemctl list-units --all --plain --no-legend 'moorline*.service' 'moorline*.scope'
pgrep -af '[m]oorline agent'
"""
STRANGE = "find /opt/moorline | sort >/tmp/there; dpkg -L moorline | sort | comm -23 /tmp/there -"
"""What lies beneath /opt/moorline and is not the package's."""


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    """The packages that were built, by release."""
    return {}


@pytest.fixture
def host(bare: Machine, built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A machine with the package in new/ of its lab."""
    if bare.release not in built:
        built[bare.release] = packages.build(bare.release, tmp_path_factory.mktemp("package"))
    (bare.lab / "new").mkdir()
    shutil.copy(built[bare.release], bare.lab / "new")
    return Stage(bare, "vol-packages")


def install_older(stage: Stage) -> None:
    stage.run(OLDER.format(lab=LAB), deadline=600)
    follow(stage, "Install", "old")
    assert version(stage) == "0.0.9"


def follow(stage: Stage, section: str, directory: str = "new") -> str:
    return "".join(operations.follow(stage.machine, section, f"{LAB}/{directory}"))


def apt(stage: Stage, words: str, code: int = 0) -> str:
    """Have apt do it; return what was said: what dpkg's scripts say is on standard output."""
    ran = stage.run(f"apt-get -q -y {words}", code=code)
    return ran.stdout + ran.stderr


def version(stage: Stage) -> str:
    return stage.run("dpkg-query -W -f '${Version}' moorline").stdout


def test_what_is_installed_works(host: Stage) -> None:
    follow(host, "Install")
    assert host.property("ActiveState") == "active"
    assert host.property("UnitFileState") == "enabled"
    verified = host.run("systemd-analyze verify moorline-agent.service moorline.slice")
    assert verified.stdout + verified.stderr == ""
    for page in host.property("Documentation").split():
        host.run(f"test -s {page.removeprefix('file:')}")
    host.run("getent group moorline && test -d /run/moorline")
    host.run("moorline hook install --directory /tmp/hooks")
    host.run("cmp /etc/libvirt/hooks/qemu.d/moorline /tmp/hooks/moorline && rm -r /tmp/hooks")
    for group in ("moorline.backends", "moorline.hypervisors"):
        load = (
            "import importlib.metadata as m; "
            f"assert [each.load() for each in m.entry_points(group='{group}')]"
        )
        host.run(f'/opt/moorline/bin/python3 -c "{load}"')
    examples = "/usr/share/doc/moorline/examples"
    host.run(f"moorline config check --config-file {examples}/moorline.conf")
    host.run(f"promtool check rules {examples}/moorline-alerts.yaml")
    host.run(f"python3 -m json.tool {examples}/moorline-dashboard.json")
    completed = host.run(
        ". /usr/share/bash-completion/completions/moorline; "
        "COMP_WORDS=(moorline att); COMP_CWORD=1; COMP_LINE='moorline att'; COMP_POINT=12; "
        '_moorline_completion moorline; echo "${COMPREPLY[@]}"'
    )
    assert completed.stdout.split() == ["attach"]
    for command in ("", "-attach", "-fleet-init"):
        page = host.run(f"zcat /usr/share/man/man1/moorline{command}.1.gz").stdout
        assert ".SH DESCRIPTION" in page
        assert "..." not in page.partition(".SH SYNOPSIS")[0]
    assert "Exit codes" in host.run("zcat /usr/share/man/man1/moorline.1.gz").stdout
    assert host.run("dpkg --verify moorline").stdout == ""
    assert host.run(STRANGE).stdout == ""
    follow(host, "Remove")
    assert host.run(LEFT, code=None).stdout == ""


def test_an_upgrade_touches_no_share_and_no_guest(host: Stage) -> None:
    install_older(host)
    guest, volume = host.writing("web01")
    clients, agent = host.clients(), host.agent()
    follow(host, "Upgrade")
    assert version(host) != "0.0.9"
    host.await_(lambda: host.property("SubState") == "running")
    assert host.agent() != agent
    guest.writes_on()
    assert host.clients() == clients
    host.await_(lambda: host.rows() == {volume: ("attached", "attached")})
    host.run("test ! -e /opt/moorline/share/gone")
    assert host.run(STRANGE).stdout == ""
    other = host.attach("web01", "other.raw")
    guest.wait_for(other)
    guest.saw_no_error()


def test_removal_leaves_shares_and_guests_and_a_purge_is_refused(host: Stage) -> None:
    follow(host, "Install")
    guest, volume = host.writing("web01")
    clients = host.clients()
    told = apt(host, "remove moorline")
    assert "attachments are left" in told
    assert host.run("systemctl is-active moorline-agent; pgrep -f '[m]oorline agent'", code=1)
    guest.writes_on()
    assert host.clients() == clients
    other = host.guest("web02")  # the hook that is left holds nobody up
    assert other.agent.check("echo alive") == ["alive"]

    told = apt(host, "purge moorline", code=100)
    assert "shares are mounted" in told
    guest.writes_on()
    assert host.clients() == clients

    follow(host, "Install")
    host.await_(lambda: host.rows() == {volume: ("attached", "attached")})
    guest.writes_on()
    guest.saw_no_error()
    host.moorline(f"release web01 {volume}")
    apt(host, "remove moorline")
    told = apt(host, "purge moorline", code=100)
    assert "shares are mounted" in told  # nothing is recorded, and the guest has its disk
    guest.writes_on()
    guest.saw_no_error()
    mounted = f"cut -d ' ' -f 5 /proc/self/mountinfo | grep '^{STATE}/' | tac"
    host.run(f"virsh destroy web01 && {mounted} | xargs umount")
    apt(host, "purge moorline")
    assert host.run(LEFT, code=None).stdout == ""


def test_a_purge_is_refused_while_attachments_are_recorded(host: Stage) -> None:
    install_older(host)
    host.run("moorline hook uninstall; truncate -s 1M /var/lib/libvirt/images/data.raw")
    host.guest("web01")
    follow(host, "Upgrade")
    host.run("test ! -e /etc/libvirt/hooks/qemu.d/moorline")  # whoever took it away meant it
    attach = "moorline attach web01 /var/lib/libvirt/images/data.raw --format raw"
    host.run(attach)
    (volume,) = host.rows()
    before = host.run(f"sha256sum {STATE}/key").stdout
    told = apt(host, "purge moorline", code=100)
    assert "attachments are recorded" in told
    assert host.run(f"sha256sum {STATE}/key").stdout == before
    follow(host, "Install")
    assert host.rows() == {volume: ("attached", "attached")}
    host.moorline(f"detach web01 {volume}")
    apt(host, "remove moorline")

    # What was found at removal is believed only of the state that it was found of.
    host.run(f"cp -a {STATE}/moorline.db /root/kept.db; echo >>{STATE}/moorline.db")
    told = apt(host, "purge moorline", code=100)
    assert "attachments are recorded" in told
    host.run(f"cp -a /root/kept.db {STATE}/moorline.db")
    apt(host, "purge moorline")
    assert host.run(LEFT, code=None).stdout == ""


def test_from_pip_to_the_package(host: Stage) -> None:
    operations.install(host.machine)
    guest, volume = host.writing("web01")
    clients = host.clients()
    told = apt(host, f"install {LAB}/new/moorline_*.deb", code=100)
    assert "pip has installed Moorline" in told
    assert host.rows() == {volume: ("attached", "attached")}
    assert host.property("ActiveState") == "active"
    follow(host, "From pip to the package")
    host.await_(lambda: host.rows() == {volume: ("attached", "attached")})
    assert host.property("FragmentPath").startswith(("/lib/", "/usr/lib/"))
    guest.writes_on()
    assert host.clients() == clients
    guest.saw_no_error()
    assert host.run(STRANGE).stdout == ""


@pytest.mark.usefixtures("_possible")
def test_a_package_of_a_commit_is_always_the_same(
    release: str, built: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = built.get(release) or packages.build(release, tmp_path / "one")
    second = packages.build(release, tmp_path / "two")
    assert _digest(first) == _digest(second)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
