"""Volumes that grow under a guest that runs: real QEMU, and a kernel in it that sees the size."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from libvirt_rig import LibvirtRig, id_of, loop_device, mounted, until

from lab import guest as guests
from lab.command import Moorline
from lab.quobyte.cluster import QuobyteVolume
from moorline.errors import Failed, NotFound, Refused, Uncertain
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import BlockDevice, DiskOptions, ImageFile, Sizes
from moorline.testing.contracts.hypervisor import PLAIN, VOLUME, take_away

MIB = 1 << 20


def size_in(guest: guests.Guest) -> int:
    """What the guest sees, once its driver has the disk.

    QEMU tells no size to a driver that is still starting, which may have read the old one:
    a test that makes a new disk larger asks for this first.
    """
    device = Path(guest.wait_for(VOLUME)).name
    (sectors,) = guest.agent.check(f"cat /sys/block/{device}/size")
    return int(sectors) * 512


def times_told(guest: guests.Guest) -> int:
    """How often the guest was told that the configuration of one of its virtio disks changed."""
    lines = guest.agent.check("grep virtio.*-config /proc/interrupts")
    return sum(int(line.split()[1]) for line in lines)


def test_the_guest_sees_a_file_that_grew_and_writes_to_its_end(
    moorline: Moorline, guest: guests.Guest, libvirt_rig: LibvirtRig
) -> None:
    path = libvirt_rig.new_source().path
    moorline("attach", guest.name, str(path), "--format", "raw", "--volume", VOLUME)
    guest.write(VOLUME, "before")
    assert size_in(guest) == MIB
    waited = moorline("extend", guest.name, VOLUME, "3M", "--timeout", "0", code=5)
    assert f"only 1MiB ({MIB} bytes) of 3MiB ({3 * MIB} bytes)" in waited.stderr
    os.truncate(path, 3 * MIB)
    foreseen = moorline.json("extend", guest.name, VOLUME, "--dry-run")
    assert (foreseen["steps"], foreseen["size"], size_in(guest)) == (["extend"], 3 * MIB, MIB)
    done = moorline.json("extend", guest.name, VOLUME)
    assert (done["steps"], done["before"], done["size"]) == (["extend"], MIB, 3 * MIB)
    until(lambda: size_in(guest) == 3 * MIB)
    heard = times_told(guest)
    again = moorline("extend", guest.name, VOLUME, "3MiB")
    assert again.stdout == f"volume {VOLUME} has 3MiB ({3 * MIB} bytes) on {guest.name} already\n"
    until(lambda: times_told(guest) > heard)  # its driver may have been starting the first time
    guest.write(VOLUME, "behind", offset=2 * MIB)
    for size in ("2M", str(MIB)):
        assert "cannot shrink" in moorline("extend", guest.name, VOLUME, size, code=3).stderr
    data = path.read_bytes()
    assert data[:65536] == guests.pattern("before")
    assert data[2 * MIB : 2 * MIB + 65536] == guests.pattern("behind")
    assert len(data) == 3 * MIB
    moorline("detach", guest.name, VOLUME)


def test_a_file_is_never_made_shorter_or_longer(
    libvirt_rig: LibvirtRig, guest: guests.Guest
) -> None:
    """QEMU would do that to a file when it is told of another size than it has."""
    me, source = id_of(guest.domain), libvirt_rig.new_source()
    libvirt_rig.hypervisor.attach(me, VOLUME, source, PLAIN)
    os.truncate(source.path, 3 * MIB)
    for size in (2 * MIB, 4 * MIB):
        with pytest.raises(Failed, match=rf"has 3MiB \({3 * MIB} bytes\)"):
            libvirt_rig.hypervisor.extend(me, VOLUME, size)
    assert (source.path.stat().st_size, size_in(guest)) == (3 * MIB, MIB)
    take_away(libvirt_rig, me, VOLUME)


@pytest.mark.parametrize("how", ["replaced", "moved", "deleted", "linked"])
def test_what_the_guest_has_open_must_be_what_is_there(
    moorline: Moorline, guest: guests.Guest, libvirt_rig: LibvirtRig, how: str
) -> None:
    source = libvirt_rig.new_source().path
    path = source
    if how == "linked":
        (libvirt_rig.directory / "link").symlink_to(source.parent)
        path = libvirt_rig.directory / "link" / source.name
    moorline("attach", guest.name, str(path), "--format", "raw", "--volume", VOLUME)
    new = libvirt_rig.new_source().path
    os.truncate(new, 3 * MIB)
    guest.write(VOLUME, "nowhere else")
    written = guests.pattern("nowhere else")
    if how == "moved":
        source.rename(source.with_name("old.raw"))
    if how in ("replaced", "moved"):
        new.rename(source)
    elif how == "deleted":
        source.unlink()
    else:
        os.truncate(source, 3 * MIB)
    well = how == "linked"
    done = moorline("extend", guest.name, VOLUME, "--timeout", "0", code=None)
    assert (done.returncode == 0) is well, done.stderr
    assert size_in(guest) == (3 * MIB if well else MIB)
    if not well:
        assert path.exists() is (how != "deleted")
        (finding,) = json.loads(moorline("doctor", "--output", "json", code=10).stdout)["findings"]
        assert finding["check"] == "replaced-image"
        if how != "moved":  # by what the kernel calls it now: of a file that was moved, any name
            (row,) = moorline.json("list")
            assert (row["seen"], row["next"].partition(":")[0]) == ("broken", "park")
            assert "deleted while the guest ran" in row["next"]
            said = moorline("attach", guest.name, str(path), "--format", "raw", code=None)
            assert said.returncode not in (0, 4)
            assert moorline.json("list")[0]["seen"] == "broken"
        told = moorline(*shlex.split(finding["next"])[1:]).stdout
        assert str(path) in told
        kept = guest.domain.XMLDesc(2)
        refused = moorline("detach", guest.name, VOLUME, code=3).stderr
        assert "is not taken" in refused
        assert (guest.domain.XMLDesc(2), size_in(guest)) == (kept, MIB)
        assert moorline.json("list")[0]["wanted"] == "attached"
        copy, release, gone = map(shlex.split, refused.partition("hint: ")[2].split("`")[1::2])
        path.touch()
        copy[copy.index("NEW-FILE")] = str(libvirt_rig.directory / "saved.raw")
        subprocess.run(copy, check=True, capture_output=True)
        assert (libvirt_rig.directory / "saved.raw").read_bytes()[:65536] == written
        moorline(*release[1:])
        subprocess.run(gone, check=True, capture_output=True)
    else:
        moorline("detach", guest.name, VOLUME)


def test_a_file_of_half_a_sector_more(libvirt_rig: LibvirtRig, guest: guests.Guest) -> None:
    me, source = id_of(guest.domain), libvirt_rig.new_source()
    libvirt_rig.hypervisor.attach(me, VOLUME, source, PLAIN)
    assert size_in(guest) == MIB
    os.truncate(source.path, 2 * MIB + 100)
    sizes = libvirt_rig.hypervisor.sizes(me, VOLUME)
    assert sizes == Sizes(guest=MIB, storage=2 * MIB + 512)
    libvirt_rig.hypervisor.extend(me, VOLUME, 2 * MIB + 512)
    until(lambda: size_in(guest) == 2 * MIB + 512)
    take_away(libvirt_rig, me, VOLUME)


def test_a_block_device_that_grew(libvirt_rig: LibvirtRig, guest: guests.Guest) -> None:
    me, file = id_of(guest.domain), libvirt_rig.new_source().path
    with loop_device(file) as device:
        libvirt_rig.hypervisor.attach(me, VOLUME, BlockDevice(device), DiskOptions(bus="scsi"))
        assert size_in(guest) == MIB
        os.truncate(file, 3 * MIB)
        subprocess.run(["losetup", "--set-capacity", device], check=True)
        assert libvirt_rig.hypervisor.sizes(me, VOLUME) == Sizes(guest=MIB, storage=3 * MIB)
        libvirt_rig.hypervisor.extend(me, VOLUME, 3 * MIB)
        until(lambda: size_in(guest) == 3 * MIB)
        take_away(libvirt_rig, me, VOLUME)


def test_what_qemu_cannot_show_while_the_guest_runs_is_refused(
    libvirt_rig: LibvirtRig, guest: guests.Guest
) -> None:
    me, path = id_of(guest.domain), libvirt_rig.directory / "a.qcow2"
    hypervisor = libvirt_rig.hypervisor
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    hypervisor.attach(me, VOLUME, ImageFile(path, "qcow2"), PLAIN)
    with pytest.raises(Refused, match="is qcow2"):
        hypervisor.sizes(me, VOLUME)
    take_away(libvirt_rig, me, VOLUME)
    hypervisor.attach(me, VOLUME, libvirt_rig.new_source(), DiskOptions(readonly=True))
    with pytest.raises(Refused, match="is read-only"):
        hypervisor.extend(me, VOLUME, 3 * MIB)
    take_away(libvirt_rig, me, VOLUME)
    with pytest.raises(NotFound):
        hypervisor.sizes(me, VOLUME)


def test_a_stopped_guest_sees_the_size_that_there_is(libvirt_rig: LibvirtRig) -> None:
    me, path = libvirt_rig.stopped_guest(), libvirt_rig.directory / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    libvirt_rig.hypervisor.attach(me, VOLUME, ImageFile(path, "qcow2"), PLAIN)
    subprocess.run(["qemu-img", "resize", "-q", path, "3M"], check=True)
    assert libvirt_rig.hypervisor.sizes(me, VOLUME) == Sizes(guest=3 * MIB, storage=3 * MIB)
    libvirt_rig.hypervisor.extend(me, VOLUME, 3 * MIB)


def test_a_hung_share_is_uncertain_at_once_and_libvirt_is_not_asked(
    libvirt_rig: LibvirtRig, share: QuobyteVolume, guest: guests.Guest, lab: Path
) -> None:
    me, linux = id_of(guest.domain), Linux(look_deadline=1.5)
    hypervisor = Libvirt(deadline=20, measure=linux.size)
    share.disk("disk.raw")
    with mounted(share, lab / "hung") as at:
        hypervisor.attach(me, VOLUME, ImageFile(at / "disk.raw", "raw"), PLAIN)
        share.daemon(hang=True)
        with pytest.raises(Uncertain, match=r"did not answer within 1\.5 s"):
            hypervisor.extend(me, VOLUME, 3 * MIB)
        assert me in {seen.id for seen in hypervisor.survey()}, "no call to libvirt hangs"
        share.daemon()
        take_away(libvirt_rig, me, VOLUME)
    hypervisor.close()
    linux.close()
