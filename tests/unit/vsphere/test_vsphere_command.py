"""``vsphere://`` is a hypervisor of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lab.vcenter import VCenter
from lab.vcenter.images import stream
from lab.vcenter.rig import Operator
from moorline.cli import main


class Prompt:
    def __init__(self, lab: VCenter, directory: Path) -> None:
        password = directory / "password"
        password.touch(mode=0o600)
        password.write_text(lab.password)
        self._config = directory / "moorline.conf"
        self._config.write_text(
            f"[libvirt]\nconnection_uri = vsphere://localhost:{lab.port}\n"
            f"[vsphere]\nvcenter_user = {lab.user}\nvcenter_ca = {lab.ca}\n"
            f"vcenter_password_file = {password}\n"
        )
        self._state = directory / "state"

    def __call__(self, *words: str, code: int = 0) -> Result:
        where = ["--config-file", str(self._config), "--state-dir", str(self._state)]
        done = CliRunner().invoke(main, [*words, *where])
        assert done.exit_code == code, done.output
        return done


@pytest.fixture
def moorline(lab: VCenter, tmp_path: Path) -> Prompt:
    return Prompt(lab, tmp_path)


def test_a_disk_on_vvol_is_attached_and_detached(moorline: Prompt, operator: Operator) -> None:
    source = operator.disk("vvol1")
    url = f"vmdk://{source.datastore}/{source.file}"
    guest = VCenter.guests[0]
    moorline("attach", guest, url)
    moorline("attach", guest, url)
    (row,) = json.loads(moorline("list", "--output", "json").stdout)
    assert (row["guest"], row["seen"], row["backend"]) == (guest, "attached", "vmdk")
    moorline("detach", guest, url)
    assert json.loads(moorline("list", "--output", "json").stdout) == []


def test_what_is_not_there_is_refused_and_leaves_no_wish(moorline: Prompt) -> None:
    moorline("attach", VCenter.guests[0], "vmdk://vvol1/volumes/none.vmdk", code=3)
    assert json.loads(moorline("list", "--output", "json").stdout) == []


def test_files_of_a_host_are_not_for_a_vcenter(moorline: Prompt) -> None:
    refused = moorline("attach", VCenter.guests[0], "/etc/hostname", "--format", "raw", code=3)
    assert "cannot use local volumes" in refused.stderr


def test_datastores_are_chosen_and_explained(moorline: Prompt) -> None:
    text = moorline("datastores", "--for", "20G", "--explain").stdout
    assert text.startswith("vvol1 (VVOL): is taken")
    assert "vvol-lost (VVOL): is not accessible" in text
    assert "cifs (CIFS): its type is not one" in text
    facts = json.loads(moorline("datastores", "--for", "20G", "--output", "json").stdout)
    assert [row["against"] for row in facts] == [""] * len(facts)
    assert (facts[0]["name"], facts[0]["size"]) == ("vvol1", 20 << 30)
    none = moorline("datastores", "--for", "20G", "--datastore-regex", "none", code=3)
    assert "no datastore will do" in none.stderr
    assert "does not match 'none'" in none.stderr
    moorline("datastores", code=2)
    moorline("datastores", "--for", "much", code=2)


def test_a_volume_moves_and_its_wish_with_it(moorline: Prompt, operator: Operator) -> None:
    source = operator.disk("vvol1")
    guest = VCenter.guests[0]
    moorline("attach", guest, f"vmdk://{source.datastore}/{source.file}")
    (row,) = json.loads(moorline("list", "--output", "json").stdout)
    moorline("relocate", guest, row["volume"], "nfs1")
    moorline("relocate", guest, row["volume"], "nfs1")
    (moved,) = json.loads(moorline("list", "--output", "json").stdout)
    assert (moved["volume"], moved["seen"]) == (row["volume"], "attached")
    assert moved["link"] != row["link"]
    assert moved["source"]["datastore"] == "nfs1"
    moorline("sweep")
    moorline("detach", guest, f"vmdk://nfs1/{moved['source']['file']}")
    assert json.loads(moorline("list", "--output", "json").stdout) == []


def test_what_cannot_move_is_refused(moorline: Prompt, operator: Operator) -> None:
    moorline("relocate", VCenter.guests[0], "nothing", "nfs1", code=4)
    source = operator.disk("vvol1")
    guest = VCenter.guests[0]
    moorline("attach", guest, f"vmdk://{source.datastore}/{source.file}")
    (row,) = json.loads(moorline("list", "--output", "json").stdout)
    moorline("relocate", guest, row["volume"], "nowhere", code=4)
    moorline("detach", guest, row["volume"])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(stream(8 << 20, {0: b"data"}))
    return path


def test_a_machine_is_launched_started_and_removed(
    moorline: Prompt, lab: VCenter, operator: Operator, image: Path
) -> None:
    launch = ("launch", "made", "--image", str(image), "--datastore-regex", "vvol.*")
    told = json.loads(moorline(*launch, "--memory", "64M", "--output", "json").stdout)
    assert (told["guest"], told["place"]) == ("made", "[vvol1] made")
    moorline(*launch, "--memory", "64M")
    moorline(*launch, "--memory", "128M", code=3)
    moorline("start", "made")
    moorline("remove", "made")
    moorline("remove", "made")
    moorline("start", "made", code=4)
    assert [path for path in lab.disks() if "] made/" in path] == []


def test_an_odd_size_is_refused_or_rounded_up(moorline: Prompt, lab: VCenter) -> None:
    odd = ("launch", "odd", "--empty", str((8 << 20) + 1024), "--datastore-regex", "vvol.*")
    refused = moorline(*odd, code=3)
    assert str(9 << 20) in refused.stderr
    moorline(*odd, "--round-up", "--thin")
    assert lab.disks()["[vvol1] odd/odd.vmdk"] == 9 << 20
    moorline("remove", "odd")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--image", "a", "--empty", "1G"),
        ("--empty", "1G", "--thin", "--eager"),
        ("--empty", "1G", "--boot", "x.json"),
        ("--empty", "1G", "--vcpus", "2"),
        ("--empty", "1G", "--no-start"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(moorline: Prompt, words: tuple[str, ...]) -> None:
    moorline("launch", "made", *words, code=2)
    moorline("remove", "made", "--force", code=2)


def test_what_only_vsphere_has_is_wrong_usage_elsewhere(tmp_path: Path) -> None:
    words = ["launch", "made", "--empty", "1G", "--state-dir", str(tmp_path)]
    done = CliRunner().invoke(main, [*words, "--hypervisor", "qemu:///system"])
    assert done.exit_code == 2
    assert "is for vSphere" in done.stderr
    done = CliRunner().invoke(main, ["datastores", "--for", "1G", "--hypervisor", "qemu:///system"])
    assert done.exit_code == 3
