"""Disks of each shape are given anew, libvirt can do with them what it could, and of a qcow2 image
with cache=none what QEMU had in its memory would be lost. All of it is `make survive`'s.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import libvirt_qemu
import pytest
from libvirt_rig import until
from scene import Scene, Volume, daemons
from survive_rig import PAUSED_BY_ERROR, RUNS, attached, demand_all, die, goes_on, long, tried_here

from lab.guest import Guest, pattern
from lab.writer import Writer
from moorline.hypervisors.libvirt.block_graph import Chain, Opened, graph_of, next_call
from moorline.hypervisors.libvirt.monitor import Call

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


def run(*argv: str, well: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode in well, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


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
    device = guest.wait_for(volume.id)
    written = f"yes x | head -c {16 << 16} | dd of={device} bs=64k iflag=fullblock oflag=direct"
    guest.agent.check(f"{written} conv=notrunc status=none")  # the guest was told that it is there
    one = f"dd if=/dev/zero of={device} bs=64k seek=20 count=1 oflag=direct conv=notrunc"
    loop = f"while [ ! -e /tmp/w.stop ]; do {one} status=none || touch /tmp/w.err; done"
    guest.agent.check(f"({loop}; touch /tmp/w.over) >/dev/null 2>&1 &")
    die(survivors, guest)
    survivors.moorline("sweep", code=5)
    assert guest.domain.state() == PAUSED_BY_ERROR
    (view,) = survivors.moorline.json("show", volume.id)
    assert "would be lost, silently" in view["trouble"]["message"]
    by_hand(guest, volume)
    guest.domain.resume()
    guest.agent.check("touch /tmp/w.stop; while [ ! -e /tmp/w.over ]; do sleep 0.1; done")
    assert guest.agent.run("test -e /tmp/w.err").code, "the guest sees nothing of it"
    pool.drop(guest.domain.connect())
    survivors.detach(guest.name, volume)
    path = survivors.directory / "content"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(volume.file), str(path))
    found = path.read_bytes()[: 16 << 16]
    assert found != pattern("x", 16 << 16), "with it, nothing would have to be refused"
    assert not any(found), "what the guest was told to be stored reads as zeros"
    assert survivors.is_clean()


def by_hand(guest: Guest, volume: Volume) -> None:
    """Give the disk anew as the product would, if it did not refuse."""
    (disk,) = (
        each
        for each in ET.fromstring(guest.domain.XMLDesc()).iterfind("devices/disk")
        if each.findtext("serial") == volume.id
    )
    source = disk.find("source")
    assert source is not None
    chain = Chain(
        *("vda", f"ua-{volume.id}", source.get("file", ""), "qcow2", source.get("index", "")),
        *(True, "native"),
    )

    def say(call: Call) -> Any:
        told = json.loads(libvirt_qemu.qemuMonitorCommand(guest.domain, call.text(), 0))
        assert "return" in told, told
        return told["return"]

    front = {"path": f"/machine/peripheral/{chain.alias}", "property": "drive"}
    opened = Opened(frozenset(), frozenset({1}))
    while True:
        graph = graph_of(
            say(Call("qom-get", front)),
            say(Call("query-named-block-nodes", {"flat": True})),
            say(Call("x-debug-query-block-graph")),
        )
        if chain.storage not in graph.nodes:
            opened = Opened(frozenset({1}), frozenset())
        call = next_call(chain, graph, opened, 1)
        if call is None:
            return
        say(call)
