"""iSCSI by os-brick's own connector: open-iscsi and the kernel's target (LIO)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import servers
from lab.machine.servers import Iscsi
from tests.support.real import Real

SERIAL = "{:0<32x}"
"""LIO makes the identity of the first 25 digits."""


@pytest.fixture
def iscsi(real: Real) -> Iterator[Iscsi]:
    """A target whose LUN 1 is 64 MiB."""
    iscsi = Iscsi(real.machine)
    servers.disk(real.machine, "/srv/lun1")
    iscsi.add(1, "/srv/lun1", SERIAL.format(1))
    yield iscsi
    real.run("iscsiadm -m node --logout; iscsiadm -m node -o delete", code=None)
    iscsi.remove(1)


def test_a_guest_s_disk_by_iscsi_with_chap(real: Real, iscsi: Iscsi) -> None:
    guest, volume = real.guest("web01"), real.id()
    real.attach(guest, iscsi.connection(1, volume))
    assert iscsi.sessions() == 1
    real.writes(guest, volume, 65, "/srv/lun1")
    real.run("systemctl restart moorline-agent")
    real.await_(lambda: real.rows() == {volume: ("attached", "attached")})
    real.moorline("doctor")
    real.detach(guest, volume)
    assert iscsi.sessions() == 0


def test_a_lun_that_was_removed_takes_no_other_volume_with_it(real: Real, iscsi: Iscsi) -> None:
    guest, one, two = real.guest("web01"), real.id(), real.id()
    servers.disk(real.machine, "/srv/lun2")
    iscsi.add(2, "/srv/lun2", SERIAL.format(2))
    real.attach(guest, iscsi.connection(1, one))
    real.attach(guest, iscsi.connection(2, two))
    assert iscsi.sessions() == 1
    iscsi.remove(1)
    assert "rror" in real.io(guest, one, "write -P 66 0 64k")
    real.writes(guest, two, 67, "/srv/lun2")

    real.detach(guest, one)
    assert real.rows() == {two: ("attached", "attached")}
    real.writes(guest, two, 68, "/srv/lun2")
    real.moorline("doctor")
    real.detach(guest, two)
    assert iscsi.sessions() == 0
    iscsi.remove(2)
    iscsi.add(1, "/srv/lun1", SERIAL.format(1))


def test_another_volume_in_a_lun_s_place_is_not_taken_for_it(real: Real, iscsi: Iscsi) -> None:
    """The session lives on, by another volume: what the kernel knew of the LUN would be stale."""
    guest, one, two = real.guest("web01"), real.id(), real.id()
    for lun in (2, 3):
        servers.disk(real.machine, f"/srv/lun{lun}", f"{64 + lun}M")
    iscsi.add(2, "/srv/lun2", SERIAL.format(2))
    real.attach(guest, iscsi.connection(2, two))
    real.attach(guest, iscsi.connection(1, one))
    before = real.run("readlink /dev/moorline/iscsi-* | sort").stdout.split()
    real.writes(guest, one, 69, "/srv/lun1")
    real.detach(guest, one)

    iscsi.remove(1)
    iscsi.add(1, "/srv/lun3", SERIAL.format(3))
    real.attach(guest, iscsi.connection(1, one))
    after = real.run("readlink /dev/moorline/iscsi-* | sort").stdout.split()
    assert len(set(before) & set(after)) == 1, (before, after)
    real.writes(guest, one, 70, "/srv/lun3")
    assert real.run("head -c 1 /srv/lun1").stdout == "E"
    assert f"{67 << 20}" in real.run(f"virsh domblkinfo {guest} sdb").stdout
    for volume in (one, two):
        real.detach(guest, volume)
    iscsi.remove(2)


def test_a_session_that_somebody_logged_out_is_told_and_can_be_made_again(
    real: Real, iscsi: Iscsi
) -> None:
    guest, other, volume = real.guest("web01"), real.guest("web02"), real.id()
    connection = iscsi.connection(1, volume)
    real.attach(guest, connection)
    real.run("iscsiadm -m node --logout")
    real.await_(lambda: real.rows() != {volume: ("attached", "attached")})
    assert volume in real.moorline("doctor", code=10)
    real.detach(guest, volume)
    assert real.run("iscsiadm -m node", code=None).stdout == ""
    real.attach(other, connection)
    real.writes(other, volume, 71, "/srv/lun1")
    real.moorline("doctor")


def test_a_guest_has_a_lun_as_it_is_and_a_helper_for_what_it_reserves(
    real: Real, iscsi: Iscsi
) -> None:
    guest, volume = real.guest("web01"), real.id()
    how = "--timeout 120 --device lun --reservations"
    real.attach(guest, iscsi.connection(1, volume), words=how)
    assert real.rows() == {volume: ("attached", "attached")}
    told = real.run(f"virsh dumpxml {guest}").stdout
    assert "device='lun'" in told
    assert "<reservations managed='yes'" in told
    devices = real.run(f"virsh qemu-monitor-command --hmp {guest} 'info qtree'").stdout
    assert "dev: scsi-block" in devices
    assert real.run("pgrep -c qemu-pr-helper").stdout.strip() == "1"
    real.detach(guest, volume)
    assert iscsi.sessions() == 0
