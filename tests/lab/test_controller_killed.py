"""The loop is killed before and after every effect that it has; the next one goes on with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loop import running_loop
from scene import Scene, Volume, halves, small_guest

from moorline import config, wiring
from moorline.core.records import Records
from moorline.model import Attachment, Level
from moorline.stores.codec import Codec
from moorline.stores.sqlite import SqliteStore
from moorline.testing.faults import Fault

OWNER = Path(__file__).with_name("owner.py")
KILLED = -9
MOST = 9


@contextmanager
def opened(state: Path) -> Iterator[Records]:
    """The attachments, while nobody owns the host."""
    store = SqliteStore(state / "moorline.db")
    try:
        name = config.host_name(wiring.settings(state_dir=state))
        yield Records(store, Codec.from_file(state / "key"), name)
    finally:
        store.close()


def attachment(state: Path, rows: list[Attachment], want: Level) -> None:
    """Acknowledge attachments for which nothing has been done yet."""
    with opened(state) as records:
        for row in rows:
            now = records.get(row.key)
            records.put(replace(row, want=want, revision=now.revision if now else 0))


def killed(state: Path, at: int, fault: Fault) -> bool:
    """Run the loop to its effect number *at*; False if it has fewer."""
    given = {
        "action": "keep",
        "guest": "",
        "what": None,
        "state": str(state),
        "at": at,
        "fault": fault.name,
    }
    words = [sys.executable, str(OWNER), json.dumps(given)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode in (0, KILLED), ran.stderr
    return ran.returncode == KILLED


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
def test_the_next_loop_finishes_what_a_killed_one_began(
    scene: Scene, libvirt_conn: Any, fault: Fault, record_property: Any
) -> None:
    """Two guests want a volume of the same share, and then want them no more."""
    state = scene.directory / "moorline"
    volumes = [scene.volume(), scene.volume()]
    with small_guest(libvirt_conn, "k0") as first, small_guest(libvirt_conn, "k1") as second:
        domains = [first, second]
        rows = first_attachments(scene, domains, volumes)
        points = {Level.ATTACHED: 0, Level.ABSENT: 0}
        for at in range(MOST):
            before = sum(points.values())
            for want in points:
                attachment(state, rows, want)
                points[want] += killed(state, at, fault)
                with running_loop(scene) as loop:
                    loop.settles()
                for domain, volume in zip(domains, volumes, strict=True):
                    assert halves(domain, volume) == (False, want is Level.ATTACHED)
                assert len(scene.mounts()) == (want is Level.ATTACHED)
                with opened(state) as records:
                    assert len(records.all()) == 2 * (want is Level.ATTACHED)
                    assert not records.troubles()
            if sum(points.values()) == before:
                break
        else:
            pytest.fail(f"the loop has more than {MOST} effects")
    record_property("loop_crash_points", {want.name: number for want, number in points.items()})
    assert points[Level.ATTACHED] >= 3  # a mount, two disks
    assert points[Level.ABSENT] >= 5  # two disks, an unmount, two attachments that are forgotten
    assert scene.is_clean()


def first_attachments(scene: Scene, domains: list[Any], volumes: list[Volume]) -> list[Attachment]:
    """The attachments as the façade makes them; nothing is left of them on the host."""
    with running_loop(scene) as loop:
        for domain, volume in zip(domains, volumes, strict=True):
            loop.attach(domain, volume)
        with opened(scene.directory / "moorline") as records:
            rows = records.all()
        for domain, volume in zip(domains, volumes, strict=True):
            loop.detach(domain, volume)
    return rows
