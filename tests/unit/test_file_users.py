"""Whose files are compared: only a share on which the file may lie is asked for anything."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from moorline import wiring
from moorline.core.file_clashes import FileClashes
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Refused
from moorline.installed import InstalledBackends
from moorline.model import ImageFile, Level, Link
from moorline.ports import Mounting, Sharing
from moorline.testing.toy_host import ToyHost, ToyShare
from moorline.testing.toys import BASE, ToyExport, ToyHypervisor
from moorline.testing.toys import ToyShare as ToyExports
from tests.support.rig import Rig

SHARES = 20


class Asked(ToyExports):
    """Notes which shares are looked at."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.world)
        self.shares: list[str] = []

    def mounted(self, c: ToyExport) -> bool:
        return self.link_name(c) in self._world.mounts

    def inspect(self, c: ToyExport) -> Link:
        self.shares.append(c.share)
        return super().inspect(c)


def test_one_of_many_shares_is_compared_with_those_that_may_have_its_file() -> None:
    """Otherwise twenty attaches at once have four hundred looks, and a hung share many waits."""
    rig = Rig("g1")
    host = ToyHost()
    for n in range(SHARES):
        rig.attachment(f"v{n}", "g1", Level.CONNECTED, share=f"s{n}")
        source = "server:/1" if n in (1, 2) else f"server:/{n}"
        host.mount(
            source, str(BASE / f"s{n}"), "nfs4", ToyShare(files=frozenset({"v0", "v1", "v2"}))
        )
    rig.settle()
    asked = Asked(rig)
    survey = Reconciler(rig.records, {"toy": asked}, ToyHypervisor(rig.world), Locks()).survey()
    clashes = FileClashes(host)
    compare = partial(clashes.refuse_others, everyone=clashes.look(survey))

    row = next(row for row in rig.records.all() if row.key.volume == "v0")
    compare(row, ImageFile(BASE / "s0/v0", "raw"))
    assert asked.shares == []
    row = next(row for row in rig.records.all() if row.key.volume == "v1")
    with pytest.raises(Refused):
        compare(row, ImageFile(BASE / "s1/v2", "raw"))
    assert set(asked.shares) == {"s2"}


def test_a_share_that_is_being_mounted_is_not_asked_why_it_does_not_work_yet() -> None:
    """That is told from the table of processes, which takes long on a host with many."""
    rig = Rig("g1")
    for n in range(SHARES):
        rig.attachment(f"v{n}", "g1", Level.CONNECTED, share=f"s{n}")
    asked = Asked(rig)
    reconciler = Reconciler(rig.records, {"toy": asked}, ToyHypervisor(rig.world), Locks())
    host = ToyHost()
    host.mount("/dev/vda1", "/", "ext4", ToyShare(files=frozenset({"v0"})))
    clashes = FileClashes(host)
    row = next(row for row in rig.records.all() if row.key.volume == "v0")
    clashes.refuse_others(row, ImageFile(Path("/v0"), "raw"), clashes.look(reconciler.survey()))
    assert asked.shares == []


def test_whoever_has_shares_tells_whether_one_is_mounted() -> None:
    backends = InstalledBackends(ToyHost(), wiring.settings([]).values)
    shares = {kind for kind in backends if isinstance(backends[kind], Sharing)}
    assert {"quobyte", "vzstorage", "nfs"} <= shares
    assert {kind for kind in shares if not isinstance(backends[kind], Mounting)} == set()
