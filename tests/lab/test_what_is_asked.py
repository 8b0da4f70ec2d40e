"""How often libvirt, a share and the store are asked by an attach and by a detach: exact counts.

What each question is for stands in docs/performance.md. Whoever needs one more writes it there.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import pytest
from libvirt_rig import until
from scene import Scene, small_guest

from lab.guest import Guest
from moorline import wiring
from moorline.api import Moorline

LOCAL = frozenset({"connect", "name", "UUID", "UUIDString", "ID", "isAlive", "c_pointer", "close"})
"""Methods of libvirt's binding for which libvirtd is not asked."""
SETTLED_SECONDS = 0.05
"""After so many seconds what libvirtd saved of a guest tells that nothing changed since."""
LOOK = Counter({"XMLDesc": 2, "isPersistent": 1})
"""At a guest that runs."""


@dataclass
class Asked:
    """What was asked meanwhile."""

    libvirt: Counter[str] = field(default_factory=Counter)
    share: int = 0
    commits: int = 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls to libvirtd, by their names."""
    made: Counter[str] = Counter()

    def count(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def counted(self: Any, *args: Any) -> Any:
            made[name] += 1
            return real(self, *args)

        monkeypatch.setattr(kind, name, counted)

    for kind in (libvirt.virConnect, libvirt.virDomain):
        for name, method in vars(kind).items():
            if callable(method) and not name.startswith("_") and name not in LOCAL:
                count(kind, name)
    return made


def answers() -> int:
    """How often children of ours that look at shares have answered.

    Each has written once that it is ready, and twice for each question: that it begins to look,
    and the answer.
    """
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and (process / "comm").read_text() == "moorline-look\n":
                facts = dict(line.split(": ") for line in (process / "io").read_text().splitlines())
                total += int(facts["syscw"]) // 2
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return total


def revision(scene: Scene) -> int:
    """How many commits the store has had."""
    database = f"file:{scene.directory}/moorline/moorline.db?mode=ro"
    with closing(sqlite3.connect(database, uri=True)) as store:
        return int(store.execute("select value from counter where name='revision'").fetchone()[0])


@contextmanager
def counted(scene: Scene, calls: Counter[str]) -> Iterator[Asked]:
    asked = Asked()
    calls.clear()
    share, commits = answers(), revision(scene)
    yield asked
    asked.libvirt = Counter(calls)
    asked.share, asked.commits = answers() - share, revision(scene) - commits


def survey(guests: Sequence[Any], *, afresh: bool = False) -> Counter[str]:
    """A look at all guests: at both definitions of those that have two.

    One that is taken afresh asks which of them an error paused, too.
    """
    running = [guest for guest in guests if guest.isActive()]
    both = sum(bool(guest.isPersistent()) for guest in running)
    lists = 1 + bool(running) * (2 if afresh else 1) + 2 * (len(running) < len(guests))
    return Counter({"listAllDomains": lists, "XMLDesc": len(guests) + both})


@pytest.fixture
def owner(scene: Scene) -> Iterator[Moorline]:
    with wiring.open_host(wiring.settings(state_dir=scene.directory / "moorline")) as moorline:
        yield moorline


def test_an_attach_and_a_detach_while_the_link_is_up(
    scene: Scene, guest: Guest, owner: Moorline, libvirt_conn: Any, calls: Counter[str]
) -> None:
    guests = libvirt_conn.listAllDomains()
    keeper, volume = scene.volume(), scene.volume()
    attach = lambda: owner.attachments.attach(  # noqa: E731
        guest.name, json.loads(volume.connection.read_text())
    )
    owner.attachments.attach(guest.name, json.loads(keeper.connection.read_text()))
    for _ in range(2):  # all that is looked up once is known, and events are listened to
        attach()
        guest.wait_for(volume.id)
        owner.attachments.detach(guest.name, volume.id)
    until(lambda: calls["setKeepAlive"])
    time.sleep(SETTLED_SECONDS)

    with counted(scene, calls) as asked:
        attach()
    # Who there is. What they have, their files say: that of the guest itself was just looked at.
    everyone = Counter(listAllDomains=1)
    assert all(each.isActive() for each in guests)
    assert asked.libvirt == Counter(lookupByName=1, attachDeviceFlags=1) + LOOK + everyone + LOOK
    # The root of the share and the image; what lies beside it; whether QEMU could open it; the
    # root again, afterwards; and where what else guests name leads.
    assert (asked.share, asked.commits) == (5, 1)

    guest.wait_for(volume.id)
    with counted(scene, calls) as asked:
        owner.attachments.detach(guest.name, volume.id)
    polls = asked.libvirt["XMLDesc"] - 10
    assert polls > 0, "the guest is asked whether it has let go"
    looks = Counter(XMLDesc=10 + polls, isPersistent=5)
    # At last whether the guest has it by somebody else's doing.
    others = Counter(lookupByUUIDString=1)
    # Whether a block job has the disk; and whether its file still has its name.
    assert asked.libvirt == looks + others + Counter(detachDeviceAlias=2, blockJobInfo=1)
    assert (asked.share, asked.commits) == (3, 2)
    owner.attachments.detach(guest.name, keeper.id)
    assert scene.is_clean()


def test_the_first_and_the_last_of_a_share(
    scene: Scene, owner: Moorline, libvirt_conn: Any, calls: Counter[str]
) -> None:
    volume = scene.volume()
    connection = json.loads(volume.connection.read_text())
    with small_guest(libvirt_conn, "stopped") as domain:
        owner.attachments.attach(domain.name(), connection)
        owner.attachments.detach(domain.name(), volume.id)
        every = libvirt_conn.listAllDomains()
        look = Counter(XMLDesc=1, hasManagedSaveImage=1)

        with counted(scene, calls) as asked:
            owner.attachments.attach(domain.name(), connection)
        assert asked.libvirt == sum_of(
            Counter(lookupByName=1, attachDeviceFlags=1), *[look] * 4, survey(every)
        )
        with counted(scene, calls) as asked:
            owner.attachments.detach(domain.name(), volume.id)
        others = Counter(lookupByUUIDString=1, XMLDesc=1)
        assert asked.libvirt == sum_of(
            Counter(detachDeviceAlias=1), *[look] * 5, survey(every, afresh=True), others
        )
        assert asked.commits == 2
    assert scene.is_clean()


def sum_of(*counts: Counter[str]) -> Counter[str]:
    return sum(counts, Counter())
