"""What only libvirt and QEMU do: guests that boot, sleep or are full, and libvirtd that dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import (
    CONFIG,
    LibvirtRig,
    answers,
    concealed,
    id_of,
    loop_device,
    mounted,
    small_xml,
    until,
)

from lab import guest as guests
from lab import host
from lab.quobyte.cluster import QuobyteVolume
from moorline.errors import Failed, NotFound, Refused, Unavailable, Uncertain
from moorline.hypervisors.libvirt.connection import Connection
from moorline.hypervisors.libvirt.domain_xml import parse
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import BlockDevice, DiskOptions, DiskState, GuestId, ImageFile, VolumeId
from moorline.testing.contracts.hypervisor import (
    OTHER,
    PLAIN,
    VOLUME,
    in_threads,
    look,
    persistently,
    take_away,
)

PAUSED = 1
"""VIR_DOMAIN_START_PAUSED."""


@pytest.fixture
def rig(libvirt_rig: LibvirtRig) -> LibvirtRig:
    return libvirt_rig


@pytest.fixture
def me(guest: guests.Guest) -> GuestId:
    return id_of(guest.domain)


# --- what the guest sees -----------------------------------------------------


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_the_guest_gets_the_disk_and_lets_it_go(
    rig: LibvirtRig, guest: guests.Guest, me: GuestId, bus: str
) -> None:
    source = rig.new_source()
    rig.hypervisor.attach(me, VOLUME, source, DiskOptions(bus=bus))
    guest.write(VOLUME, "moorline")
    assert source.path.read_bytes()[:65536] == guests.pattern("moorline")
    take_away(rig, me, VOLUME)
    until(lambda: guest.disks() == {})


def test_a_read_only_disk_cannot_be_written_to(
    rig: LibvirtRig, guest: guests.Guest, me: GuestId
) -> None:
    rig.hypervisor.attach(me, VOLUME, rig.new_source(), DiskOptions(readonly=True))
    device = Path(guest.wait_for(VOLUME)).name
    assert guest.agent.check(f"cat /sys/block/{device}/ro") == ["1"]


def test_a_block_device_is_a_disk(rig: LibvirtRig, guest: guests.Guest, me: GuestId) -> None:
    with loop_device(rig.new_source().path) as device:
        rig.hypervisor.check(me, BlockDevice(device), PLAIN)
        rig.hypervisor.attach(me, VOLUME, BlockDevice(device), PLAIN)
        assert guest.wait_for(VOLUME)
        take_away(rig, me, VOLUME)


def test_the_file_keeps_its_owner_where_it_shall(rig: LibvirtRig, me: GuestId) -> None:
    path = rig.new_source().path
    os.chown(path, host.qemu_user(), -1)
    path.chmod(0o600)
    rig.hypervisor.attach(me, VOLUME, ImageFile(path, "raw", relabel=False), PLAIN)
    take_away(rig, me, VOLUME)
    assert path.stat().st_uid == host.qemu_user()
    before = rig.new_source().path
    rig.hypervisor.attach(me, VOLUME, ImageFile(before, "raw"), PLAIN)
    assert before.stat().st_uid == host.qemu_user()
    take_away(rig, me, VOLUME)
    until(lambda: before.stat().st_uid == 0)  # libvirt gives it back after the disk is gone


# --- names and places --------------------------------------------------------


def test_the_target_is_the_one_that_was_given(rig: LibvirtRig, me: GuestId) -> None:
    rig.hypervisor.attach(me, VOLUME, rig.new_source(), DiskOptions(target="vdk"))
    rig.hypervisor.attach(me, OTHER, rig.new_source(), DiskOptions(target="sdq"))
    devices = {v: disk.device for v, disk in rig.hypervisor.disks(me).items()}
    assert devices == {VOLUME: "vdk", OTHER: "sdq"}


def test_a_target_that_is_taken_is_refused(rig: LibvirtRig, me: GuestId) -> None:
    rig.hypervisor.attach(me, VOLUME, rig.new_source(), DiskOptions(target="vdk"))
    before = rig.world()
    with pytest.raises(Refused, match="has a disk vdk already"):
        rig.hypervisor.attach(me, OTHER, rig.new_source(), DiskOptions(target="vdk"))
    assert rig.world() == before


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_places_are_counted_as_libvirt_counts_them(
    rig: LibvirtRig, small: Callable[..., Any], machine: str
) -> None:
    domain = small(machine=machine, ports=3)
    known = parse(domain.XMLDesc()).hotplug_ports
    assert known is not None
    free, _ = known
    assert free > 0
    for number in range(free):
        source = rig.new_source()
        rig.hypervisor.attach(id_of(domain), VolumeId(f"v{number}"), source, PLAIN)
    with pytest.raises(Refused, match="has no free PCI port"):
        rig.hypervisor.attach(id_of(domain), VOLUME, rig.new_source(), PLAIN)


def test_a_full_guest_still_takes_scsi_disks(rig: LibvirtRig, small: Callable[..., Any]) -> None:
    domain = small(ports=1, scsi=True)
    with pytest.raises(Refused, match="has no free PCI port") as refused:
        rig.hypervisor.check(id_of(domain), rig.new_source(), PLAIN)
    assert "scsi" in refused.value.hint
    rig.hypervisor.attach(id_of(domain), VOLUME, rig.new_source(), DiskOptions(bus="scsi"))
    assert look(rig, id_of(domain)).state is DiskState.WHOLE
    # No system runs in it: QEMU alone lets a SCSI disk go.
    take_away(rig, id_of(domain), VOLUME)


def test_a_guest_without_room_for_a_controller_takes_no_scsi_disks(
    rig: LibvirtRig, small: Callable[..., Any]
) -> None:
    domain = small(ports=0)
    with pytest.raises(Refused, match="no free PCI port"):
        rig.hypervisor.check(id_of(domain), rig.new_source(), DiskOptions(bus="scsi"))
    assert rig.hypervisor.disks(id_of(domain)) == {}


# --- guests that do not listen -------------------------------------------------


def test_a_detach_is_not_done_while_the_guest_is_paused(
    rig: LibvirtRig, guest: guests.Guest, me: GuestId
) -> None:
    rig.hypervisor.attach(me, VOLUME, rig.new_source(), PLAIN)
    guest.domain.suspend()
    for _ in range(2):
        with pytest.raises(Failed, match=f"{guest.name} is paused, and lets no disk go") as failed:
            rig.hypervisor.detach(me, VOLUME)
        assert failed.value.hint.startswith(f"virsh resume {guest.name}")
        assert look(rig, me).state is DiskState.PARTIAL
    guest.domain.resume()
    until(lambda: look(rig, me).state is DiskState.NONE)


def test_a_guest_that_boots_is_asked_again(
    rig: LibvirtRig, guest: guests.Guest, me: GuestId
) -> None:
    rig.hypervisor.attach(me, VOLUME, rig.new_source(), PLAIN)
    restart(guest)
    rig.hypervisor.detach(me, VOLUME)
    assert look(rig, me).state is DiskState.PARTIAL
    take_away(rig, me, VOLUME)
    guest.agent.ready()
    assert guest.disks() == {}


def test_the_mark_survives_a_new_definition_and_a_restart(
    rig: LibvirtRig, guest: guests.Guest, me: GuestId
) -> None:
    rig.hypervisor.attach(me, VOLUME, rig.new_source(), PLAIN)
    rig.hypervisor.attach(me, OTHER, rig.new_source(), DiskOptions(bus="scsi"))
    before = rig.hypervisor.disks(me)
    rig.connection.defineXML(guest.domain.XMLDesc(CONFIG))
    restart(guest)
    assert rig.hypervisor.disks(me) == before
    guest.agent.ready()
    assert guest.wait_for(VOLUME)
    for volume in before:
        take_away(rig, me, volume)


def test_a_saved_guest_keeps_its_disk(rig: LibvirtRig, small: Callable[..., Any]) -> None:
    domain = small(scsi=True, ports=2, persistent=True)
    me, source = id_of(domain), rig.new_source()
    rig.hypervisor.attach(me, VOLUME, source, PLAIN)
    domain.managedSave()
    with pytest.raises(Failed, match="comes back when it is started"):
        rig.hypervisor.detach(me, VOLUME)
    assert look(rig, me).state is DiskState.PARTIAL
    (seen,) = (each for each in rig.hypervisor.survey() if each.id == me)
    assert str(source.path) in seen.paths
    domain.managedSaveRemove()
    assert rig.hypervisor.disks(me) == {}


def test_a_guest_that_was_undefined_is_gone(rig: LibvirtRig) -> None:
    me = rig.stopped_guest()
    rig.hypervisor.attach(me, VOLUME, rig.new_source(), PLAIN)
    rig.drop_stopped_guest()
    assert rig.hypervisor.disks(me) == {}
    rig.hypervisor.detach(me, VOLUME)
    with pytest.raises(NotFound):
        rig.hypervisor.attach(me, VOLUME, rig.new_source(), PLAIN)


# --- mounts --------------------------------------------------------------------


def test_the_propagation_trap_is_explained(rig: LibvirtRig, me: GuestId, lab: Path) -> None:
    with concealed(lab / "trap") as mount_point:
        source = ImageFile(mount_point / "disk.raw", "raw")
        with source.path.open("wb") as file:
            file.truncate(1 << 20)
        before = rig.world()
        with pytest.raises(Refused, match="mounted after the guest had started") as refused:
            rig.hypervisor.check(me, source, PLAIN)
        assert "make-rshared" in refused.value.hint
        with pytest.raises(Refused, match="mounted after the guest had started"):
            rig.hypervisor.attach(me, VOLUME, source, PLAIN)
        assert rig.world() == before


def test_a_hung_share_costs_its_own_guest_only(
    rig: LibvirtRig, share: QuobyteVolume, second_guest: guests.Guest, me: GuestId, lab: Path
) -> None:
    share.disk("disk.raw")
    with mounted(share, lab / "hung") as at:
        source = ImageFile(at / "disk.raw", "raw")
        hasty = Libvirt(deadline=1.5)
        share.daemon(hang=True)
        with pytest.raises(Uncertain, match="did not answer"):
            hasty.attach(me, VOLUME, source, PLAIN)
        # This guest is not asked for the list of all, but the list itself waits for it
        # (virDomainObjListFilter in libvirt's src/conf locks each domain).
        with pytest.raises(Uncertain, match="all guests"):
            hasty.survey()
        for asks in (  # what hangs is not asked again: that would wait for the deadline, and say so
            lambda: hasty.disks(me),
            lambda: hasty.detach(me, VOLUME),
            hasty.survey,
            lambda: hasty.lifecycle().look(me),
            lambda: hasty.inventory().disks(me),
        ):
            with pytest.raises(Uncertain, match="still hangs"):
                asks()
        hasty.attach(id_of(second_guest.domain), OTHER, rig.new_source(), PLAIN)
        assert hasty.find(second_guest.name)
        share.daemon()
        until(lambda: answers(hasty))
        assert hasty.disks(me)[VOLUME].state is DiskState.WHOLE
        take_away(rig, me, VOLUME)
        hasty.close()


# --- libvirtd --------------------------------------------------------------------


def test_libvirtd_may_be_killed_between_calls(rig: LibvirtRig, me: GuestId) -> None:
    source = rig.new_source()
    rig.hypervisor.attach(me, VOLUME, source, PLAIN)
    host.kill_libvirtd()
    with pytest.raises(Unavailable, match="qemu:///system"):
        rig.hypervisor.disks(me)
    host.start_libvirtd()
    assert look(rig, me).state is DiskState.WHOLE
    host.kill_libvirtd()
    host.start_libvirtd()
    persistently(rig, me, OTHER, rig.new_source())()
    host.kill_libvirtd()
    host.start_libvirtd()
    take_away(rig, me, VOLUME)
    assert len(rig.hypervisor.survey()) >= 2


def test_a_change_is_uncertain_if_libvirtd_dies_in_it(rig: LibvirtRig) -> None:
    connection = Connection("qemu:///system", 20)

    def change(virt: Any) -> None:
        host.kill_libvirtd()
        virt.listAllDomains()

    try:
        with pytest.raises(Uncertain, match="broke"):
            connection.change("subject", change)
    finally:
        host.start_libvirtd()
    assert connection.look("subject", lambda virt: len(virt.listAllDomains())) >= 2
    connection.close()


def test_a_stopped_libvirtd_is_not_waited_for_twice(rig: LibvirtRig, me: GuestId) -> None:
    deadline = 2.0
    hasty = Libvirt(deadline=deadline)
    assert hasty.disks(me) == {}
    pid = int(host.LIBVIRT_PID.read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Uncertain, match="did not answer"):
            hasty.disks(me)
        start = time.monotonic()
        with pytest.raises(Uncertain, match="still hangs"):
            hasty.disks(me)
        assert time.monotonic() - start < deadline
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: answers(hasty))
    hasty.close()


def test_four_threads_work_on_two_guests(
    rig: LibvirtRig, second_guest: guests.Guest, me: GuestId
) -> None:
    jobs = [
        (guest, VolumeId(f"t{n}"), rig.new_source())
        for n in range(4)
        for guest in (me, id_of(second_guest.domain))[n % 2 : n % 2 + 1]
    ]
    in_threads(*(persistently(rig, *job) for job in jobs))
    for guest, volume, source in jobs:
        assert look(rig, guest, volume).source == str(source.path)
    in_threads(*(lambda g=g, v=v: take_away(rig, g, v) for g, v, _ in jobs))


# --- hands on the world ------------------------------------------------------------


@pytest.fixture
def small(rig: LibvirtRig) -> Iterator[Callable[..., Any]]:
    """Make a guest with few places. It is paused, so it takes no time."""
    made = []

    def make(
        *, machine: str = "q35", ports: int = 2, scsi: bool = False, persistent: bool = False
    ) -> Any:
        xml = small_xml(machine, ports, "virtio-scsi" if scsi else "")
        if persistent:
            made.append(rig.connection.defineXML(xml))
            made[-1].createWithFlags(PAUSED)
        else:
            made.append(rig.connection.createXML(xml, PAUSED))
        return made[-1]

    yield make
    for domain in made:
        persistent = domain.isPersistent()
        if domain.isActive():
            domain.destroy()
        if persistent:
            domain.undefine()


def restart(guest: guests.Guest) -> None:
    guest.agent.close()
    guest.domain.destroy()
    guest.domain.create()
