"""What AppArmor denied, as the kernel logs it (lines of Debian 12's kernel 6.1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moorline.errors import Failed, MoorlineError, Unavailable
from moorline.hypervisors.libvirt.connection import Rejected
from moorline.hypervisors.libvirt.open_errors import Denial, denials, raise_if_known
from moorline.model import GuestId

UUID = "2f2f1c6a-0c0d-4c0e-8f00-4d1b6f1f8a11"
PROFILE = f"libvirt-{UUID}"
GUEST = GuestId(UUID)


def record(name: str, profile: str = PROFILE, mask: str = "r") -> str:
    return (
        f'6,812,98321234,-;audit: type=1400 audit(1764565000.123:88): apparmor="DENIED"'
        f' operation="open" class="file" profile="{profile}" name={name} pid=4711'
        f' comm="qemu-system-x86" requested_mask="{mask}" denied_mask="{mask}" fsuid=64055 ouid=0\n'
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "kmsg"


def test_denials_of_one_profile_in_order(log: Path) -> None:
    log.write_text(
        record('"/srv/a"').replace("DENIED", "ALLOWED")  # it complains, and denies nothing
        + "6,811,98321200,-;usb 1-1: new device\n"
        + record('"/srv/b"', profile="libvirt-another")
        + record('"/srv/c"')
        + record(b"/srv/d e".hex().upper(), mask="wr")
        + record(b"/srv/\n".hex().upper())
    )
    assert list(denials(PROFILE, log)) == [Denial("/srv/c", "r"), Denial("/srv/d e", "wr")]


def test_a_log_that_cannot_be_read_tells_nothing(log: Path) -> None:
    assert list(denials(PROFILE, log)) == []


@pytest.mark.parametrize(
    ("denial", "rule"),
    [
        (Denial("/srv/base", "r"), "/srv/base rk,"),
        (Denial("/srv/disk", "wr"), "/srv/disk rwk,"),
        (Denial("/srv/a disk", "w"), '"/srv/a disk" rwk,'),
    ],
)
def test_the_rule_that_is_missing(denial: Denial, rule: str) -> None:
    assert denial.rule() == rule


def test_qemu_reads_first_what_it_will_write() -> None:
    denial = Denial("/srv/disk", "r")
    assert denial.rule(written="/srv/disk") == "/srv/disk rwk,"
    assert denial.rule(written="/srv/another") == "/srv/disk rk,"


CONFINED = "<seclabel type='dynamic' model='apparmor'><label>any</label></seclabel>"
SELINUX = "<seclabel type='dynamic' model='selinux'><label>svirt_t</label></seclabel>"
UNCONFINED = "<seclabel type='none' model='apparmor'/>"
DAC = "<seclabel type='dynamic' model='dac'><label>+64055:+64055</label></seclabel>"


class Virt:
    """A connection to a libvirt that has one guest."""

    def __init__(self, seclabels: str) -> None:
        self._xml = f"<domain><name>web01</name><uuid>{UUID}</uuid>{DAC}{seclabels}</domain>"

    def look(self, guest: GuestId, do: Callable[[Any], Any]) -> Any:
        if not self._xml:
            raise Unavailable("libvirt does not answer")
        return do(SimpleNamespace(XMLDesc=lambda: self._xml))


def known(seclabels: str, error: MoorlineError, log: Path) -> MoorlineError | None:
    connection: Any = Virt(seclabels)
    try:
        raise_if_known(connection, GUEST, lambda virt, guest: virt, "a volume", error, log=log)
    except MoorlineError as e:
        return e
    return None


COULD_NOT = "Could not open '/var/lib/moorline/mnt/a/disk': Permission denied"


@pytest.mark.parametrize("error", [Failed(COULD_NOT), Rejected(COULD_NOT)])
def test_a_denial_is_told_with_its_rule(log: Path, error: MoorlineError) -> None:
    log.write_text(record('"/var/lib/moorline/mnt/a/disk"', mask="wr"))
    told = known(CONFINED, error, log=log)
    assert type(told) is type(error)
    assert "AppArmor denies web01 /var/lib/moorline/mnt/a/disk" in told.message
    assert COULD_NOT in told.message
    assert "`/var/lib/moorline/mnt/a/disk rwk,`" in told.hint
    assert f"apparmor_parser -r /etc/apparmor.d/libvirt/{PROFILE}" in told.hint


def test_a_guest_that_did_not_start_has_the_profile_that_libvirt_would_make(log: Path) -> None:
    log.write_text(record('"/srv/disk"'))
    told = known("", Failed(COULD_NOT), log)
    assert told is not None
    assert "AppArmor denies web01 /srv/disk" in told.message


def test_what_a_rule_denies_in_so_many_words_is_not_logged(log: Path) -> None:
    told = known(CONFINED, Failed(COULD_NOT), log)
    assert told is not None
    assert told.message == f"{COULD_NOT}; AppArmor confines web01 as {PROFILE}"
    assert "journalctl -k" in told.hint


def test_selinux_has_its_own_log(log: Path) -> None:
    told = known(SELINUX, Failed(COULD_NOT), log)
    assert told is not None
    assert "ausearch" in told.hint


@pytest.mark.parametrize("seclabels", ["", UNCONFINED])
def test_who_is_not_confined_is_not_told_of_it(log: Path, seclabels: str) -> None:
    assert known(seclabels, Failed(COULD_NOT), log) is None


def test_other_errors_are_left_as_they_are(log: Path) -> None:
    log.write_text(record('"/srv/disk"'))
    assert known(CONFINED, Failed("No space left on device"), log) is None


def test_an_error_stays_where_libvirt_tells_nothing_more(log: Path) -> None:
    connection: Any = Virt("")
    connection._xml = ""
    error = Failed(COULD_NOT)
    raise_if_known(connection, GUEST, lambda virt, guest: virt, "a volume", error, log=log)
