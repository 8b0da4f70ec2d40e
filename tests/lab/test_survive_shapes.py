"""Disks of each shape are given anew, libvirt can do with them what it could, and of a qcow2 image
with cache=none what QEMU had in its memory would be lost. All of it is `make survive`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import libvirt
import pytest
from libvirt_rig import until
from scene import Scene, Volume, daemons
from survive_rig import (
    PAUSED_BY_ERROR,
    RUNS,
    attached,
    by_hand,
    demand_all,
    demand_no_error,
    die,
    goes_on,
    is_lost,
    long,
    run,
    store,
    tried_here,
)

from lab.guest import Guest
from lab.writer import Writer

pytestmark = [tried_here, long]
KILLS = 3
LIVE_AND_SAVED = 3
"""VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG"""
SHAPES = {
    "raw, an I/O thread": ("raw", "--bus", "virtio", "--iothread", "1"),
    "qcow2, directsync": ("qcow2", "--bus", "virtio", "--cache", "directsync", "--io", "native"),
    "qcow2, directsync, scsi": ("qcow2", "--bus", "scsi", "--cache", "directsync"),
    "qcow2, an I/O thread": (
        *("qcow2", "--bus", "virtio", "--iothread", "1"),
        *("--cache", "directsync", "--io", "native"),
    ),
}


@contextmanager
def io_thread(guest: Guest) -> Iterator[None]:
    guest.domain.addIOThread(1, LIVE_AND_SAVED)
    yield
    with suppress(libvirt.libvirtError):  # the guest is another by now
        guest.domain.delIOThread(1, LIVE_AND_SAVED)


def volume_of(scene: Scene, form: str) -> Volume:
    volume = scene.volume(format=form)
    if form == "qcow2":
        run("qemu-img", "create", "-q", "-f", "qcow2", str(volume.file), "2M")
    return volume


def content(scene: Scene, volume: Volume, form: str) -> Path:
    """What is on the disk, once no guest has it."""
    if form == "qcow2":
        # 3: a cluster is counted that nothing names, as after each death between the two writes.
        run("qemu-img", "check", "-q", "-f", "qcow2", str(volume.file), well=(0, 3))
    path = scene.directory / f"{volume.id}.content"
    run("qemu-img", "convert", "-f", form, "-O", "raw", str(volume.file), str(path))
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_a_disk_of_each_shape(survivors: Scene, guest: Guest, shape: str) -> None:
    form, *options = SHAPES[shape]
    volume = volume_of(survivors, form)
    with io_thread(guest):
        survivors.attach(guest.name, volume, *options, "--on-error", "stop")
        writer = Writer(guest, volume)
        writer.start()
        xml = guest.domain.XMLDesc()
        for _ in range(KILLS):
            goes_on([writer])
            die(survivors, guest)
            survivors.moorline("sweep")
            assert guest.domain.state()[0] == RUNS
            assert guest.domain.XMLDesc() == xml
        goes_on([writer])
        writer.stop()
        survivors.detach(guest.name, volume)
    assert writer.lost(content(survivors, volume, form)) == []
    assert writer.errors() == []
    assert survivors.is_clean()


def test_libvirt_can_do_afterwards_what_it_could(survivors: Scene, guest: Guest) -> None:
    writers = attached(survivors, guest, "virtio", "scsi")
    goes_on(writers)
    die(survivors, guest)
    survivors.moorline("sweep")
    at, name = survivors.mount_point(), guest.name
    for target in ("vda", "sda"):
        snap, copy = at / f"{target}.snap", at / f"{target}.copy"
        only = [f"--diskspec={target},file={snap},snapshot=external"]
        only += [f"--diskspec={other},snapshot=no" for other in {"vda", "sda"} - {target}]
        run("virsh", "snapshot-create-as", name, "--disk-only", "--no-metadata", *only)
        run("virsh", "blockcommit", name, target, "--active", "--pivot", "--wait")
        run(
            *("virsh", "blockcopy", name, target, "--dest", str(copy), "--format", "raw"),
            *("--transient-job", "--wait", "--finish"),
        )
        run("virsh", "blockresize", name, target, "4MiB")
        assert "4194304" in run("virsh", "domblkinfo", name, target)
        goes_on(writers)
        snap.unlink()
        copy.unlink()
    saved = survivors.directory / "saved"
    run("virsh", "save", name, str(saved))
    guest.agent.close()
    run("virsh", "restore", str(saved))
    until(lambda: guest.domain.state()[0] == RUNS)
    goes_on(writers)
    for writer in writers:
        assert demand_all(writer) > 10
        survivors.detach(name, writer.volume)
    assert survivors.is_clean()
    assert daemons(survivors.share) == []


def test_metadata_that_qemu_kept_would_be_lost_and_is_refused(
    survivors: Scene, guest: Guest, pool: Any
) -> None:
    """The refusal is followed by what it prevents: the same calls, without the guard."""
    volume = volume_of(survivors, "qcow2")
    survivors.attach(guest.name, volume, "--bus", "virtio", "--on-error", "stop")
    store(guest, volume)
    die(survivors, guest)
    survivors.moorline("sweep", code=5)
    assert guest.domain.state() == PAUSED_BY_ERROR
    (view,) = survivors.moorline.json("show", volume.id)
    assert "would be lost, silently" in view["trouble"]["message"]
    by_hand(guest, volume)
    guest.domain.resume()
    demand_no_error(guest)
    pool.drop(guest.domain.connect())
    survivors.detach(guest.name, volume)
    path = survivors.directory / "content"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(volume.file), str(path))
    assert is_lost(path)
    assert survivors.is_clean()
