"""What an error in JSON is about: its volume and its guest, however they were typed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from moorline.api import Moorline
from moorline.cli.commands import main
from moorline.cli.common import Common, common
from moorline.errors import MoorlineError
from moorline.model import GuestId, Level
from tests.support.rig import Rig, connection

ID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
GUEST_ID = "6695eb01-f6a4-8304-79aa-000000000001"
OTHER = "aaaa9c4e-1111-4222-8333-abcdefabcdef"
GUEST = (
    "<domain type='test'><name>web0{0}</name><uuid>6695eb01-f6a4-8304-79aa-00000000000{0}</uuid>"
    "<memory>8192</memory><os><type>hvm</type></os></domain>"
)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    Path("a.raw").write_bytes(bytes(1 << 20))
    Path("node.xml").write_text(f"<node>{GUEST.format(1)}{GUEST.format(2)}</node>")
    for id, name in ((ID, "a"), (OTHER, "gone")):
        data = {"path": str(tmp_path / f"{name}.raw"), "format": "raw", "volume_id": id}
        Path(f"{name}.json").write_text(json.dumps({"driver_volume_type": "local", "data": data}))
    state, uri = str(tmp_path / "s"), f"test://{tmp_path}/node.xml"
    runner = CliRunner(env={"MOORLINE_STATE_DIR": state, "MOORLINE_HYPERVISOR": uri})
    done = runner.invoke(main, ["attach", "web01", "--connection", "a.json", *CONNECTED])
    assert done.exit_code == 0, done.output
    return runner


CONNECTED = ("--level", "connected")


@pytest.mark.parametrize(
    ("words", "volume", "guest"),
    [
        (("attach", "web02", "--connection", "a.json", *CONNECTED), ID, "web02"),
        (("attach", "web02", "a.raw", "--format", "raw", *CONNECTED), ID, "web02"),
        (("attach", "web02", "--connection", "gone.json", *CONNECTED, "--dry-run"), OTHER, "web02"),
        (("extend", "web02", ID), ID, "web02"),
        (("show", ID, "--guest", "web02"), ID, "web02"),
        (("launch", "web01", "--boot", "a.raw", "--format", "raw"), "", "web01"),
        (("set", "web01", "3F2A"), ID, "web01"),
        (("extend", GUEST_ID, "./a.raw", "1"), ID, "web01"),
        (("wait", "3f2a", "--timeout", "0"), ID, "web01"),
        (("wait", "./a.raw", "--timeout", "0"), ID, "web01"),
        (("wait", "aaaa", "--timeout", "0"), "aaaa", ""),
    ],
)
def test_an_error_says_which(
    runner: CliRunner, words: tuple[str, ...], volume: str, guest: str
) -> None:
    done = runner.invoke(main, [*words, "--output", "json"])
    assert done.exit_code, done.output
    told = json.loads(done.stderr)
    assert (told["volume"], told["guest"]) == (volume, guest)


@pytest.mark.parametrize(
    "call",
    [
        lambda owner: owner.attachments.forget(ID[:4]),
        lambda owner: owner.attachments.forget(ID[:6], "g1", dry_run=True),
        lambda owner: owner.attachments.detach("g1", ID[:4], timeout=0),
        lambda owner: owner.attachments.extend("g1", ID[:4], 1),
    ],
)
def test_an_error_says_which_volume_was_meant_by_the_beginning(
    call: Callable[[Moorline], object],
) -> None:
    rig = Rig("g1")
    rig.owner().attachments.attach("g1", connection("a", volume=ID), level=Level.ATTACHED)
    rig.world.guests[GuestId("g1")].deaf = True
    with pytest.raises(MoorlineError) as told:
        call(rig.owner())
    assert (told.value.volume, told.value.guest) == (ID, "g1")


def test_a_wait_is_recorded_as_what_its_caller_is_told() -> None:
    """It was called uncertain in the events: of what was not begun nothing may have happened."""
    rig = Rig("g1")
    rig.owner().attachments.attach("g1", connection("a"), level=Level.ATTACHED)
    rig.world.hung.add("s1")
    with pytest.raises(MoorlineError) as told:
        rig.owner().attachments.detach("g1", "a", timeout=0.1)
    (trouble,) = rig.records.troubles().values()
    assert trouble.error == told.value.kind == "failed"


@click.command("work")
@common
def work(given: Common) -> None:
    """Take a while, and end as nobody expected."""
    given.progress("it goes on")
    time.sleep(1.2)
    given.warn("something is odd")
    raise KeyboardInterrupt


def test_all_that_is_told_to_programs_can_be_parsed() -> None:
    lines = CliRunner().invoke(work, ["--output", "json"]).stderr
    note, _, error = lines.partition("\n")
    assert json.loads(note) == {"note": "something is odd"}
    assert json.loads(error)["code"] == 130
    told = [*yaml.safe_load_all(CliRunner().invoke(work, ["--output", "yaml"]).stderr)]
    assert told[0] == {"note": "something is odd"}
    assert told[-1]["error"] == "interrupted"
    assert "… it goes on" in CliRunner().invoke(work).stderr
