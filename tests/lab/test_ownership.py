"""Whose a file is while it is a disk and afterwards: what is only read never changes hands."""

from __future__ import annotations

import os
import subprocess

from scene import Scene, Volume

from lab.guest import Guest, digest, pattern

NOBODY = 65534


def filled(scene: Scene, name: str, *, mode: int = 0o644) -> Volume:
    volume = scene.volume(name)
    with volume.file.open("r+b") as file:
        file.write(pattern(name))
    volume.file.chmod(mode)
    os.chown(volume.file, NOBODY, NOBODY)
    return volume


def test_a_read_only_disk_on_a_share_keeps_its_owner(scene: Scene, guest: Guest) -> None:
    volume = filled(scene, "iso.raw")
    scene.attach(guest.name, volume, "--read-only")
    assert guest.digest(volume.id) == digest(pattern("iso.raw"))
    assert volume.file.stat().st_uid == NOBODY
    scene.detach(guest.name, volume)
    assert volume.file.stat().st_uid == NOBODY
    assert scene.is_clean()


def test_a_read_only_file_of_the_host_keeps_its_owner(scene: Scene, guest: Guest) -> None:
    file = scene.directory / "iso.raw"
    file.write_bytes(pattern("local", 1 << 20))
    file.chmod(0o644)
    args = ("--format", "raw", "--volume", "local-iso")
    scene.moorline("attach", guest.name, str(file), *args, "--read-only")
    assert guest.digest("local-iso") == digest(pattern("local"))
    assert file.stat().st_uid == 0
    scene.moorline("detach", guest.name, "local-iso")
    assert file.stat().st_uid == 0
    # What is written to is QEMU's for that time, and is given back.
    scene.moorline("attach", guest.name, str(file), *args)
    assert file.stat().st_uid != 0
    scene.moorline("detach", guest.name, "local-iso")
    assert file.stat().st_uid == 0


def test_what_lies_beneath_an_image_keeps_its_owner(scene: Scene, guest: Guest) -> None:
    base, top = filled(scene, "base"), scene.volume("top", format="qcow2")
    top.file.unlink()
    command = ["qemu-img", "create", "-qf", "qcow2", "-u", "-b", "base", "-F", "raw"]
    subprocess.run([*command, top.file, "2M"], check=True)
    scene.attach(guest.name, top)
    assert guest.digest(top.id) == digest(pattern("base"))
    guest.write(top.id, "changed")
    assert base.file.stat().st_uid == NOBODY
    assert base.bytes() == pattern("base")
    scene.detach(guest.name, top)
    assert base.file.stat().st_uid == NOBODY


def test_what_qemu_cannot_read_is_refused_in_words(scene: Scene, guest: Guest) -> None:
    volume = filled(scene, "secret.raw", mode=0o600)
    before = guest.domain.XMLDesc()
    refused = scene.attach(guest.name, volume, "--read-only", code=3)
    assert "cannot read" in refused.stderr
    assert "secret.raw, and what is only read keeps its owner" in refused.stderr
    assert guest.domain.XMLDesc() == before
    assert volume.file.stat().st_uid == NOBODY
    assert scene.is_clean()
