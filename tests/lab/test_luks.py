"""LUKS volumes: real QEMU deciphers them, and their key is nowhere but where it has to be."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from libvirt_rig import loop_device, marked, small_xml
from scene import Scene, start_paused
from test_secrets import PASSWORD, assert_kept, betrayed, watched

from lab import host
from lab.command import Moorline
from lab.guest import Guest, digest, pattern
from moorline.model import VolumeId
from tests.support.luks_image import PAYLOAD, luks_image

DISK = 2 << 20
KEY = PASSWORD.encode()
CODED = base64.b64encode(KEY)
NAME = "small1"


@pytest.fixture
def files(lab: Path) -> Iterator[Path]:
    """Where disks can lie: not in pytest's directories, which QEMU's user could not reach."""
    with TemporaryDirectory(dir=lab, prefix="disks-") as directory:
        Path(directory).chmod(0o755)
        luks_image(Path(directory) / "a.luks", KEY, DISK)
        yield Path(directory)


def key_file(files: Path, name: str = "key", key: bytes = KEY) -> str:
    path = files / name
    path.write_bytes(key)
    path.chmod(0o600)
    return str(path)


def attach_words(files: Path, guest: str = NAME, key: str = "key") -> list[str]:
    words = ["attach", guest, str(files / "a.luks"), "--format", "luks", "--volume", "sealed"]
    return [*words, "--luks-key-file", str(files / key)]


def secrets(connection: Any) -> list[str]:
    return [each.usageID() for each in connection.listAllSecrets()]


def deciphered(path: Path, key: str, at: int, length: int) -> bytes:
    """What QEMU's own tool reads inside."""
    out = path.with_suffix(".plain")
    words = ["qemu-img", "convert", "-O", "raw", "--object", f"secret,id=s,file={key}"]
    source = f"driver=luks,key-secret=s,file.driver=file,file.filename={path}"
    subprocess.run([*words, "--image-opts", source, str(out)], check=True)
    data = out.read_bytes()
    out.unlink()
    return data[at : at + length]


def test_a_guest_writes_through_luks_and_the_key_is_nowhere(
    moorline: Moorline, files: Path, guest: Guest, libvirt_conn: Any, scene: Scene
) -> None:
    given = Path(key_file(files))
    state = moorline.state
    assert state is not None
    printed = ""
    with watched() as watch:
        done = moorline(*attach_words(files, guest.name), "--verbose")
        printed += done.stdout + done.stderr
        for output in ("text", "json", "yaml"):
            for words in (("list",), ("show", "sealed"), ("events",)):
                done = moorline(*words, "--output", output)
                printed += done.stdout + done.stderr
        guest.write("sealed", "under lock")
        assert_kept(scene, guest, given)
        assert secrets(libvirt_conn) == [f"moorline {guest.domain.UUIDString()} sealed"]
        moorline("detach", guest.name, "sealed")
        assert secrets(libvirt_conn) == []
    assert "luks (encrypted)" in printed
    assert pattern("under lock") not in (files / "a.luks").read_bytes()[PAYLOAD:]
    assert deciphered(files / "a.luks", str(given), 0, 65536) == pattern("under lock")
    seen = {*watch.seen, printed.encode()}
    seen |= {path.read_bytes() for path in state.rglob("*") if path.is_file()}
    seen |= {path.read_bytes() for path in Path("/run/libvirt").rglob("*.xml")}
    assert not [each for each in seen if betrayed(each) or CODED in each]
    # Again, as it was written; the key comes on standard input.
    words = [*attach_words(files, guest.name)[:-1], "-"]
    moorline(*words, stdin=KEY.decode())
    assert guest.digest("sealed") == digest(pattern("under lock"))
    moorline("detach", guest.name, "sealed")


@pytest.mark.parametrize("key", [b"another", KEY + b"\n"], ids=["another", "a newline"])
def test_a_wrong_key_is_refused_and_leaves_nothing(
    moorline: Moorline, files: Path, guest: Guest, libvirt_conn: Any, key: bytes
) -> None:
    key_file(files, "key", key)
    done = moorline(*attach_words(files, guest.name), code=3)
    assert "does not open" in done.stderr
    assert moorline.json("list") == []
    assert secrets(libvirt_conn) == []
    assert marked(guest.domain, VolumeId("sealed"), 1) is None


def test_a_stopped_guests_wrong_key_is_told_at_its_start(
    moorline: Moorline, files: Path, stopped: Any, libvirt_conn: Any
) -> None:
    key_file(files, "key", b"another")
    moorline(*attach_words(files))
    done = moorline("start", NAME, code=3)
    assert "does not open" in done.stderr
    assert "--luks-key-file" in done.stderr
    moorline("detach", NAME, "sealed")
    assert secrets(libvirt_conn) == []


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda header: b"LUKS\xba\xbe\0\2" + header[8:], "LUKS1 alone"),
        (lambda header: b"no" + header[2:], "no LUKS header"),
        (lambda header: header[:104] + b"\xff" * 4 + header[108:], "damaged"),
    ],
    ids=["LUKS2", "none", "damaged"],
)
def test_the_header_is_checked_before_the_guest(
    moorline: Moorline, files: Path, stopped: Any, spoil: Callable[[bytes], bytes], why: str
) -> None:
    key_file(files)
    image = files / "a.luks"
    data = image.read_bytes()
    image.write_bytes(spoil(data[:592]) + data[592:])
    assert why in moorline(*attach_words(files), code=3).stderr


