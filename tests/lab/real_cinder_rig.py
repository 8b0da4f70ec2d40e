"""The real keystone and Cinder: volumes of theirs, and whether they agree with a guest."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scene import halves

from lab.cinder.real import NOTHING, SHARE, VENV, RealCloud, real_cloud
from lab.quobyte.cluster import Quobyte


@contextmanager
def cinder(lab: Path, more: Mapping[str, str] = NOTHING) -> Iterator[RealCloud]:
    """With its Quobyte driver, and *more*."""
    if not VENV.name:
        pytest.skip("Cinder is not installed here: run `make test-cinder`")
    cluster = Quobyte(lab)
    share = cluster.volume(SHARE)
    with tempfile.TemporaryDirectory(dir=lab, prefix="cinder-") as at:
        Path(at).chmod(0o755)
        with real_cloud(Path(at), share.export, more) as made:
            yield made
    cluster.clear()


@contextmanager
def a_volume(cloud: RealCloud, kind: str | None = None) -> Iterator[CinderVolume]:
    """One that is deleted in the end, whoever has it. *kind*: its type."""
    try:
        made = CinderVolume(cloud, kind)
    except Exception as e:
        raise AssertionError(cloud.log()) from e
    yield made
    made.delete()


class CinderVolume:
    """One of Cinder's, as it says itself."""

    def __init__(self, cloud: RealCloud, kind: str | None = None) -> None:
        self._cloud = cloud
        self._storage = cloud.connect().block_storage
        self._admin = cloud.connect("admin", "admin").block_storage
        type = {"volume_type": kind} if kind else {}
        made = self._storage.create_volume(name="data", size=1, **type)
        self.id: str = made.id
        end = time.monotonic() + 120
        while self.status != "available":
            assert time.monotonic() < end, self.status
            time.sleep(0.1)

    @property
    def status(self) -> str:
        return str(self._storage.get_volume(self.id).status)

    @property
    def gib(self) -> int:
        return int(self._storage.get_volume(self.id).size)

    def extend(self, gib: int) -> None:
        """As who owns it does, while nobody has it."""
        self._storage.extend_volume(self.id, gib)
        end = time.monotonic() + 60
        while (self.status, self.gib) != ("available", gib):
            assert time.monotonic() < end, (self.status, self.gib)
            time.sleep(0.1)

    def attachments(self) -> list[Any]:
        found = self._storage.get("/attachments/detail", params={"volume_id": self.id}, **_NEWEST)
        return list(found.json()["attachments"])

    def delete(self) -> None:
        """As an administrator does it, whoever has it."""
        reset = {"status": "available", "attach_status": "detached"}
        self.act("os-reset_status", reset)
        self.act("os-force_delete", {})
        end = time.monotonic() + 60
        while told := self._told():
            assert time.monotonic() < end, f"{told}\n{self._cloud.log()}"
            time.sleep(0.1)

    def act(self, action: str, how: dict[str, str]) -> None:
        if self._told() is not None:
            path = f"/volumes/{self.id}/action"
            answer = self._admin.post(path, json={action: how}, **_NEWEST)
            assert answer.status_code == 202, answer.text

    def _told(self) -> Any:
        answer = self._admin.get(f"/volumes/{self.id}", **_NEWEST)
        return None if answer.status_code == 404 else answer.json()


_NEWEST = {"microversion": "3.44"}


def is_attached(volume: CinderVolume, domain: Any) -> bool:
    """Whether both sides say so; asserts that they agree, and that nothing is doubled."""
    here = halves(domain, volume.id) == (False, True)
    assert [each["instance"] for each in volume.attachments()] == [domain.UUIDString()] * here
    assert [each["status"] for each in volume.attachments()] == ["attached"] * here
    assert volume.status == ("in-use" if here else "available")
    return here
