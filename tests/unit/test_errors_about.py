"""What an error in JSON is about: its volume and its guest, however they were typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from moorline.cli.commands import main

ID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
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
    ],
)
def test_an_error_says_which(
    runner: CliRunner, words: tuple[str, ...], volume: str, guest: str
) -> None:
    done = runner.invoke(main, [*words, "--output", "json"])
    assert done.exit_code, done.output
    told = json.loads(done.stderr)
    assert (told["volume"], told["guest"]) == (volume, guest)
