"""Disks of each shape are given anew, KILLS times in a row, under a guest that writes, flushes and
reads; and of a qcow2 image with cache=none what QEMU had in its memory would be lost.
All of it is `make survive`'s.
"""

from __future__ import annotations

from typing import Any

import pytest
from scene import Scene
from survive_rig import (
    CACHES,
    KILLS,
    PAUSED_BY_ERROR,
    attached,
    by_hand,
    demand_no_error,
    die,
    end,
    goes_on,
    is_lost,
    long,
    renew,
    run,
    store,
    tried_here,
    volume_of,
)

from lab.guest import Guest
from lab.writer import Reader, Writer

pytestmark = [tried_here, long]


@pytest.mark.parametrize(
    ("bus", "has_thread"),
    [("virtio", False), ("virtio", True), ("scsi", False)],
    ids=["virtio", "virtio, an I/O thread", "scsi"],
)
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_of_each_shape(
    survivors: Scene, request: pytest.FixtureRequest, form: str, bus: str, *, has_thread: bool
) -> None:
    guest: Guest = request.getfixturevalue("threaded" if has_thread else "guest")
    volume = volume_of(survivors, form)
    options = ["--bus", bus, *CACHES[form], "--io", "native", "--on-error", "stop"]
    if has_thread:
        options += ["--iothread", "1"]
    survivors.attach(guest.name, volume, *options)
    load = [
        Writer(guest, volume),
        Writer(guest, volume, 16, 8, flushes=True),
        Reader(guest, volume, 24, 8),
    ]
    for each in load:
        each.start()
    goes_on(load)
    for _ in range(KILLS):
        renew(survivors, guest, load)
    end(survivors, guest, load, form)


def test_a_scsi_disk_that_an_io_thread_serves_is_refused(survivors: Scene, threaded: Guest) -> None:
    """QEMU would refuse it the placeholder, whenever that is tried."""
    (writer,) = attached(survivors, threaded, "scsi")
    goes_on([writer])
    die(survivors, threaded)
    survivors.moorline("sweep", code=5)
    assert threaded.domain.state() == PAUSED_BY_ERROR
    (view,) = survivors.moorline.json("show", writer.volume.id)
    assert "an I/O thread serves sda's" in view["trouble"]["message"]
    threaded.domain.destroy()
    survivors.detach(threaded.name, writer.volume)
    assert survivors.is_clean()


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
