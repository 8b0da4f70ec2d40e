"""What goes wrong with Nova's volume drivers, tried here: each test fails on their behaviour.

The drivers are nova.virt.libvirt.volume.quobyte and its siblings in nova 34.0.0.
"""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import until
from scene import Scene, halves

from lab.guest import Guest, pattern
from lab.host import umount
from moorline import wiring
from moorline.api import Moorline
from moorline.model import Level


@pytest.mark.parametrize(
    "misbehaviour",
    [{"lie": True}, {"other": "tmpfs"}, {"type": "fuse.sshfs", "source": "someone@else:/"}],
    ids=["nothing mounted", "another file system", "another client"],
)
def test_a_mount_that_is_not_valid_is_not_success(
    scene: Scene, guest: Guest, misbehaviour: dict[str, Any]
) -> None:
    """Nova logs a failed validation and goes on (quobyte.py, connect_volume: the
    InternalError and StaleVolumeException of validate_volume end in LOG.error), so
    the guest is given a path in a local directory. Same family: Launchpad 1659328.
    """
    volume = scene.volume()
    scene.share.command(**misbehaviour)
    done = scene.attach(
        guest.name, volume, "--timeout", "0.5", code=5 if "lie" in misbehaviour else 7
    )
    assert f"volume {volume.id} is not attached" in done.stderr
    assert halves(guest.domain, volume) == (False, False)
    scene.share.command()
    if "lie" not in misbehaviour:  # what is not ours a person takes away
        view = scene.moorline.json("show", volume.id)[0]
        assert view["seen"] == "foreign"
        umount(view["link"])
    scene.attach(guest.name, volume)
    guest.write(volume.id, "on the share")
    assert volume.bytes() == pattern("on the share")
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_link_that_is_connected_and_not_opened_yet_is_in_use(
    scene: Scene, guest: Guest, second_guest: Guest
) -> None:
    """Nova's Quobyte driver has no count of users and relies on umount being busy:
    disconnecting B takes the mount from under A, which is connected and not opened
    yet (quobyte.py, disconnect_volume; for NFS the like was Launchpad 1737131).
    """
    a, b = scene.volume(), scene.volume()
    scene.attach(guest.name, a, "--level", "connected")
    scene.attach(second_guest.name, b)
    assert halves(guest.domain, a) == (False, False)  # nobody has A's file open
    scene.detach(second_guest.name, b)
    (mount,) = scene.mounts()
    assert (Path(mount.target) / a.file.name).exists()
    assert len(scene.mount_calls()) == 1
    scene.attach(guest.name, a)
    guest.write(a.id, "it stayed")
    assert a.bytes() == pattern("it stayed")
    scene.detach(guest.name, a)
    assert scene.is_clean()


def test_detaching_one_of_two_is_no_error(scene: Scene, guest: Guest, second_guest: Guest) -> None:
    """Nova tries umount at each disconnect and looks for "Device or resource busy" in
    its message, where util-linux says "target is busy": an error and a traceback at
    each normal detach from a shared volume (quobyte.py, umount_volume).
    """
    one, two = scene.volume(), scene.volume()
    scene.attach(guest.name, one)
    scene.attach(second_guest.name, two)
    done = scene.detach(guest.name, one)
    told = [line for line in done.stderr.splitlines() if not line.startswith("… ")]
    assert (done.returncode, told) == (0, [])
    assert scene.moorline.json("show", two.id)[0]["trouble"] is None
    scene.detach(second_guest.name, two)
    assert scene.is_clean()


def test_a_share_that_is_busy_is_told_by_a_look_not_by_words(scene: Scene, guest: Guest) -> None:
    """The same defect from its other side: when umount is really busy, whatever umount
    says in whatever language, the mount stays, it is told who uses it, and the detach
    goes on when it is asked again.
    """
    volume = scene.volume()
    scene.attach(guest.name, volume)
    with (scene.mount_point() / "notes").open("w") as file:
        busy = scene.detach(guest.name, volume, "--timeout", "0.5", code=5)
        assert "is still mounted" in busy.stderr
        assert "in use by" in busy.stderr
        assert halves(guest.domain, volume) == (False, False)
        assert scene.attachments() == {volume.id: ("absent", "connected")}
        file.write("nothing was lost")
    assert (scene.share.path / "notes").read_text() == "nothing was lost"
    scene.detach(guest.name, volume)
    assert scene.is_clean()


