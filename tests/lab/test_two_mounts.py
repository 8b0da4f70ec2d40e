"""One file by two mounts of its share, which share neither a device nor a path."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scene import Scene, small_guest

from lab.command import Moorline


@pytest.fixture
def second(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, "second") as domain:
        yield domain


@pytest.fixture(params=["one state", "two states"])
def other(scene: Scene, request: pytest.FixtureRequest) -> Moorline:
    """Who attaches the file the second time."""
    return scene.moorline if request.param == "one state" else Moorline(scene.directory / "other")


def connection(kind: str, export: str, name: str) -> dict[str, Any]:
    data = {"export": export, "name": name, "format": "raw", "volume_id": str(uuid.uuid4())}
    return {"driver_volume_type": kind, "data": data}


def demand_refused(
    scene: Scene,
    other: Moorline,
    guests: tuple[Any, Any],
    mine: dict[str, Any],
    its: dict[str, Any],
) -> None:
    first, second = guests
    scene.moorline("attach", first.name(), "--connection", str(scene.write("mine.json", mine)))
    for level in ("attached", "connected"):
        again = ("--connection", str(scene.write("its.json", its)), "--level", level)
        said = other("attach", second.name(), *again, code=3).stderr
        assert first.name() in said
    assert its["data"]["volume_id"] not in second.XMLDesc(2)
    other("detach", second.name(), its["data"]["volume_id"])
    scene.moorline("detach", first.name(), mine["data"]["volume_id"])
    other("attach", second.name(), "--connection", str(scene.directory / "its.json"))
    other("detach", second.name(), its["data"]["volume_id"])
    assert scene.is_clean()


def test_a_hard_link_by_another_registry_of_a_quobyte_volume(
    scene: Scene, stopped: Any, second: Any, other: Moorline
) -> None:
    disk = scene.share.disk("disk.raw")
    disk.chmod(0o666)
    os.link(disk, disk.with_name("link.raw"))
    mine, its = (
        connection("quobyte", f"{registry}/{scene.share.name}", name)
        for registry, name in (("reg1", "disk.raw"), ("reg2", "link.raw"))
    )
    demand_refused(scene, other, (stopped, second), mine, its)


def test_a_directory_of_a_glusterfs_volume(
    scene: Scene, stopped: Any, second: Any, other: Moorline, lab: Path
) -> None:
    filer = lab / "mounted"
    (filer / "vol/a").mkdir(parents=True)
    shares = {"g1:/vol": {"directory": "vol"}, "g1:/vol/a": {"directory": "vol/a"}}
    (filer / "shares.json").write_text(json.dumps(shares))
    (filer / "calls.jsonl").touch()
    try:
        disk = filer / "vol/a/disk.raw"
        disk.write_bytes(bytes(1 << 20))
        disk.chmod(0o666)
        mine = connection("glusterfs", "g1:/vol", "a/disk.raw")
        its = connection("glusterfs", "g1:/vol/a", "disk.raw")
        demand_refused(scene, other, (stopped, second), mine, its)
    finally:
        shutil.rmtree(filer)
