"""Files that Moorline makes larger itself: by the guest that has them open, or by qemu-img."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import LibvirtRig, loop_device, until
from scene import start_paused
from test_extend import MIB, size_in, times_told

from lab import guest as guests
from lab.command import Moorline
from moorline.testing.contracts.hypervisor import VOLUME


def create(directory: Path, form: str) -> Path:
    path = directory / f"grows.{form}"
    subprocess.run(["qemu-img", "create", "-q", "-f", form, str(path), "1M"], check=True)
    return path


def size_of(path: Path) -> int:
    words = ["qemu-img", "info", "-U", "-f", path.suffix[1:], str(path)]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return int(told.partition("virtual size:")[2].partition("(")[2].partition(" ")[0])


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_running_guest_makes_the_file_larger_that_it_has_open(
    moorline: Moorline, guest: guests.Guest, libvirt_rig: LibvirtRig, form: str
) -> None:
    path = create(libvirt_rig.directory, form)
    moorline("attach", guest.name, str(path), "--format", form, "--volume", VOLUME)
    guest.write(VOLUME, "before")
    grow = ("extend", guest.name, VOLUME, "--grow", "3M")
    assert moorline.json(*grow, "--dry-run")["steps"] == ["grow"]
    assert (size_of(path), size_in(guest)) == (MIB, MIB)
    done = moorline.json(*grow)
    assert (done["steps"], done["before"], done["size"]) == (["grow"], MIB, 3 * MIB)
    until(lambda: size_in(guest) == 3 * MIB)
    assert size_of(path) == 3 * MIB
    heard = times_told(guest)
    assert moorline.json(*grow)["steps"] == []
    until(lambda: times_told(guest) > heard)
    guest.write(VOLUME, "behind", offset=2 * MIB)
    assert "cannot shrink" in moorline(*grow[:-1], "2M", code=3).stderr
    assert (size_of(path), size_in(guest)) == (3 * MIB, 3 * MIB)
    moorline("detach", guest.name, VOLUME)
    flat = path.with_name("flat")
    words = ["qemu-img", "convert", "-f", form, "-O", "raw", str(path), str(flat)]
    subprocess.run(words, check=True)
    data = flat.read_bytes()
    assert data[:65536] == guests.pattern("before")
    assert data[2 * MIB : 2 * MIB + 65536] == guests.pattern("behind")


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_of_a_guest_that_is_stopped_qemus_tool_makes_it_larger(
    moorline: Moorline, stopped: Any, libvirt_rig: LibvirtRig, form: str
) -> None:
    path = create(libvirt_rig.directory, form)
    moorline("attach", "small1", str(path), "--format", form, "--volume", VOLUME)
    grow = ("extend", "small1", VOLUME, "--grow", "3M")
    assert moorline.json(*grow, "--dry-run")["steps"] == ["grow"]
    assert size_of(path) == MIB
    done = moorline.json(*grow)
    assert (done["steps"], done["before"], done["size"]) == (["grow"], MIB, 3 * MIB)
    assert size_of(path) == 3 * MIB
    assert moorline.json(*grow)["steps"] == []
    assert "cannot shrink" in moorline(*grow[:-1], "2M", code=3).stderr
    start_paused(stopped)
    done = moorline.json(*grow[:-1], "5M")
    assert (done["before"], done["size"], size_of(path)) == (3 * MIB, 5 * MIB, 5 * MIB)
    stopped.destroy()  # paused, it lets no disk go
    moorline("detach", "small1", VOLUME)


def test_what_others_make_larger_or_nobody_can_is_refused(
    moorline: Moorline, stopped: Any, libvirt_rig: LibvirtRig
) -> None:
    file = libvirt_rig.new_source().path
    grow = ("extend", "small1", VOLUME, "--grow", "3M")
    with loop_device(file) as device:
        moorline("attach", "small1", str(device), "--format", "raw", "--volume", VOLUME)
        assert "is a block device" in moorline(*grow, code=3).stderr
        moorline("detach", "small1", VOLUME)
    read_only = libvirt_rig.new_source().path
    words = ("--format", "raw", "--volume", VOLUME, "--read-only")
    moorline("attach", "small1", str(read_only), *words)
    assert "only reads it" in moorline(*grow, code=3).stderr
    assert "SIZE" in moorline(*grow[:-1], code=2).stderr
    assert {file.stat().st_size, read_only.stat().st_size} == {MIB}
    moorline("detach", "small1", VOLUME)