@pytest.mark.parametrize("name", ["/etc/shadow", "../../../../etc/shadow", "a/../../secret"])
def test_a_name_that_leaves_the_share_reaches_no_guest(
    scene: Scene, guest: Guest, name: str
) -> None:
    """Nova joins mount point and name (os.path.join in get_config / connect_volume of
    all file system drivers), so /etc/shadow reaches the domain's XML.
    """
    (scene.directory / "secret").write_bytes(bytes(4096))
    before = guest.domain.XMLDesc()
    volume = scene.volume("honest.raw", name=name)
    refused = scene.attach(guest.name, volume, code=3)
    assert repr(name) in refused.stderr
    assert guest.domain.XMLDesc() == before
    assert scene.share.cluster.calls() == []
    assert scene.is_clean()


@pytest.mark.parametrize("reference", ["backing", "data"])
def test_an_image_that_refers_to_a_file_of_the_host_reaches_no_guest(
    scene: Scene, guest: Guest, reference: str
) -> None:
    """Nova looks at neither backing files nor data files when it attaches: CVE-2024-32498
    (OSSA-2024-001) is the data file, CVE-2022-47951 (OSSA-2023-002) the backing file.
    """
    secret = scene.directory / "secret.raw"
    secret.write_bytes(b"root:x:0:0" * 1000 + bytes(1 << 20))
    image = scene.share.path / "image.qcow2"
    how = {
        "backing": ["-b", str(secret), "-F", "raw"],
        "data": ["-o", f"data_file={secret},data_file_raw=on"],
    }[reference]
    size = [] if reference == "backing" else ["1M"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *how, image, *size], check=True)
    before = guest.domain.XMLDesc()
    url = f"quobyte://{scene.share.export}/image.qcow2"
    refused = scene.moorline("attach", guest.name, url, "--format", "qcow2", code=3)
    said = {"backing": f"has the backing file '{secret}'", "data": "keeps its data in another file"}
    assert said[reference] in refused.stderr
    assert guest.domain.XMLDesc() == before
    assert scene.is_clean()


def test_a_header_that_contradicts_the_format_reaches_no_guest(scene: Scene, guest: Guest) -> None:
    """A guest that writes a qcow2 header into its raw disk must not be served that image:
    formats are compared with what was declared, and never probed.
    """
    volume = scene.volume()
    volume.file.unlink()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", volume.file, "1M"], check=True)
    before = guest.domain.XMLDesc()
    refused = scene.attach(guest.name, volume, code=3)
    assert "is declared raw, but begins as qcow2" in refused.stderr
    assert guest.domain.XMLDesc() == before
    assert scene.is_clean()


def test_one_mount_that_hangs_does_not_stop_the_others(scene: Scene, guest: Guest) -> None:
    """Nova's Quobyte driver has one lock for everything (quobyte.py, connect_volume,
    @synchronized), and no command a deadline: one mount that hangs, and nothing on the
    host is connected or disconnected any more.
    """
    cluster = scene.share.cluster
    fine = cluster.volume("fine")
    hung, well = scene.volume(), scene.volume(share=fine)
    scene.share.command(slow=2.5)
    settings = wiring.settings(state_dir=scene.moorline.state)
    with wiring.open_host(settings) as moorline:
        first = threading.Thread(target=_connect, args=(moorline, guest.name, hung.connection))
        first.start()
        until(scene.mount_calls)
        _connect(moorline, guest.name, well.connection)
        assert len(scene.mounts(fine)) == 1
        moorline.attachments.detach(guest.name, well.id)
        assert scene.mounts(fine) == []
        assert first.is_alive()
        assert scene.mounts() == []
        first.join(20)
        assert len(scene.mounts()) == 1
        moorline.attachments.detach(guest.name, hung.id)
    assert scene.is_clean()


def _connect(moorline: Moorline, guest: str, connection: Path) -> None:
    moorline.attachments.attach(guest, json.loads(connection.read_text()), level=Level.CONNECTED)
