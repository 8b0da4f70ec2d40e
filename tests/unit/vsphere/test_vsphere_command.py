"""``vsphere://`` is a hypervisor of the command line."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyVmomi import vim

from lab.command import Moorline
from lab.demo import until
from lab.vcenter import VCenter
from lab.vcenter.images import stream
from lab.vcenter.prompt import moorline as prompt
from lab.vcenter.prompt import settings
from lab.vcenter.rig import Operator
from moorline.cli.commands import main
from moorline.core.state_owner import OWNER
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.ports import Put
from moorline.stores.sqlite import SqliteStore


class Prompt:
    def __init__(self, lab: VCenter, directory: Path) -> None:
        self._config = settings(lab, directory)
        self._state = directory / "state"
        self._state.mkdir()

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
    assert f"link used by: {guest}" in moorline("show", row["volume"]).stdout
    (why,) = json.loads(moorline("explain", row["volume"], "--output", "json").stdout)
    assert why["held_by"] == [guest]
    moorline("detach", guest, url)
    assert json.loads(moorline("list", "--output", "json").stdout) == []


def test_another_vcenter_at_the_same_address_is_refused(
    moorline: Prompt, operator: Operator, tmp_path: Path
) -> None:
    source = operator.disk("vvol1")
    url, guest = f"vmdk://{source.datastore}/{source.file}", VCenter.guests[0]
    moorline("attach", guest, url)
    shown = json.loads(moorline("state", "show", "--output", "json").stdout)
    own = shown["recorded"]["uuid"]
    assert own == operator.session.content.about.instanceUuid
    assert shown["steps"] == []
    store = SqliteStore(tmp_path / "state" / "moorline.db")
    entry = store.get(OWNER)
    assert entry is not None
    store.commit([], [Put(OWNER, entry.value.replace(own.encode(), b"another"))])
    store.close()
    refused = moorline("detach", guest, url, code=3)
    assert "moorline state rebind" in refused.output
    moorline("state", "rebind")
    moorline("detach", guest, url)
    assert json.loads(moorline("list", "--output", "json").stdout) == []


def test_what_is_not_there_is_refused_and_leaves_no_attachment(moorline: Prompt) -> None:
    moorline("attach", VCenter.guests[0], "vmdk://vvol1/volumes/none.vmdk", code=3)
    assert json.loads(moorline("list", "--output", "json").stdout) == []


def test_files_of_a_host_are_not_for_a_vcenter(moorline: Prompt, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    refused = moorline("attach", VCenter.guests[0], str(image), "--format", "raw", code=3)
    assert "cannot use local volumes" in refused.stderr


def test_a_disk_that_a_machine_has_already_is_not_adopted(
    moorline: Prompt, operator: Operator
) -> None:
    source, guest = operator.disk(), VCenter.guests[0]
    operator.plug(guest, source)
    assert source.path in moorline("adopt", guest).stdout, "it is shown"
    refused = moorline("adopt", guest, f"vmdk://{source.datastore}/{source.file}", code=3)
    assert "disks of vsphere guests cannot be adopted" in refused.stderr
    assert json.loads(moorline("list", "--output", "json").stdout) == []
    operator.unplug(guest, source.path)


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


def test_a_volume_moves_and_its_attachment_with_it(moorline: Prompt, operator: Operator) -> None:
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
    moorline: Prompt, lab: VCenter, operator: Operator, vm: VSphere, image: Path
) -> None:
    launch = ("launch", "made", "--image", str(image), "--datastore-regex", "vvol.*")
    told = json.loads(moorline(*launch, "--memory", "64M", "--output", "json").stdout)
    assert (told["running"], told["disks"]) == (True, lab.disks_of("made"))
    assert told["guest_id"] == vm.find("made").id
    volume = operator.disk()
    moorline("attach", "made", f"vmdk://{volume.datastore}/{volume.file}")
    assert volume.path in moorline(*launch, "--memory", "64M").stdout
    moorline("detach", "made", f"vmdk://{volume.datastore}/{volume.file}")
    moorline(*launch, "--memory", "128M", code=3)
    moorline("start", "made")
    moorline("remove", "made")
    moorline("remove", "made", code=4)
    assert moorline("remove", told["guest_id"]).stdout == f"there is no guest {told['guest_id']}\n"
    moorline("start", "made", code=4)
    assert lab.disks_of("made") == []


def machine(operator: Operator, name: str) -> Any:
    return next(vm for vm in operator.datacenter.vmFolder.childEntity if vm.name == name)


def test_a_machine_is_as_it_was_asked_for(
    moorline: Prompt, lab: VCenter, operator: Operator
) -> None:
    where = ("--cluster", VCenter.cluster, "--folder", "vm", "--resource-pool", "Resources")
    hardware = ("--cpus", "3", "--memory", "96M", "--adapter", "lsisas")
    policy = ("--storage-policy", "VVol No Requirements Policy", "--reserve", "1G")
    for kind in ("--thin", "--eager"):
        moorline("launch", "made", "--empty", "8M", kind, *where, *hardware, *policy)
        config = machine(operator, "made").config
        assert (config.hardware.numCPU, config.hardware.memoryMB) == (3, 96)
        devices = config.hardware.device
        assert any(isinstance(d, vim.vm.device.VirtualLsiLogicSASController) for d in devices)
        (disk,) = (d for d in devices if isinstance(d, vim.vm.device.VirtualDisk))
        assert disk.backing.thinProvisioned is (kind == "--thin")
        assert disk.backing.eagerlyScrub is (kind == "--eager")
        assert [disk.backing.fileName] == lab.disks_of("made")
        moorline("remove", "made")
    for wrong in (("--reserve", "1000T"), ("--adapter", "buslogic", "--datastore-regex", "none")):
        moorline("launch", "made", "--empty", "8M", *wrong, code=3)


def test_a_volume_is_made_and_attached(moorline: Prompt, lab: VCenter, operator: Operator) -> None:
    launch = ("launch", "data", "--empty", "8M", "--datastore-regex", "vvol.*", "--no-start")
    (disk,) = json.loads(moorline(*launch, "--output", "json").stdout)["disks"]
    assert moorline(*launch).stdout == (
        f"volume data is made: {disk}, held by the machine data, which is not started\n"
    )
    told = json.loads(moorline(*launch, "--output", "json").stdout)
    assert (told["running"], told["disks"]) == (False, lab.disks_of("data"))
    assert machine(operator, "data").config.hardware.memoryMB == 2048, "as the help says"
    moorline("start", "data")
    assert "its disk is no volume for others" in moorline(*launch, code=3).stderr
    operator.done(machine(operator, "data").PowerOffVM_Task())
    assert json.loads(moorline(*launch, "--output", "json").stdout)["steps"] == []
    guest, url = VCenter.guests[0], told["disks"][0].replace("[vvol1] ", "vmdk://vvol1/")
    moorline("attach", guest, url)
    (row,) = json.loads(moorline("list", "--output", "json").stdout)
    refused = moorline("relocate", guest, row["volume"], "nfs1", code=3)
    assert "is a disk of data, too" in refused.stderr
    assert guest in moorline("remove", "data", code=3).stderr
    moorline("detach", guest, url)
    moorline("remove", "data")
    assert told["disks"][0] not in lab.disks()


def test_one_of_two_that_make_the_same_waits_no_longer_than_it_was_told(
    moorline: Prompt, lab: VCenter, tmp_path: Path
) -> None:
    launch = ("launch", "made", "--empty", "8M")
    lab.fault("CreateVM_Task", TaskMs=3000)
    first = prompt(lab, tmp_path).start(*launch)
    until(lambda: lab.calls().get("CreateVM_Task"), "for the machine")
    assert "owns this host's state" in moorline(*launch, "--timeout", "0", code=8).stderr
    moorline(*launch, "--timeout", "20")
    first.communicate()
    assert first.returncode == 0
    assert lab.calls()["CreateVM_Task"] == 1
    moorline("remove", "made")


def bring_in(moorline: Moorline, lab: VCenter, image: Path, *more: str) -> str:
    """What stderr, a terminal, shows while an image is brought in slowly."""
    lab.fault("upload", DelayMs=1500)
    ours, theirs = os.openpty()
    process = moorline.start("launch", "made", "--image", str(image), *more, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # so a terminal ends
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    process.communicate()
    moorline("remove", "made", code=4 if process.returncode else 0)
    return shown.decode()


def test_a_bar_grows_while_an_image_is_brought_in(lab: VCenter, tmp_path: Path) -> None:
    moorline = prompt(lab, tmp_path)
    image = tmp_path / "large.vmdk"
    image.write_bytes(stream(32 << 20, {n: os.urandom(1 << 16) for n in range(400)}))
    shown = bring_in(moorline, lab, image)
    told = [int(percent) for percent in re.findall(r"\[#* *\] +(\d+) %", shown)]
    assert told == sorted(set(told))
    assert told[-1] == 100
    assert "] 100 %\r\n" in shown
    assert bring_in(moorline, lab, image, "--quiet") == ""
    image.write_bytes(image.read_bytes()[:-4096])
    refused = bring_in(moorline, lab, image)
    assert re.search(r"\d %\r\nmoorline: large.vmdk is not taken", refused), refused


@pytest.mark.parametrize("name", ["ü" * 80, "x" * 300, "a/b", ".."])
def test_a_name_may_be_no_files(moorline: Prompt, name: str) -> None:
    assert f"there is no guest {name}" in moorline("remove", name, code=4).stderr


def test_a_machine_may_have_the_longest_name(moorline: Prompt, vm: VSphere) -> None:
    name = "ü" * 80
    moorline("launch", name, "--empty", "8M")
    assert vm.find(name).name == name
    moorline("remove", name)
    for wrong in (name + "x", "a/b"):
        refused = moorline("launch", wrong, "--empty", "8M", code=3)
        assert "cannot be a machine's name" in refused.stderr


def test_an_odd_size_is_refused_or_rounded_up(moorline: Prompt, lab: VCenter) -> None:
    odd = ("launch", "odd", "--empty", str((8 << 20) + 1024), "--datastore-regex", "vvol.*")
    refused = moorline(*odd, code=3)
    assert str(9 << 20) in refused.stderr
    moorline(*odd, "--round-up", "--thin")
    (odd,) = lab.disks_of("odd")
    assert lab.disks()[odd] == 9 << 20
    moorline("remove", "odd")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--image", "a", "--empty", "1G"),
        ("--empty", "1G", "--thin", "--eager"),
        ("--empty", "1G", "--boot", "x.json"),
        ("--empty", "1G", "--vcpus", "2"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(moorline: Prompt, words: tuple[str, ...]) -> None:
    moorline("launch", "made", *words, code=2)
    moorline("remove", "made", "--force", code=2)


def test_what_only_vsphere_has_is_wrong_usage_elsewhere(tmp_path: Path) -> None:
    words = ["launch", "made", "--empty", "1G", "--state-dir", str(tmp_path)]
    done = CliRunner().invoke(main, [*words, "--hypervisor", "qemu:///system"])
    assert done.exit_code == 2
    assert "--empty is for vsphere://" in done.stderr
    words = ["datastores", "--for", "1G", "--state-dir", str(tmp_path)]
    done = CliRunner().invoke(main, [*words, "--hypervisor", "qemu:///system"])
    assert done.exit_code == 3
    assert "lie on no datastore" in done.stderr
