"""Hostile images on a share that is honest: refused, and what is not the guest's is not read."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import CONFIG, LIVE, marked
from scene import Scene
from siege import ID, OUTSIDE, Siege, siege

from lab.guest import Guest, digest, pattern
from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import DiskOptions, GuestId, VolumeId

__all__ = ["siege"]  # the fixture


# --- what is no image ------------------------------------------------------------------


def make(share: Path, what: str) -> None:
    """Put something at SHARE/hostile that must not become a disk."""
    at = share / "hostile"
    if what == "symlink out":
        at.symlink_to(OUTSIDE)
    elif what == "symlink within":
        at.symlink_to("honest.raw")
    elif what == "fifo":
        os.mkfifo(at)
    elif what == "directory":
        at.mkdir()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(at))
    elif what == "device":
        os.mknod(at, 0o600 | 0o060000, os.makedev(7, 0))


def qcow2(share: Path, *options: str, size: str = "1M") -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", *options]
    subprocess.run([*command, share / "hostile", size], check=True, cwd=share)


def test_what_is_no_regular_file(siege: Siege) -> None:
    share = siege.scene.share.path
    for what, word in [
        ("nothing", "no file hostile"),
        ("symlink out", "symbolic link"),
        ("symlink within", "symbolic link"),
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("device", "a block device"),
        ("directory", "a directory"),
    ]:
        (share / "hostile").unlink(missing_ok=True)
        make(share, what)
        siege.refuse(siege.data(), word)


def test_a_directory_that_leads_out(siege: Siege) -> None:
    (siege.scene.share.path / "way").symlink_to("/run/moorline-lab")
    siege.refuse(siege.data(name="way/outside.raw"), "way is a symbolic link")


def patch(offset: int, value: bytes) -> Callable[[Path], None]:
    """A sound image, with some bytes of its header changed."""

    def write(share: Path) -> None:
        qcow2(share)
        with (share / "hostile").open("r+b") as file:
            file.seek(offset)
            file.write(value)

    return write


IMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "raw that is qcow2": (qcow2, "raw", "begins as qcow2"),
    "qcow2 that is raw": (lambda s: (s / "hostile").write_bytes(bytes(1 << 20)), "qcow2", "begins"),
    "qcow2 that is empty": (lambda s: (s / "hostile").touch(), "qcow2", "declared qcow2"),
    "backing file outside": (
        lambda s: qcow2(s, "-b", OUTSIDE, "-F", "raw"),
        "qcow2",
        "outside of /",
    ),
    "backing file up and out": (
        lambda s: qcow2(s, "-b", "../../outside.raw", "-F", "raw"),
        "qcow2",
        "outside of /",
    ),
    "backing file by protocol": (
        lambda s: qcow2(s, "-b", "nbd://localhost:10809/x", "-F", "raw"),
        "qcow2",
        "not a plain file name",
    ),
    "backing file as json": (
        lambda s: qcow2(s, "-b", f"json:{json.dumps({'filename': OUTSIDE})}", "-F", "raw"),
        "qcow2",
        "not a plain file name",
    ),
    "backing file without format": (
        lambda s: _without_format(s),
        "qcow2",
        "backing file of no format",
    ),
    "backing file of a lying format": (
        lambda s: (
            subprocess.run(["qemu-img", "create", "-qf", "qcow2", s / "base", "1M"], check=True),
            qcow2(s, "-b", "base", "-F", "raw"),
        ),
        "qcow2",
        "begins as qcow2",
    ),
    "backing file that is itself": (
        lambda s: qcow2(s, "-b", "hostile", "-F", "qcow2"),
        "qcow2",
        "comes back",
    ),
    "backing file through a symlink": (
        lambda s: ((s / "way").symlink_to(OUTSIDE), qcow2(s, "-b", "way", "-F", "raw")),
        "qcow2",
        "symbolic link",
    ),
    "backing file up from where a symlink leads": (
        lambda s: _up_from_a_symlink(s, "way/../outside.raw"),
        "qcow2",
        "goes up with '..'",
    ),
    "backing file up from where a symlink in a directory leads": (
        lambda s: _up_from_a_symlink(s, "dir/way/../../outside.raw"),
        "qcow2",
        "goes up with '..'",
    ),
    "data file outside": (lambda s: _with_data_file(s, OUTSIDE), "qcow2", "another file"),
    # Beside the image by its letters; QEMU opens it from its working directory, /.
    "data file beside": (
        lambda s: (
            (s / OUTSIDE[1:]).parent.mkdir(parents=True),
            (s / OUTSIDE[1:]).write_bytes(bytes(1 << 20)),
            _with_data_file(s, OUTSIDE[1:]),
        ),
        "qcow2",
        "another file",
    ),
    "data file of a backing file": (
        lambda s: (
            _with_data_file(s, OUTSIDE[1:]),
            (s / "hostile").rename(s / "base"),
            qcow2(s, "-b", "base", "-F", "qcow2"),
        ),
        "qcow2",
        "the backing file of hostile: base: ",
    ),
    "data file by protocol": (
        lambda s: _with_data_file(s, "nbd:localhost:10809"),
        "qcow2",
        "another file",
    ),
    "unknown feature": (patch(72, (1 << 40).to_bytes(8, "big")), "qcow2", "features"),
    "encrypted by QEMU": (patch(32, (1).to_bytes(4, "big")), "qcow2", "encrypted"),
    "absurd clusters": (patch(20, (63).to_bytes(4, "big")), "qcow2", "not sound"),
    "absurd size": (patch(24, b"\x7f" + b"\xff" * 7), "qcow2", "not sound"),
    "absurd tables": (patch(40, b"\xff" * 8), "qcow2", "not sound"),
    "absurd header length": (patch(100, b"\xff" * 4), "qcow2", "not sound"),
    "version 9": (patch(4, (9).to_bytes(4, "big")), "qcow2", "its version is 9"),
}


def _without_format(share: Path) -> None:
    (share / "base").write_bytes(bytes(1 << 20))
    qcow2(share, "-b", "base", "-F", "raw")
    # qemu-img makes none any more: wipe the extension that tells the format.
    data = (share / "hostile").read_bytes()
    at = data.index(bytes.fromhex("e2792aca"))
    (share / "hostile").write_bytes(data[:at] + b"\0\0\0\1" + data[at + 4 :])


def _up_from_a_symlink(share: Path, name: str) -> None:
    """A decoy lies where *name* leads by its letters; the kernel comes to OUTSIDE."""
    lab = Path(OUTSIDE).parent
    (lab / "dir/dir").mkdir(parents=True, exist_ok=True)
    (share / "dir").mkdir()
    (share / "way").symlink_to(lab / "dir")
    (share / "dir/way").symlink_to(lab / "dir/dir")
    (share / "outside.raw").write_bytes(bytes(1 << 20))
    assert (share / name).samefile(OUTSIDE)
    qcow2(share, "-b", name, "-F", "raw")


def _with_data_file(share: Path, name: str) -> None:
    # qemu-img would open or make the data file: give it one of the same length, and rename it.
    stand_in = "d" * len(name)
    assert len(stand_in) < 256
    qcow2(share, "-o", f"data_file={stand_in}")
    (share / stand_in).unlink()
    data = (share / "hostile").read_bytes()
    assert data.count(stand_in.encode()) == 1
    (share / "hostile").write_bytes(data.replace(stand_in.encode(), name.encode()))


def test_images(siege: Siege) -> None:
    share = siege.scene.share.path
    for what, (build, format, word) in IMAGES.items():
        build(share)
        try:
            siege.refuse(siege.data(format=format), word)
        except AssertionError as e:
            raise AssertionError(f"{what}: {e}") from e
        for left in share.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left != siege.honest.file:
                left.unlink()


def test_what_a_refusal_mounted_goes_again(scene: Scene, guest: Guest) -> None:
    """A refusal for the file's sake needs the share; with no other user it is unmounted."""
    volume = scene.volume()
    volume.file.unlink()
    os.mkfifo(volume.file)
    before = guest.domain.XMLDesc()
    scene.attach(guest.name, volume, code=3)
    assert len(scene.mount_calls()) == 1
    assert scene.is_clean()
    assert guest.domain.XMLDesc() == before


