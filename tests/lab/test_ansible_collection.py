"""The Ansible collection as it is installed, in real ansible-core: `make test-ansible`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_rig import COLLECTION, ROOT, ansible
from scene import Scene, Volume, halves

from lab.agent import Agent
from lab.command import Moorline

MODULE = "moorline.moorline.moorline_attachment"
SECRET = "hunter2-of-the-share"


class Task:
    """Runs the module's task, as a playbook does; the result is what `register` has."""

    def __init__(self, home: Path, scene: Scene) -> None:
        self._home = home
        self._scene = scene
        self.said = ""

    def __call__(self, *words: str, fails: bool = False, **options: Any) -> dict[str, Any]:
        state = str(self._scene.moorline.state)
        program = str(Path(sys.executable).with_name("moorline"))
        task = {MODULE: {"state_dir": state, "executable": program, **options}}
        result = self._scene.directory / "result.json"
        kept = {"content": "{{ result | to_json }}", "dest": str(result)}
        tasks = [
            {**task, "register": "result", "ignore_errors": True},
            {"ansible.builtin.copy": kept, "check_mode": False, "diff": False},
        ]
        play = [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]
        book = self._scene.write("play.yml", json.dumps(play))
        to = ("-c", "local", "-i", "localhost,")
        ran = ansible(self._home, "playbook", *to, *words, book)
        self.said = ran.stdout + ran.stderr
        told = json.loads(result.read_text())
        assert isinstance(told, dict)
        assert bool(told.get("failed")) is fails, told
        return told


@pytest.fixture
def task(collection: Path, scene: Scene) -> Task:
    return Task(collection, scene)


def options(guest: Any, volume: Volume, **more: Any) -> dict[str, Any]:
    return {"guest": guest.name(), "connection_file": str(volume.connection), **more}


def url(scene: Scene, volume: Volume) -> str:
    return f"quobyte://{scene.share.export}/{volume.file.name}"


