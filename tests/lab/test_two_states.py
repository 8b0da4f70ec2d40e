"""Two state directories, each with an owner of its own, that attach one file at one moment."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import until
from scene import Scene, small_guest

from lab import host
from lab.command import Moorline

NOTES = Path("/run/moorline")
AT_ONCE = 3
ROUNDS = 4
"""Without the lock two of three have the file after nearly each round."""


@pytest.fixture
def states(scene: Scene) -> Sequence[Moorline]:
    """State directories of one host; nothing in one tells of another."""
    return [Moorline(scene.directory / f"state{number}") for number in range(AT_ONCE)]


@pytest.fixture
def guests(libvirt_conn: Any, leftovers_check: None) -> Iterator[Sequence[Any]]:
    """Stopped ones: no QEMU has a file open, and locked."""
    with ExitStack() as stack:
        names = [f"one{number}" for number in range(AT_ONCE)]
        yield [stack.enter_context(small_guest(libvirt_conn, name)) for name in names]


def at_once(
    states: Sequence[Moorline], words: Callable[[int], Sequence[str]]
) -> list[tuple[int | None, str]]:
    """Start a command in each state at one moment; their exit codes and what they said."""
    started = [state.start(*words(number)) for number, state in enumerate(states)]
    said = [process.communicate(timeout=60)[1] for process in started]
    return [(process.returncode, err) for process, err in zip(started, said, strict=True)]


def has(domain: Any, name: str) -> bool:
    return name in domain.XMLDesc(2)


def demand_one(
    came: Sequence[tuple[int | None, str]], guests: Sequence[Any], name: str, clash: str
) -> None:
    codes = sorted(code or 0 for code, _ in came)
    assert codes == [0] + [3] * (AT_ONCE - 1), came
    assert sum(has(guest, name) for guest in guests) == 1
    assert all(clash in said for code, said in came if code), came


def test_one_file_of_a_share(
    scene: Scene, states: Sequence[Moorline], guests: Sequence[Any]
) -> None:
    """Each state has a mount of its own: not even the file's path or device is the same."""
    volume, other = scene.volume(), scene.volume()
    for state, guest in zip(states, guests, strict=True):  # the shares are mounted
        state("attach", guest.name(), "--connection", str(other.connection), "--shared")
    for _ in range(ROUNDS):
        came = at_once(
            states,
            lambda n: ["attach", guests[n].name(), "--connection", str(volume.connection)],
        )
        demand_one(came, guests, volume.file.name, "has")
        for state, guest in zip(states, guests, strict=True):
            if has(guest, volume.file.name):
                state("detach", guest.name(), volume.id)
    for state, guest in zip(states, guests, strict=True):
        state("detach", guest.name(), other.id)
    assert scene.is_clean()
    assert scene.mounts() == []


@pytest.mark.parametrize("beneath", [False, True])
def test_one_local_file_by_other_names(
    scene: Scene, states: Sequence[Moorline], guests: Sequence[Any], beneath: bool
) -> None:
    """A bind mount each; or the file itself, and images that are read from it."""
    real = scene.directory / "real"
    real.mkdir()
    base = real / "disk.qcow2"
    create(base)
    names = [scene.directory / f"also{number}" for number in range(AT_ONCE)]
    images = [name / "disk.qcow2" for name in names]
    if beneath:
        images[1:] = [name / f"top{number}.qcow2" for number, name in enumerate(names[1:])]
        for image in images[1:]:
            create(real / image.name, "-F", "qcow2", "-b", "disk.qcow2")
    for name in names:
        name.mkdir()
        subprocess.run(["mount", "--bind", real, name], check=True)
    try:
        for _ in range(ROUNDS):
            came = at_once(
                states,
                lambda n: ["attach", guests[n].name(), str(images[n]), "--format", "qcow2"],
            )
            has_it = [code == 0 for code, _ in came]
            plugged = [image.name in g.XMLDesc(2) for image, g in zip(images, guests, strict=True)]
            assert has_it == plugged, came
            # Those above it only read it: they have it together, or it has it alone.
            assert has_it[0] is (not any(has_it[1:])), came
            assert beneath or sum(has_it) == 1, came
            for state, guest, image, got in zip(states, guests, images, has_it, strict=True):
                if got:
                    state("detach", guest.name(), str(image))
    finally:
        for name in names:
            host.umount(name)