def test_libvirtd_loses_the_key_and_gets_it_back(
    moorline: Moorline, files: Path, leftovers_check: None
) -> None:
    import libvirt

    anew = libvirt.open("qemu:///system")
    name = anew.defineXML(small_xml("q35", 3, "")).name()
    key_file(files)
    moorline(*attach_words(files, name))
    moorline("start", name)
    (files / "key").unlink()  # the store has it
    for heal in (["sweep"], ["hook", "run"], ["start", name]):
        host.kill_libvirtd()
        host.start_libvirtd()
        anew = libvirt.open("qemu:///system")
        domain = anew.lookupByName(name)
        # Who has it open goes on. (libvirtd knows the guest again once it answers this.)
        assert domain.blockInfo("vda")[0] == DISK
        domain.destroy()
        assert secrets(anew) == []
        (row,) = moorline.json("list")
        assert (row["seen"], row["next"]) == ("attached", "unlock")
        with pytest.raises(libvirt.libvirtError, match="Secret not found"):
            domain.create()
        moorline(*heal, stdin=domain.XMLDesc())
        assert len(secrets(anew)) == 1
        assert moorline.json("list")[0]["next"] == "nothing"
        if not domain.isActive():
            start_paused(domain)
    domain.destroy()
    moorline("detach", name, "sealed")
    assert secrets(anew) == []
    domain.undefine()
    anew.close()


def test_cinders_connection_with_its_key(
    moorline: Moorline, files: Path, stopped: Any, libvirt_conn: Any
) -> None:
    data = {"path": str(files / "a.luks"), "format": "raw", "encrypted": True}
    info: dict[str, Any] = {"driver_volume_type": "local", "data": data, "volume_id": "sealed"}
    connection = files / "connection.json"
    connection.write_text(json.dumps(info))
    words = ("attach", NAME, "--connection", str(connection))
    assert "without its key" in moorline(*words, code=3).stderr
    # As Cinder tells it, and the passphrase as Nova makes it of Barbican's key: hex.
    info["encryption"] = {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256}
    connection.write_text(json.dumps(info))
    moorline(*words, "--luks-key-file", key_file(files))
    moorline("start", NAME)
    stopped.destroy()
    assert "encrypted" in moorline("release", NAME, "sealed", code=3).stderr
    info["encryption"]["key"] = CODED.decode()
    connection.write_text(json.dumps(info))
    assert "not adopted" in moorline("adopt", *words[1:], "--dry-run", code=3).stderr
    moorline("detach", NAME, "sealed")
    assert secrets(libvirt_conn) == []


def test_a_device_is_deciphered_as_a_file_is(
    moorline: Moorline, files: Path, guest: Guest, libvirt_conn: Any
) -> None:
    with loop_device(files / "a.luks") as device:
        words = ["attach", guest.name, str(device), "--format", "luks", "--volume", "sealed"]
        assert "its key is not given" in moorline(*words, code=3).stderr
        wrong = key_file(files, "wrong", b"another")
        assert "does not open" in moorline(*words, "--luks-key-file", wrong, code=3).stderr
        assert secrets(libvirt_conn) == []
        given = key_file(files)
        moorline(*words, "--luks-key-file", given)
        guest.write("sealed", "under lock")
        (row,) = moorline.json("list")
        assert (row["seen"], row["next"], row["format"]) == ("attached", "nothing", "luks")
        moorline("detach", guest.name, "sealed")
        assert secrets(libvirt_conn) == []
        words[4] = "raw"  # who says so sees cipher text
        moorline(*words)
        assert guest.digest("sealed", offset=PAYLOAD) != digest(pattern("under lock"))
        moorline("detach", guest.name, "sealed")
    assert deciphered(files / "a.luks", given, 0, 65536) == pattern("under lock")


def test_apply_with_another_key_of_what_is_attached_is_refused(
    moorline: Moorline, files: Path, stopped: Any, libvirt_conn: Any
) -> None:
    key_file(files)
    declared = files / "attachments.yaml"
    entry = {"guest": NAME, "storage": str(files / "a.luks"), "format": "luks", "volume": "sealed"}
    declared.write_text(json.dumps({"attachments": [{**entry, "luks_key_file": "key"}]}))
    moorline("apply", "-f", str(declared))
    assert moorline.json("apply", "-f", str(declared))[0]["steps"] == []
    key_file(files, key=b"another")
    refused = moorline("apply", "-f", str(declared), code=3)
    assert "with another key" in refused.stdout + refused.stderr
    moorline("start", NAME)  # it has the key that it had
    stopped.destroy()
    moorline("detach", NAME, "sealed")
    assert secrets(libvirt_conn) == []


def test_what_others_may_read_is_no_key(moorline: Moorline, files: Path, stopped: Any) -> None:
    path = Path(key_file(files))
    path.chmod(0o644)
    assert "chmod 600" in moorline(*attach_words(files), code=9).stderr
    path.chmod(0o600)
    words = attach_words(files)[:-2]
    assert "--luks-key-file" in moorline(*words, code=3).stderr
    words[words.index("luks")] = "raw"
    done = moorline(*words, "--luks-key-file", str(path), code=3)
    assert "format" in done.stderr
