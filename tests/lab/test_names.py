"""What people call a volume, on real guests: exit 0 is never said of a slip."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scene import Scene, halves, small_guest

from lab.agent import Agent
from lab.command import Moorline

GONE = "77777777-1111-4222-8333-abcdefabcdef"


@pytest.fixture(params=["alone", "with an agent"])
def moorline(lab: Path, request: pytest.FixtureRequest) -> Iterator[Moorline]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="state-") as directory:
        Path(directory).chmod(0o755)
        command = Moorline(Path(directory) / "moorline")
        agent = Agent(command, Path(directory) / "log") if request.param != "alone" else None
        yield command
        if agent:
            agent.stop()


@pytest.fixture
def other(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, "small2") as domain:
        yield domain


def test_slips_change_nothing_and_devices_are_known(scene: Scene, stopped: Any, other: Any) -> None:
    name = stopped.name()
    mine, theirs = scene.volume("mine.raw"), scene.volume("theirs.raw")
    scene.attach(name, mine)
    scene.attach(other.name(), theirs)
    (row,) = (row for row in scene.moorline.json("list") if row["volume"] == mine.id)
    assert row["device"] == "vda"
    url = f"quobyte://{scene.share.export}"
    slips = ["vdb", mine.id[:3], theirs.id[:8], f"{url}/theirs.raw", f"{url}/mistyped.raw", "./x"]
    for slip in [*slips, "/srv/mistyped.raw", mine.id.replace("-", "")]:
        for verb in ("detach", "extend", "release"):
            said = scene.moorline(verb, name, slip, code=4).stderr
            assert "hint: moorline list" in said or "wanted on" in said
    for verb in ("show", "explain", "forget"):
        for slip in ("vda", mine.id[:3], GONE):
            scene.moorline(verb, slip, code=4)
    for slip in ("vda", mine.id[:3], GONE):
        scene.moorline("events", "--volume", slip, code=4)
    assert scene.moorline.json("events", "--volume", mine.id[:8].upper())[0]["volume"] == mine.id
    scene.moorline("remove", "web-mistyped", code=4)
    for absent in (GONE, GONE.upper()):
        assert scene.moorline.json("remove", absent) is None
        assert scene.moorline.json("detach", absent, mine.id) is None
    scene.moorline("detach", name, "", code=3)
    for absent in (GONE, GONE.upper(), theirs.id):
        assert "is no disk of" in scene.moorline("detach", name, absent).stdout
    assert halves(stopped, mine)[1]
    assert halves(other, theirs)[1]
    assert scene.moorline.json("show", mine.id[:8].upper())[0]["volume"] == mine.id
    scene.moorline("detach", name, "vda")
    scene.moorline("detach", other.name(), theirs.id.upper())
    assert not halves(stopped, mine)[1]
    assert scene.is_clean()


def test_a_released_disk_goes_by_its_device(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    for name in (volume.id[:8], "vda"):
        scene.attach(stopped.name(), volume)
        scene.moorline("release", stopped.name(), volume.id)
        scene.moorline("detach", stopped.name(), "vdb", code=4)
        scene.moorline("detach", stopped.name(), name)
        assert not halves(stopped, volume)[1]
    scene.moorline("repair")
    assert scene.is_clean()