def test_a_disk_comes_stays_and_goes(task: Task, scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    wanted = {"guest": stopped.name(), "storage": url(scene, volume), "format": "raw"}
    foreseen = task("--check", "--diff", **wanted)
    assert foreseen["changed"]
    assert foreseen["diff"]["before"] == {}
    assert foreseen["diff"]["after"]["wanted"] == "attached"
    assert scene.attachments() == {}

    made = task("--diff", **wanted)
    assert made["changed"]
    assert made["steps"] == ["connect", "attach"]
    assert made["attachment"]["seen"] == "attached"
    assert made["device"] == made["attachment"]["device"]
    assert made["diff"]["after"]["storage"] == wanted["storage"]
    assert halves(stopped, made["volume"]) == (False, True)

    for words in ((), ("--check",)):
        again = task(*words, **wanted)
        assert not again["changed"], again
        assert again["volume"] == made["volume"]
        assert again["device"] == made["device"]

    assert task("--check", **wanted, state="absent")["changed"]
    assert halves(stopped, made["volume"]) == (False, True)
    gone = task("--diff", **wanted, state="absent")
    assert gone["changed"]
    assert gone["attachment"] is None
    assert gone["diff"]["before"]["volume"] == made["volume"]
    assert scene.is_clean()
    for words in ((), ("--check",)):
        assert not task(*words, **wanted, state="absent")["changed"]


def test_a_connection_in_a_file_is_idempotent_too(task: Task, scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    assert task("--check", **options(stopped, volume))["changed"]
    assert task(**options(stopped, volume, label="web"))["volume"] == volume.id
    assert not task("--check", **options(stopped, volume))["changed"]
    again = task(**options(stopped, volume))
    assert not again["changed"]
    assert again["attachment"]["label"] == "web"
    assert task(**options(stopped, volume), state="absent")["changed"]
    assert not task(**options(stopped, volume), state="absent")["changed"]
    assert scene.is_clean()


def test_a_secret_of_a_connection_is_nowhere(task: Task, scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    connection = json.loads(volume.connection.read_text())
    connection["data"]["password"] = SECRET
    for given in (json.dumps(connection), connection):
        made = task("-vvv", guest=stopped.name(), connection=given)
        assert SECRET not in task.said
        assert made["attachment"]["seen"] == "attached"
        task(guest=stopped.name(), volume=volume.id, state="absent")
        if isinstance(given, str):
            assert made["volume"] == volume.id
            assert made["attachment"]["storage"] == url(scene, volume)
    assert scene.is_clean()


def test_what_it_is_told_of_a_volume_is_in_no_argument_list(
    task: Task, scene: Scene, stopped: Any
) -> None:
    """A URL can have a password in it, and everybody sees the arguments of a process."""
    seen = scene.directory / "arguments"
    program = scene.write("moorline.sh", f'#!/bin/sh\necho "$@" >>{seen}\nexec {PROGRAM} "$@"\n')
    program.chmod(0o755)
    volume = scene.volume()
    made = task(
        guest=stopped.name(), storage=url(scene, volume), format="raw", executable=str(program)
    )
    assert scene.share.export not in seen.read_text()
    task(guest=stopped.name(), volume=made["volume"], state="absent")
    assert scene.is_clean()


PROGRAM = Path(sys.executable).with_name("moorline")


def test_other_options_are_refused_and_change_nothing(
    task: Task, scene: Scene, stopped: Any
) -> None:
    volume = scene.volume()
    task(**options(stopped, volume))
    for words in ((), ("--check",)):
        refused = task(*words, **options(stopped, volume), bus="scsi", fails=True)
        assert refused["exit_code"] == 3
        assert refused["meaning"].startswith("refused")
        assert "bus" in refused["msg"]
        assert not refused["changed"]
    assert scene.attachments() == {volume.id: ("attached", "attached")}
    task(guest=stopped.name(), volume=volume.id, state="absent")


def test_what_is_mistyped_fails(task: Task, scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    for words in ((), ("--check",)):
        wrong = options(stopped, volume), {"storage": "/srv/no.raw", "state": "absent"}
        for each in wrong:
            unknown = task(*words, **{**each, "guest": "typo"}, fails=True)
            assert unknown["exit_code"] == 4
            assert not unknown["changed"]
    whole = "9b7a2f64-3a1c-4d0e-9d53-0c8f4c5c1d11"
    gone = {"guest": whole, "volume": volume.id, "state": "absent"}
    assert not task(**gone)["changed"]
    task(guest=stopped.name(), state="present", fails=True)
    task(guest="$HOME", volume=volume.id, state="absent", fails=True)


def test_what_hangs_is_told_kept_and_gone_on_with(task: Task, scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.share.command(fail={"code": 1, "stderr": "no registry answers"})
    failed = task(**options(stopped, volume), timeout=3, fails=True)
    assert failed["exit_code"] == 5
    assert failed["changed"], "it was recorded"
    assert "is kept" in failed["meaning"]
    again = task(**options(stopped, volume), timeout=3, fails=True)
    assert not again["changed"]
    scene.share.command()
    assert task(**options(stopped, volume))["changed"]
    task(guest=stopped.name(), volume=volume.id, state="absent")
    assert scene.is_clean()


def test_a_disk_that_somebody_else_plugged_is_not_absent(
    task: Task, scene: Scene, stopped: Any
) -> None:
    file = scene.directory / "by-hand.raw"
    file.write_bytes(bytes(1 << 20))
    stopped.attachDeviceFlags(
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{file}'/>"
        "<target dev='vdz' bus='virtio'/></disk>",
        2,
    )
    there = task(guest=stopped.name(), storage=str(file), state="absent", fails=True)
    assert there["exit_code"] == 7
    assert not there["changed"]


def test_with_an_agent_and_without_waiting(
    task: Task, scene: Scene, stopped: Any, moorline: Moorline
) -> None:
    volume = scene.volume()
    agent = Agent(moorline, scene.directory / "log")
    try:
        left = task(**options(stopped, volume), wait=False)
        assert left["changed"]
        assert left["attachment"]["wanted"] == "attached"
        moorline("wait", volume.id, "--for", "attached", "--timeout", "60")
        assert not task(**options(stopped, volume), wait=False)["changed"]
        going = task(guest=stopped.name(), volume=volume.id, state="absent", wait=False)
        assert going["changed"]
        moorline("wait", volume.id, "--for", "detached", "--timeout", "60")
        assert not task(guest=stopped.name(), volume=volume.id, state="absent")["changed"]
    finally:
        agent.stop()
    assert scene.is_clean()


def test_its_pages_are_rendered_and_say_what_there_is(collection: Path) -> None:
    told = json.loads(ansible(collection, "doc", "--json", "-t", "module", MODULE).stdout)[MODULE]
    shown = told["doc"]["options"]
    plugins = collection / "ansible_collections/moorline/moorline/plugins"
    source: dict[str, Any] = {"__name__": "module"}
    exec((plugins / "module_utils/command.py").read_text(), source)
    text = (plugins / "modules/moorline_attachment.py").read_text()
    exec(text[text.index("SOURCES = ") : text.index("class Attachment:")], source)
    assert shown.keys() == source["SPEC"].keys()
    for name, spec in source["SPEC"].items():
        for key in ("type", "choices", "default", "elements", "required"):
            assert shown[name].get(key) == spec.get(key), (name, key)
    assert told["examples"]
    assert told["return"]["attachment"]
    page = (ROOT / "docs/reference.md").read_text()
    for code in source["MEANINGS"]:
        assert f"\n| {code} |" in page
    role = ansible(collection, "doc", "--json", "-t", "role", "moorline.moorline.host")
    variables = json.loads(role.stdout)["moorline.moorline.host"]["entry_points"]["main"]["options"]
    defaults = (COLLECTION / "roles/host/defaults/main.yml").read_text()
    assert variables.keys() == {
        line.partition(":")[0] for line in defaults.splitlines() if line.startswith("moorline_")
    }
