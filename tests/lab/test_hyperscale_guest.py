"""A guest reads and writes HyperScale volumes, by the command alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hyperscale_rig import hscli
from libvirt_rig import until

from lab.command import Moorline
from lab.guest import Guest
from lab.hyperscale.installation import HyperScale

PID_FILES = Path("/run/libvirt/qemu")


@pytest.fixture
def product(lab: Path) -> Iterator[HyperScale]:
    product = HyperScale(lab)
    yield product
    product.clear()


def nodes_in(guest: Guest) -> set[str]:
    """The device nodes that the guest's QEMU has in its own /dev. libvirt leaves them there."""
    pid = (PID_FILES / f"{guest.name}.pid").read_text().strip()
    return {path.name for path in Path(f"/proc/{pid}/root/dev").iterdir()}


def test_a_guest_reads_and_writes_it_and_nothing_is_left(
    moorline: Moorline, guest: Guest, product: HyperScale
) -> None:
    assert moorline.state is not None
    volume = product.volume()
    file = moorline.state.with_name("hyperscale.json")
    file.write_text(json.dumps(volume.connection(discard=True)))

    moorline("attach", guest.name, "--connection", str(file))

    xml = guest.domain.XMLDesc()
    assert f"<source dev='{volume.device}'" in xml
    assert "cache='none' io='native' discard='unmap'" in xml
    assert volume.device.name in nodes_in(guest)
    assert guest.agent.run("cat /sys/block/vda/size").lines == [str((16 << 20) // 512)]
    write = "echo hello-hs | dd of=/dev/vda bs=512 seek=1000 conv=sync,fsync"
    assert guest.agent.run(write).code == 0
    with volume.file.open("rb") as content:
        content.seek(512_000)
        assert content.read(16).startswith(b"hello-hs")
    read = "dd if=/dev/vda bs=512 skip=1000 count=1 iflag=direct | head -n 1"
    assert "hello-hs" in guest.agent.run(read).lines

    (view,) = moorline.json("list")
    assert (view["backend"], view["seen"]) == ("veritas_hyperscale", "attached")
    moorline("detach", guest.name, volume.id)
    assert volume.loop is None
    assert not volume.device.exists()
    assert list((moorline.state / "os-brick").iterdir()) == []
    assert moorline.json("list") == []


def test_a_volume_that_comes_back_as_another_device_is_still_itself(
    moorline: Moorline, guest: Guest, product: HyperScale
) -> None:
    """QEMU's own /dev has the old node still, whose device is another volume's by now."""
    assert moorline.state is not None
    mine, other = product.volume(), product.volume()
    mine.file.write_bytes(b"mine" + bytes((16 << 20) - 4))
    other.file.write_bytes(b"hers" + bytes((16 << 20) - 4))
    file = moorline.state.with_name("hyperscale.json")
    file.write_text(json.dumps(mine.connection()))
    attach = ("attach", guest.name, "--connection", str(file), "--bus", "scsi")
    moorline(*attach)
    first = mine.loop
    moorline("detach", guest.name, mine.id)
    hscli("connect_volume", volume_guid=other.name)
    if other.loop != first:  # the kernel's first free one, unless something else was quicker
        pytest.skip("another process of this machine took the loop device")
    moorline(*attach)
    assert mine.loop != first
    assert guest.agent.run("head -c 4 /dev/sda").lines == ["mine"]
    moorline("detach", guest.name, mine.id)


def test_a_hung_hscli_ends_in_an_honest_answer_and_then_in_success(
    moorline: Moorline, stopped: object, product: HyperScale
) -> None:
    assert moorline.state is not None
    volume = product.volume()
    file = moorline.state.with_name("hyperscale.json")
    file.write_text(json.dumps(volume.connection()))
    volume.command(hang=True)
    attach = ("attach", "small1", "--connection", str(file))
    command = moorline.start(*attach)
    until(lambda: bool(product.calls()))
    command.kill()
    command.communicate()
    said = moorline("detach", "small1", volume.id, "--timeout", "1", code=None)
    assert said.returncode in (5, 6), said.stderr
    assert "still runs" in said.stderr
    os.kill(product.calls()[0]["pid"], signal.SIGKILL)
    volume.command()
    moorline("detach", "small1", volume.id)
    assert volume.loop is None
    assert moorline.json("list") == []
