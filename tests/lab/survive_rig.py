"""Guests that write all the time, and a share whose client dies under them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import libvirt_qemu
import pytest
from libvirt_rig import until
from scene import Scene, Volume, daemons, kill_daemon

from lab.guest import Guest, pattern
from lab.writer import BLOCK, SLOTS, Writer
from moorline.hypervisors.libvirt.block_graph import Chain, Opened, graph_of, next_call
from moorline.hypervisors.libvirt.monitor import Call
from moorline.hypervisors.libvirt.renewing import TRIED

TRIED_HERE = {
    tried for tried in TRIED.values() if tried.libvirt == divmod(libvirt.getVersion() // 1000, 1000)
}
tried_here = pytest.mark.skipif(
    not TRIED_HERE,
    reason="disks are not given their file anew with this libvirt: others have other nodes",
)
long = pytest.mark.skipif("MOORLINE_KILLS" not in os.environ, reason="`make survive` has it")
KILLS = int(os.environ.get("MOORLINE_KILLS", "2"))
"""How often in a row the client dies under a guest."""
PAUSED_BY_ERROR, RUNS = [3, 5], 1
CACHES = {"raw": (), "qcow2": ("--cache", "directsync")}
"""What a disk of each format must have, to be given its file anew."""


def demand_all(writer: Writer) -> int:
    """Every block holds what was written there last, and nothing failed; how many were."""
    assert writer.lost() == []
    assert writer.errors() == []
    return writer.written()


def attached(
    scene: Scene, guest: Guest, *buses: str, form: str = "raw", has_thread: bool = False
) -> list[Writer]:
    """A disk on each bus, to which the guest writes from now on. *form*: of its image.

    *has_thread*: the guest has an I/O thread, which is to serve it.
    """
    writers = []
    for bus in buses:
        volume = volume_of(scene, form)
        options = ["--bus", bus, *CACHES[form], "--on-error", "stop"]
        if has_thread and bus == "virtio":  # the other one's controller has it
            options += ["--iothread", "1"]
        scene.attach(guest.name, volume, *options)
        writers.append(Writer(guest, volume))
        writers[-1].start()
    return writers


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


def renew(scene: Scene, guest: Guest, writers: Sequence[Writer]) -> None:
    """The client dies under the guest that writes; it goes on, with the disks that it had."""
    xml = guest.domain.XMLDesc()
    die(scene, guest)
    scene.moorline("sweep")
    assert guest.domain.state()[0] == RUNS
    assert guest.domain.XMLDesc() == xml
    goes_on(writers)


def end(scene: Scene, guest: Guest, writers: Sequence[Writer], form: str = "raw") -> None:
    """The disks go. Each holds all that the guest was told to be stored, and it saw no error."""
    for writer in writers:
        until(lambda: writer.written() > 10)  # noqa: B023
        writer.stop()
    for volume in {writer.volume.id: writer.volume for writer in writers}.values():
        scene.detach(guest.name, volume)
    for writer in writers:
        assert writer.lost(content(scene, writer.volume, form)) == []
        assert writer.errors() == []
    assert scene.is_clean()
    assert daemons(scene.share) == []


def goes_on(writers: Sequence[Writer]) -> None:
    """Wait until each has written more."""
    before = [(writer, writer.written()) for writer in writers]
    for writer, number in before:  # each question costs the emulated guest what it writes with
        until(lambda: writer.written() > number)  # noqa: B023


def die(scene: Scene, guest: Guest) -> None:
    """Kill the client while the guest writes; it is paused by that."""
    kill_daemon(scene.share)
    until(lambda: guest.domain.state() == PAUSED_BY_ERROR)


def run(*argv: str, well: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode in well, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def store(guest: Guest, volume: Volume) -> None:
    """Have the guest told that some blocks are stored; from then on it writes another one."""
    device = guest.wait_for(volume.id)
    blocks = f"yes x | head -c {SLOTS * BLOCK} | dd of={device} bs=64k iflag=fullblock oflag=direct"
    guest.agent.check(f"{blocks} conv=notrunc status=none")
    one = f"dd if=/dev/zero of={device} bs=64k seek=20 count=1 oflag=direct conv=notrunc"
    loop = f"while [ ! -e /tmp/w.stop ]; do {one} status=none || touch /tmp/w.err; done"
    guest.agent.check(
        f"rm -f /tmp/w.stop /tmp/w.err /tmp/w.over; ({loop}; touch /tmp/w.over) >/dev/null 2>&1 &"
    )


def demand_no_error(guest: Guest) -> None:
    """The guest that stored goes on, and has seen nothing. It stops writing."""
    guest.agent.check("touch /tmp/w.stop; while [ ! -e /tmp/w.over ]; do sleep 0.1; done")
    assert guest.agent.run("test -e /tmp/w.err").code, "the guest sees nothing of it"


def is_lost(content: Path) -> bool:
    """Whether what the guest was told to be stored reads as zeros."""
    found = content.read_bytes()[: SLOTS * BLOCK]
    assert found == pattern("x", SLOTS * BLOCK) or not any(found)
    return not any(found)


def by_hand(guest: Guest, volume: Volume) -> None:
    """Give the disk anew as the product would, if it did not refuse."""
    chain = _chain(guest, volume)
    front = {"path": f"/machine/peripheral/{chain.alias}", "property": "drive"}
    opened = Opened(frozenset(), frozenset({1}))
    while True:
        graph = graph_of(
            _say(guest, Call("qom-get", front)),
            _say(guest, Call("query-named-block-nodes", {"flat": True})),
            _say(guest, Call("x-debug-query-block-graph")),
        )
        if chain.storage not in graph.nodes:
            opened = Opened(frozenset({1}), frozenset())
        call = next_call(chain, graph, opened, 1)
        if call is None:
            return
        _say(guest, call)


def _chain(guest: Guest, volume: Volume) -> Chain:
    disk = ET.fromstring(guest.domain.XMLDesc()).find(f"devices/disk[serial='{volume.id}']")
    assert disk is not None
    found = {each.tag: each.attrib for each in disk}
    (tried,) = TRIED_HERE
    form, source = found["driver"]["type"], found["source"]
    return Chain(
        *(found["target"]["dev"], found["alias"]["name"], source["file"], form, source["index"]),
        *(True, found["driver"].get("io", "")),
        is_bare=tried.raw_is_bare and form == "raw",
    )


def _say(guest: Guest, call: Call) -> Any:
    told = json.loads(libvirt_qemu.qemuMonitorCommand(guest.domain, call.text(), 0))
    assert "return" in told, told
    return told["return"]