@pytest.fixture
def window(siege: Siege) -> Iterator[Path]:
    """A directory of the share in which another one of the share's own host is seen."""
    at = siege.scene.mount_point() / "window"
    at.mkdir()
    subprocess.run(["mount", "--bind", siege.scene.mount_point(), at], check=True)
    yield at
    subprocess.run(["umount", at], check=True)
    at.rmdir()


def test_a_bind_mount_leads_nowhere_though_its_device_is_the_same(
    siege: Siege, window: Path
) -> None:
    siege.scene.share.disk("hostile")
    assert window.stat().st_dev == window.parent.stat().st_dev
    siege.refuse(siege.data(name="window/hostile"), "window is on another file system")
    (siege.scene.share.path / "hostile").unlink()
    qcow2(siege.scene.share.path, "-b", "window/honest.raw", "-F", "raw")
    siege.refuse(siege.data(format="qcow2"), "the backing file of hostile: window is on another")


def test_a_name_that_is_changed_after_the_check_is_not_followed(siege: Siege) -> None:
    """What was checked is what is opened: QEMU is told the chain, and asks no header for it."""
    scene, guest, share = siege.scene, siege.guest, siege.scene.share.path
    (share / "base").write_bytes(pattern("base", 1 << 20))
    qcow2(share, "-b", "base", "-F", "raw")
    looks = Linux(look_deadline=5)
    backend = Mounter(looks, Quobyte(), scene.mount_point().parent)
    source = backend.verify(backend.parse(siege.data(format="qcow2")))
    looks.close()
    qcow2(share, "-b", OUTSIDE, "-F", "raw")
    hypervisor, id = Libvirt(), GuestId(guest.domain.UUIDString())
    hypervisor.attach(id, VolumeId(ID), source, DiskOptions())
    try:
        assert guest.digest(ID) == digest(pattern("base"))
        assert Path(OUTSIDE).stat().st_uid == 0
    finally:
        hypervisor.detach(id, VolumeId(ID))
        hypervisor.close()
    (share / "hostile").unlink()


