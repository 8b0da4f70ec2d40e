"""A guest, volume or share that is not there: which exit code, whatever argument names it.

Exit 0 is said of a whole id that is gone and was to be taken away, never of what may be a slip.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moorline.care.eventlog import EventLog
from moorline.cli.commands import main

GONE = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
FILE = "disk.raw"
"""An image that the runner makes, in its current directory."""

# (command, parameter): the words before and after what is named.
PLACES: dict[tuple[str, str], tuple[list[str], list[str]]] = {
    ("abort", "mount_point"): (["abort"], []),
    ("adopt", "guest"): (["adopt"], []),
    ("attach", "guest"): (["attach"], [FILE, "--format", "raw"]),
    ("detach", "guest"): (["detach"], [GONE]),
    ("detach", "volume"): (["detach", "test"], []),
    ("disks", "guest"): (["disks"], []),
    ("events", "volume"): (["events", "--volume"], []),
    ("events", "guest"): (["events", "--guest"], []),
    ("explain", "volume"): (["explain"], []),
    ("explain", "guest"): (["explain", GONE, "--guest"], []),
    ("set", "guest"): (["set"], [GONE, "--iops", "5"]),
    ("set", "volume"): (["set", "test"], ["--iops", "5"]),
    ("extend", "guest"): (["extend"], [GONE]),
    ("extend", "volume"): (["extend", "test"], []),
    ("forget", "guest"): (["forget", GONE, "--guest"], []),
    ("forget", "volume"): (["forget"], []),
    ("release", "guest"): (["release"], [GONE]),
    ("release", "volume"): (["release", "test"], []),
    ("remove", "guest"): (["remove"], []),
    ("list", "guest"): (["list"], []),
    ("list", "share"): (["list", "--share"], []),
    ("export", "guest"): (["export"], []),
    ("show", "volume"): (["show"], []),
    ("wait", "volume"): (["wait"], []),
    ("wait", "guest"): (["wait", GONE, "--guest"], []),
    ("show", "guest"): (["show", GONE, "--guest"], []),
    ("start", "guest"): (["start"], []),
}
ELSEWHERE = {
    # An order to a fleet, which its controller's tests tell of.
    ("fleet attach", "guest"),
    ("fleet attach", "volume"),
    ("fleet detach", "guest"),
    ("fleet detach", "volume"),
    ("fleet events", "guest"),
    ("fleet events", "volume"),
    ("fleet list", "guest"),
    ("fleet migrate", "guest"),
    ("fleet show", "volume"),
    # They name what shall be, not what is there.
    ("attach", "volume"),
    ("adopt", "volume"),
    # Of a vCenter's, told in the tests of that: libvirt's guests lie on no datastore.
    ("relocate", "datastore"),
    ("relocate", "guest"),
    ("relocate", "volume"),
}
SLIPS = ("nobody", "3f2a", "3f2a9c4e-1111", "/srv/mistyped.raw", "local:///mistyped")
# Undone already: only where the guest, or the volume of a guest, was looked for and is not there.
GONE_IS_SUCCESS = {("detach", "guest"), ("detach", "volume"), ("remove", "guest")}


def _named(group: click.Group, before: str = "") -> Iterator[tuple[str, str]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _named(command, f"{name} ")
        for parameter in command.params:
            if parameter.name in {"guest", "volume", "datastore", "mount_point", "share"}:
                yield before + name, parameter.name


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    Path(FILE).write_bytes(bytes(1 << 20))
    return CliRunner(
        env={"MOORLINE_STATE_DIR": str(tmp_path), "MOORLINE_HYPERVISOR": "test:///default"}
    )


def test_the_table_has_every_argument_that_names_something() -> None:
    assert set(_named(main)) == PLACES.keys() | ELSEWHERE


@pytest.mark.parametrize("place", PLACES, ids="-".join)
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_no_success(runner: CliRunner, place: tuple[str, str], slip: str) -> None:
    before, after = PLACES[place]
    done = runner.invoke(main, [*before, slip, *after, "--output", "json"])
    assert (done.exit_code, done.stdout) == (4, ""), done.output
    told = json.loads(done.stderr)
    assert told["error"] == "notfound"
    assert told["hint"]


@pytest.mark.parametrize("place", PLACES, ids="-".join)
@pytest.mark.parametrize("id", [GONE, GONE.upper()])
def test_a_whole_id_that_is_gone_is_undone(
    runner: CliRunner, place: tuple[str, str], id: str
) -> None:
    before, after = PLACES[place]
    done = runner.invoke(main, [*before, id, *after])
    assert done.exit_code == (0 if place in GONE_IS_SUCCESS else 4), done.output


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_a_variable_that_was_not_set_is_no_success(
    runner: CliRunner, place: tuple[str, str]
) -> None:
    before, after = PLACES[place]
    done = runner.invoke(main, [*before, "", *after])
    assert done.exit_code == 3
    assert re.match(r"moorline: '.+' is empty\n", done.stderr), done.stderr


@pytest.mark.parametrize("command", ["show", "explain", "forget"])
def test_who_names_a_guest_or_a_device_for_a_volume_is_told_how(
    runner: CliRunner, tmp_path_factory: pytest.TempPathFactory, command: str
) -> None:
    image = tmp_path_factory.mktemp("elsewhere") / "disk.raw"  # beneath a state directory is none
    image.write_bytes(bytes(1 << 20))
    attach = ["attach", "test", str(image), "--format", "raw", "--level", "connected"]
    assert runner.invoke(main, attach).exit_code == 0
    told = runner.invoke(main, [command, "test"]).stderr
    assert "test is a guest: moorline list test" in told
    assert "(--guest)" in runner.invoke(main, [command, "vda"]).stderr


def test_a_near_name_is_told_to_who_removes(runner: CliRunner) -> None:
    done = runner.invoke(main, ["remove", "tset"])
    assert done.exit_code == 4
    assert "did you mean test?" in done.stderr


def test_events_of_a_volume_that_is_no_longer_wanted(runner: CliRunner, tmp_path: Path) -> None:
    event_log = EventLog(tmp_path)
    for volume in (GONE, f"3f2a0000{GONE[8:]}"):
        event_log.saw("released", volume=volume, guest="web01")
    for name in (GONE, GONE.upper(), GONE[:8], GONE[:8].upper()):
        done = runner.invoke(main, ["events", "--volume", name])
        assert len(done.stdout.splitlines()) == 1, name
    assert runner.invoke(main, ["events", "--volume", "3f2a"]).exit_code == 3  # it can be both
    late = runner.invoke(main, ["events", "--volume", GONE, "--since", "2120-01-31"])
    assert (late.exit_code, late.stdout) == (0, "")
