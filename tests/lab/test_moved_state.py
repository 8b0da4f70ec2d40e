"""A state that was moved or cloned to another machine, or whose host is called otherwise."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scene import Scene

from lab.host import umount
from moorline.host.machine_id import MACHINE_ID

REFUSED = 3


@contextmanager
def other_machine(directory: Path) -> Iterator[None]:
    """This host as another installation of its system."""
    file = directory / "machine-id"
    file.write_text("f" * 32 + "\n")
    subprocess.run(["mount", "--bind", file, MACHINE_ID], check=True)
    try:
        yield
    finally:
        umount(MACHINE_ID)


def test_a_clone_serves_no_attachment_until_it_is_told_to(
    scene: Scene, stopped: Any, tmp_path: Path
) -> None:
    volume, more = scene.volume(), scene.volume()
    scene.attach(stopped.name(), volume)
    before = scene.attachments(), scene.mounts(), stopped.XMLDesc(2)
    with other_machine(tmp_path):
        for words in (["list"], ["sweep"], ["doctor"], ["repair"]):
            told = scene.moorline(*words, code=REFUSED).stderr
            assert "moorline state rebind" in told
        scene.detach(stopped.name(), volume, code=REFUSED)
        scene.attach(stopped.name(), more, code=REFUSED)
        scene.moorline("agent", code=REFUSED)
        assert scene.moorline.json("state", "rebind", "--dry-run")["steps"] == ["rebind"]
        scene.moorline("list", code=REFUSED)
    assert (scene.attachments(), scene.mounts(), stopped.XMLDesc(2)) == before
    with other_machine(tmp_path):
        scene.moorline("state", "rebind")
        assert scene.attachments() == before[0]
    scene.moorline("list", code=REFUSED)
    scene.moorline("state", "rebind")
    scene.detach(stopped.name(), volume)
    assert scene.is_clean()


def test_a_renamed_host_keeps_its_volumes(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    nova = scene.write("nova.conf", "[DEFAULT]\nhost = compute7\n")
    for words in (["list"], ["detach", stopped.name(), volume.id]):
        told = scene.moorline(*words, "--config-file", str(nova), code=REFUSED).stderr
        assert "moorline state rename compute7" in told
    scene.moorline("state", "rename", "compute7")
    (row,) = scene.moorline.json("list", "--config-file", str(nova))
    assert (row["host"], row["seen"]) == ("compute7", "attached")
    scene.moorline("detach", stopped.name(), volume.id, "--config-file", str(nova))
    assert scene.is_clean()


def test_a_directory_that_moved_has_the_same_attachments(scene: Scene, stopped: Any) -> None:
    """On the same machine it is the same state, and what was connected can be given back."""
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    moved = scene.directory / "moved"
    moved.mkdir(mode=0o711)
    for name in ("moorline.db", "key", "host"):
        (scene.directory / "moorline" / name).rename(moved / name)
    elsewhere = ["--state-dir", str(moved)]
    assert len(scene.moorline.json("list", *elsewhere)) == 1
    scene.moorline("detach", stopped.name(), volume.id, *elsewhere)
    assert not scene.mounts()
    assert scene.moorline.json("list", *elsewhere) == []
    assert scene.is_clean()


def test_a_copy_is_refused_beside_its_original(scene: Scene, stopped: Any) -> None:
    """Two states with the same attachments: what one detaches, the other plugs again."""
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    state, copy = scene.directory / "moorline", scene.directory / "copy"
    copied = ("moorline.db", "key", "host")
    copy.mkdir(mode=0o711)
    for name in copied:
        shutil.copy2(state / name, copy / name)
    its = ["--state-dir", str(copy)]
    for words in (["list"], ["sweep"], ["detach", stopped.name(), volume.id], ["agent"]):
        told = scene.moorline(*words, *its, code=REFUSED).stderr
        assert f"a copy of that in {state}" in told
        assert "moorline state rebind" in told
    assert scene.moorline.json("state", "show", *its)["steps"] == ["rebind"]
    assert scene.attachments() == {volume.id: ("attached", "attached")}
    for name in copied:  # a backup that is brought back to its place is no copy
        shutil.copy2(copy / name, scene.directory / name)
        (state / name).unlink()
        (scene.directory / name).rename(state / name)
    assert scene.attachments() == {volume.id: ("attached", "attached")}
    scene.moorline("state", "rebind", *its)
    assert len(scene.moorline.json("list", *its)) == 1
    scene.detach(stopped.name(), volume)
    scene.moorline("forget", volume.id, *its)
    assert scene.is_clean()


def test_another_mount_point_base_leaves_nothing_behind(scene: Scene, guest: Any) -> None:
    """New volumes go to the new directory; what is attached is undone where it is."""
    old, new = scene.volume(), scene.volume()
    scene.attach(guest.name, old)
    base = scene.directory / "elsewhere"
    options = f"[libvirt]\nquobyte_mount_point_base = {base}\n"
    conf = ["--config-file", str(scene.write("base.conf", options))]
    assert [row["seen"] for row in scene.moorline.json("list", *conf)] == ["attached"]
    scene.attach(guest.name, new, *conf)
    assert sorted(Path(mount.target).parent == base for mount in scene.mounts()) == [False, True]
    scene.attach(guest.name, old, *conf, code=REFUSED)
    scene.moorline("sweep", *conf)
    scene.detach(guest.name, old, *conf)
    assert [Path(mount.target).parent for mount in scene.mounts()] == [base]
    scene.detach(guest.name, new)  # by the options of before
    assert scene.is_clean()
    assert not list(base.iterdir())


def test_a_mount_point_base_through_a_symbolic_link(scene: Scene, guest: Any) -> None:
    """QEMU's files are told by their real names then, which are no others."""
    base, link = scene.directory / "real", scene.directory / "link"
    base.mkdir()
    link.symlink_to(base)
    options = f"[libvirt]\nquobyte_mount_point_base = {link}\n"
    conf = ["--config-file", str(scene.write("base.conf", options))]
    volume = scene.volume()
    scene.attach(guest.name, volume, *conf)
    assert [row["seen"] for row in scene.moorline.json("list", *conf)] == ["attached"]
    assert scene.moorline.json("doctor", *conf)["findings"] == []
    scene.detach(guest.name, volume, *conf)
    assert scene.is_clean()