# --- what is unusual, and fine ------------------------------------------------------------


def chain(siege: Siege, half: int) -> list[tuple[str, str]]:
    """Format and file of all that libvirt has been told of beneath the disk; it must end."""
    disk = marked(siege.guest.domain, VolumeId(ID), half)
    assert disk is not None
    found = []
    level = disk.find("backingStore")
    while level is not None and len(level):
        format, file = level.find("format"), level.find("source")
        assert format is not None
        assert file is not None
        found.append((format.get("type", ""), file.get("file", "")))
        level = level.find("backingStore")
    assert level is not None, "it does not end"
    return found


def test_what_is_fine(siege: Siege) -> None:
    """So that the refusals above are not those of a command that refuses everything."""
    scene, share = siege.scene, siege.scene.share
    (share.path / "dir").mkdir()
    subprocess.run(["qemu-img", "create", "-qf", "raw", share.path / "base", "1M"], check=True)
    middle = ["qemu-img", "create", "-qf", "qcow2", "-F", "raw", "-b", scene.mount_point() / "base"]
    subprocess.run([*middle, share.path / "dir/middle", "1M"], check=True)
    base = [("raw", str(scene.mount_point() / "base"))]
    two = [("qcow2", str(scene.mount_point() / "dir/middle")), *base]
    cases: list[tuple[Callable[[], Any], dict[str, Any], list[tuple[str, str]]]] = [
        (
            lambda: share.disk("hostile"),
            {"options": None, "qos_specs": None, "encrypted": False},
            [],
        ),
        (lambda: share.disk("dir/with space é"), {"name": "dir/with space é"}, []),
        (lambda: qcow2(share.path), {"format": "qcow2"}, []),
        (lambda: qcow2(share.path, "-b", "base", "-F", "raw"), {"format": "qcow2"}, base),
        (lambda: qcow2(share.path, "-b", base[0][1], "-F", "raw"), {"format": "qcow2"}, base),
        (lambda: qcow2(share.path, "-b", "dir/middle", "-F", "qcow2"), {"format": "qcow2"}, two),
    ]
    for prepare, fields, beneath in cases:
        (share.path / "hostile").unlink(missing_ok=True)
        prepare()
        text = json.dumps(siege.data(**fields))
        scene.moorline("attach", siege.guest.name, "--connection", "-", stdin=text)
        assert siege.guest.wait_for(ID)
        for half in (LIVE, CONFIG):
            assert chain(siege, half) == beneath
        scene.moorline("detach", siege.guest.name, ID)
        assert len(scene.mount_calls()) == 1
