"""Hostile connections, through the command: refused with 3 and a reason, and nothing changes.

The share is mounted already, for a volume that is attached to another guest. So
a refusal that comes before the connection is used shows as no call of
mount.quobyte, and one that needs a look at the file as nothing mounted or unmounted.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scene import Scene, Volume, mount_table

from lab.guest import Guest, pattern

OUTSIDE = "/run/moorline-lab/outside.raw"
ID = "deadbeef-0000-4000-8000-00000000f00d"


@dataclass
class Siege:
    """A guest that somebody tries to give what it must not get."""

    scene: Scene
    guest: Guest
    honest: Volume
    before: tuple[Any, ...] = ()

    def state(self) -> tuple[Any, ...]:
        """All that an attach could change."""
        domains = self.scene.libvirt.listAllDomains()
        return (
            self.scene.share.cluster.calls(),
            mount_table(),
            self.rows(),
            [d.XMLDesc() + d.XMLDesc(2) for d in domains],
            sorted((p.name, p.lstat().st_uid) for p in self.scene.share.path.iterdir()),
            Path(OUTSIDE).stat().st_uid,
        )

    def rows(self) -> list[Any]:
        """What is recorded, as the database has it."""
        assert self.scene.moorline.state is not None
        database = sqlite3.connect(self.scene.moorline.state / "moorline.db")
        with closing(database):
            return database.execute("select key, value from entry where not gone").fetchall()

    def refuse(self, connection: Any, *words: str) -> None:
        """It must be refused for the reason that *words* give, and change nothing."""
        text = connection if isinstance(connection, str) else json.dumps(connection)
        before = self.state()
        done = self.scene.moorline(
            "attach", self.guest.name, "--connection", "-", "--quiet", stdin=text, code=None
        )
        assert done.returncode == 3, (connection, done.returncode, done.stdout, done.stderr)
        assert done.stdout == ""
        assert done.stderr.startswith("moorline: ")
        for word in words:
            assert word in done.stderr, (connection, done.stderr)
        lines = done.stderr.splitlines()
        assert len(lines) <= 2, lines  # the reason and a hint
        assert all(line.isprintable() and len(line) < 600 for line in lines)
        assert self.state() == before, connection

    def data(self, **fields: Any) -> dict[str, Any]:
        return self.scene.share.connection(**{"name": "hostile", "volume_id": ID, **fields})


@pytest.fixture
def siege(scene: Scene, guest: Guest) -> Any:
    outside = Path(OUTSIDE)
    outside.write_bytes(b"not yours\n" * 100000)
    outside.chmod(0o600)
    honest = scene.volume("honest.raw")
    scene.attach(guest.name, honest)
    yield Siege(scene, guest, honest)
    # After all of that, the honest volume is none the worse.
    guest.write(honest.id, "unharmed")
    assert honest.bytes() == pattern("unharmed")
    scene.detach(guest.name, honest)
    assert scene.is_clean()
    outside.unlink()


def test_names(siege: Siege) -> None:
    for name, word in [
        ("../outside.raw", "does not stay on its share"),
        ("a/../../outside.raw", "does not stay on its share"),
        ("./honest.raw", "does not stay on its share"),
        ("a//b", "does not stay on its share"),
        ("/etc/shadow", "is absolute"),
        (OUTSIDE, "is absolute"),
        ("-o", "looks like an option"),
        ("--help", "looks like an option"),
        ("a\nb", "do not print"),
        ("a\x00b", "do not print"),
        ("a\x1b[2Jb", "do not print"),
        ("a\u202egpj.exe", "do not print"),
        ("\ud800", "do not print"),
        ("x" * 256, "too long"),
        ("d/" * 600 + "x", "longer than"),
        ("", "has no name"),
    ]:
        siege.refuse(siege.data(name=name), word)


def test_exports(siege: Siege) -> None:
    volume = siege.scene.share.name
    for export in [
        f"-o,reg1/{volume}",
        f"--config=/etc/shadow/{volume}",
        "reg1/-o",
        "reg1/../outside",
        "reg1/a/b",
        "reg1/",
        "reg1",
        f"reg1,,reg2/{volume}",
        f"reg1:0/{volume}",
        f"reg1:99999/{volume}",
        f"reg1;id/{volume}",
        f"$(id)/{volume}",
        f"[::g]/{volume}",
        f"reg1\n/{volume}",
        f"reg1/{volume}\x00",
        f"user:pw@reg1/{volume}",
        ",".join(["reg1"] * 33) + f"/{volume}",
        f"{'r' * 300}/{volume}",
        "r" * 5000,
    ]:
        siege.refuse(siege.data(export=export), "export")


def test_fields_that_are_missing_or_absurd(siege: Siege) -> None:
    whole = siege.data()
    for field in ("export", "name", "format"):
        less = {key: value for key, value in whole["data"].items() if key != field}
        siege.refuse({**whole, "data": less}, field)
        for absurd in (None, 7, True, {"a": 1}):
            siege.refuse(siege.data(**{field: absurd}), field)
    siege.refuse({"data": whole["data"]}, "driver_volume_type")
    for kind in (None, 7, "", "nfsx", "../quobyte", ["quobyte"], "x" * 100):
        siege.refuse({**whole, "driver_volume_type": kind})
    for data in (None, [], "text", 7):
        siege.refuse({"driver_volume_type": "quobyte", "data": data}, "data")
    for text in ("", "{", "[]", "null", '"text"', "7", "[" * 100_000, '{"a": NaN', "\ufeff{}"):
        siege.refuse(text, "connection -")
    siege.refuse(siege.data(junk="x" * 300_000), "more than 65536 bytes")


def test_options(siege: Siege) -> None:
    for options in ("-o allow_other", "--config /etc/shadow", "rw", {"a": "b"}, ["-o"], 7):
        siege.refuse(siege.data(options=options), "mount options")


def test_formats(siege: Siege) -> None:
    for format in ("vmdk", "RAW", "auto", "qcow2,file.filename=/etc/shadow", "ploop", "raw\n"):
        siege.refuse(siege.data(format=format), "format")


def test_ids(siege: Siege) -> None:
    # An id that is unfit is not used; the one that is asked for must fit as well.
    name = siege.honest.file.name
    before = siege.state()
    for id in ("../x", "a b", "x" * 65, "-", "\n"):
        args = ("attach", siege.guest.name, f"quobyte://{siege.scene.share.export}/{name}")
        done = siege.scene.moorline(*args, "--format", "raw", "--volume", id, code=3)
        assert "moorline: " in done.stderr
    # Another id for the same storage, and another storage under the same id.
    siege.refuse(siege.data(name=name), "known under another id")
    siege.refuse(siege.data(volume_id=siege.honest.id), "belongs to another storage")
    assert siege.state() == before


def test_urls(siege: Siege) -> None:
    share = siege.scene.share
    before = siege.state()
    for url in (
        f"quobyte://{share.export}/../{share.name}/honest.raw",
        f"quobyte://{share.export}//etc/shadow",
        f"quobyte://{share.export}/",
        f"quobyte://{share.export}",
        "quobyte://",
        f"quobyte://-o/{share.name}/x",
        "nothing://x/y/z",
        "/",
        "/no-such-directory/x.raw",
        "/etc",
        "/dev/null",
        "/dev/no-such-device",
    ):
        done = siege.scene.moorline(
            "attach", siege.guest.name, "--format", "raw", "--", url, code=None
        )
        assert done.returncode == 3, (url, done.returncode, done.stderr)
        assert siege.state() == before, url
    siege.scene.moorline("attach", siege.guest.name, "-o", code=2)


# --- files ----------------------------------------------------------------------------


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
        "outside of its share",
    ),
    "backing file up and out": (
        lambda s: qcow2(s, "-b", "../../outside.raw", "-F", "raw"),
        "qcow2",
        "outside of its share",
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
    "data file outside": (lambda s: _with_data_file(s, OUTSIDE), "qcow2", "outside of its share"),
    "data file by protocol": (
        lambda s: _with_data_file(s, "nbd:localhost:10809"),
        "qcow2",
        "not a plain file name",
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


def _with_data_file(share: Path, name: str) -> None:
    # qemu-img would open or make the data file: give it one of the same length, and rename it.
    stand_in = "d" * len(name)
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
            if left != siege.honest.file:
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


# --- what is unusual, and fine ------------------------------------------------------------


def test_what_is_fine(siege: Siege) -> None:
    """So that the refusals above are not those of a command that refuses everything."""
    scene, share = siege.scene, siege.scene.share
    (share.path / "dir").mkdir()
    subprocess.run(["qemu-img", "create", "-qf", "raw", share.path / "base", "1M"], check=True)
    cases: list[tuple[Callable[[], Any], dict[str, Any]]] = [
        (lambda: share.disk("hostile"), {"options": None, "qos_specs": None, "encrypted": False}),
        (lambda: share.disk("dir/with space é"), {"name": "dir/with space é"}),
        (lambda: qcow2(share.path, "-b", "base", "-F", "raw"), {"format": "qcow2"}),
        (
            lambda: qcow2(share.path, "-b", str(scene.mount_point() / "base"), "-F", "raw"),
            {"format": "qcow2"},
        ),
    ]
    for prepare, fields in cases:
        (share.path / "hostile").unlink(missing_ok=True)
        prepare()
        text = json.dumps(siege.data(**fields))
        scene.moorline("attach", siege.guest.name, "--connection", "-", stdin=text)
        assert siege.guest.wait_for(ID)
        scene.moorline("detach", siege.guest.name, ID)
        assert len(scene.mount_calls()) == 1