def create(path: Path, *args: str) -> None:
    subprocess.run(["qemu-img", "create", "-qf", "qcow2", *args, path, "1M"], check=True)
    path.chmod(0o666)


@pytest.fixture
def running(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, "runs", running=True) as domain:
        yield domain


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_plug_that_comes_after_its_command_has_gone(
    scene: Scene, states: Sequence[Moorline], guests: Sequence[Any], running: Any, how: str
) -> None:
    """QEMU stands still, so libvirtd waits with the plug; who asked for it is gone meanwhile."""
    before = {
        "files.lock",
        "states",
        *(note.name for note in NOTES.glob("*")),
    }  # of who was killed earlier
    volume, other = scene.volume(), scene.volume()
    one, two = states[:2]
    for state, guest in zip((one, two), guests, strict=False):  # the shares are mounted
        state("attach", guest.name(), "--connection", str(other.connection), "--shared")
    qemu = qemu_of(running)
    attach = ("--connection", str(volume.connection), "--timeout", "5")
    os.kill(qemu, signal.SIGSTOP)
    try:
        its = (*attach[:-1], "60") if how == "killed" else attach
        plug = one.start("attach", running.name(), *its)
        until(lambda: any(NOTES.glob(f"*-w-{running.UUIDString()}")))
        if how == "killed":
            # While it runs, it is named.
            said = two("attach", guests[1].name(), *attach, code=5).stderr
            assert f"({plug.pid}) is giving" in said
            plug.kill()
        plug.communicate(timeout=60)
        assert plug.returncode == (-signal.SIGKILL if how == "killed" else 6)
        said = two("attach", guests[1].name(), *attach, code=None).stderr
        assert volume.file.name not in guests[1].XMLDesc(2), said
    finally:
        os.kill(qemu, signal.SIGCONT)
    until(lambda: volume.file.name in running.XMLDesc())
    said = two("attach", guests[1].name(), *attach, code=3).stderr
    assert f"{running.name()} has" in said
    running.destroy()  # it has no system that lets a disk go
    one("detach", running.name(), volume.id)
    two("attach", guests[1].name(), *attach)
    two("detach", guests[1].name(), volume.id)
    for state, guest in zip((one, two), guests, strict=False):
        state("detach", guest.name(), other.id)
    assert {note.name for note in NOTES.iterdir()} <= before


def qemu_of(domain: Any) -> int:
    return int(Path(f"/run/libvirt/qemu/{domain.name()}.pid").read_text())


def test_what_one_state_keeps_the_other_does_not_adopt(
    scene: Scene, states: Sequence[Moorline], guests: Sequence[Any]
) -> None:
    volume, guest = scene.volume(), guests[0].name()
    one, other, _ = states
    one("attach", guest, "--connection", str(volume.connection))
    mounted = scene.mount_point()
    conf = scene.write(
        "mounted.conf", f"[libvirt]\nquobyte_mounted = {volume.share.export}={mounted}\n"
    )
    adopt = ("adopt", guest, "--connection", str(volume.connection), "--config-file", str(conf))
    told = other(*adopt, code=3).stderr
    assert f"is kept by the state in {one.state}" in told
    assert other.json("list") == []
    one("release", guest, volume.id)
    other(*adopt)
    other("detach", guest, volume.id, "--config-file", str(conf))
    assert not has(guests[0], volume.file.name)
    one("repair")  # the link that was released
    assert not scene.mounts()
