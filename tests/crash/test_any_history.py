"""Random histories: attachments, kills, faults, and people and machines that interfere.

``MOORLINE_HISTORIES`` says how many.
"""

from __future__ import annotations

import os
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from moorline.errors import NotFound
from moorline.model import DiskOptions, GuestId, Level, VolumeId
from moorline.testing.faults import Fault
from moorline.testing.toys import BASE
from tests.support.rig import Rig

HISTORIES = int(os.environ.get("MOORLINE_HISTORIES") or 2000)
VOLUMES = {"a": "s1", "b": "s1", "c": "s2"}
GUESTS = ("g1", "g2")
volumes = st.sampled_from(sorted(VOLUMES))
guests = st.sampled_from(GUESTS)
shares = st.sampled_from(["s1", "s2"])
faults = st.lists(st.tuples(st.integers(0, 8), st.sampled_from(Fault)), max_size=2)

COUNTS: Counter[str] = Counter()


class AnyHistory(RuleBasedStateMachine):
    """After any history, once the world is healed, exactly what was acknowledged is there."""

    @initialize()
    def begin(self) -> None:
        self.rig = Rig(*GUESTS)
        self.world = self.rig.world
        self.acknowledged: dict[tuple[str, str], Level] = {}
        COUNTS["histories"] += 1

    @rule(volume=volumes, guest=guests, faults=faults)
    def attach(self, volume: str, guest: str, faults: list[tuple[int, Fault]]) -> None:
        self.world.faults.plan(*faults)
        connection = {
            "driver_volume_type": "toy",
            "data": {"share": VOLUMES[volume], "name": volume, "volume_id": volume},
        }
        answered: list[object] = []
        self.rig.survive(
            lambda: answered.append(
                self.rig.owner().attachments.attach(
                    guest, connection, timeout=0, options=DiskOptions(shared=True)
                )
            )
        )
        self._read_attachment(volume, guest, Level.ATTACHED if answered else None)

    @rule(volume=volumes, guest=guests, faults=faults)
    def detach(self, volume: str, guest: str, faults: list[tuple[int, Fault]]) -> None:
        self.world.faults.plan(*faults)
        answered: list[object] = []
        error = self.rig.survive(
            lambda: answered.append(self.rig.owner().attachments.detach(guest, volume, timeout=0))
        )
        gone = answered or isinstance(error, NotFound)
        self._read_attachment(volume, guest, Level.ABSENT if gone else None)

    @rule(faults=faults)
    def sweep(self, faults: list[tuple[int, Fault]]) -> None:
        self.world.faults.plan(*faults)
        self.rig.survive(self.rig.owner().attachments.sweep)

    @rule()
    def time_passes(self) -> None:
        self.world.tick()

    @rule(guest=guests)
    def guest_stops(self, guest: str) -> None:
        toy = self.world.guests[GuestId(guest)]
        toy.running = False
        toy.live.clear()
        toy.leaving.clear()
        toy.lost.clear()

    @rule(guest=guests)
    def guest_starts(self, guest: str) -> None:
        toy = self.world.guests[GuestId(guest)]
        if not toy.running and all(self._openable(path) for path in toy.defined.values()):
            toy.running = True
            toy.live.update(toy.defined)

    @rule(guest=guests)
    def guest_goes_deaf_or_hears(self, guest: str) -> None:
        toy = self.world.guests[GuestId(guest)]
        toy.deaf = not toy.deaf

    @rule(volume=volumes, guest=guests, live=st.booleans())
    def somebody_pulls_a_disk(self, volume: str, guest: str, live: bool) -> None:
        toy = self.world.guests[GuestId(guest)]
        (toy.live if live else toy.defined).pop(VolumeId(volume), None)

    @rule(share=shares)
    def somebody_unmounts_an_unused_share(self, share: str) -> None:
        if not self.world.users(str(BASE / share)):
            self.world.mounts.pop(str(BASE / share), None)

    @rule(share=shares)
    def somebody_mounts_something_else(self, share: str) -> None:
        self.world.mounts.setdefault(str(BASE / share), "theirs")

    @rule(share=shares, guest=guests)
    def somebody_uses_a_share_by_hand(self, share: str, guest: str) -> None:
        if self.world.mounts.get(str(BASE / share)) == share:
            self.world.guests[GuestId(guest)].foreign.add(f"{BASE / share}/by-hand")

    @rule(share=shares)
    def a_client_dies(self, share: str) -> None:
        if self.world.mounts.get(str(BASE / share)) == share:
            self.world.dead.add(share)

    @rule(share=shares)
    def a_client_answers_with_errors_or_well(self, share: str) -> None:
        self.world.failing ^= {share}

    @rule(share=shares)
    def a_share_hangs_or_comes_back(self, share: str) -> None:
        self.world.hung ^= {share}

    @rule()
    def the_hypervisor_is_away_or_back(self) -> None:
        self.world.blind = not self.world.blind

    @invariant()
    def nothing_was_pulled_from_under_anybody(self) -> None:
        assert not self.world.violations

    def teardown(self) -> None:
        self._heal()
        self.rig.settle()
        # A disk that was open on a dead mount is lost to its guest until a person stops that.
        for guest in self.world.guests.values():
            if guest.lost:
                self.guest_stops(guest.name)
        self.rig.settle()
        rows = {(r.key.volume, r.key.guest): r.want for r in self.rig.records.all()}
        assert rows == self.acknowledged
        for guest in self.world.guests.values():
            marked = {v for v, g in self.acknowledged if g == guest.name}
            assert set(guest.defined) == marked
            assert set(guest.live) == (marked if guest.running else set())
        for share in ("s1", "s2"):
            at = str(BASE / share)
            wanted = any(VOLUMES[volume] == share for volume, _ in self.acknowledged)
            assert not wanted or self.world.mounts.get(at) == share
            assert not wanted or share not in self.world.dead, "renewed, whoever runs on it"
            if self.world.mounts.get(at) == share and not wanted:
                # Only those who use it by hand, or came by hand, may keep it.
                assert self.world.users(at) or share in self.kept_by_hand
        COUNTS["crash_points"] += self.world.faults.struck

    def _heal(self) -> None:
        self.world.faults.plan()
        self.world.blind = False
        self.world.hung.clear()
        self.world.failing.clear()
        self.kept_by_hand = {
            path.split("/")[2] for g in self.world.guests.values() for path in g.foreign
        }
        for guest in self.world.guests.values():
            guest.deaf = False
            guest.foreign.clear()
        for at, share in list(self.world.mounts.items()):
            if share == "theirs":
                del self.world.mounts[at]

    def _openable(self, path: str) -> bool:
        return path.rsplit("/", 1)[0] in self.world.mounts

    def _read_attachment(self, volume: str, guest: str, done: Level | None) -> None:
        """An attachment that was acknowledged (*done*) is there; a killed caller cannot know.

        No call changes another attachment.
        """
        attachments = {
            (r.key.volume, r.key.guest): r.want
            for r in self.rig.records.all()
            if r.want > Level.ABSENT
        }
        mine = (volume, guest)
        if done is not None:
            assert attachments.get(mine, Level.ABSENT) is done
        others = {key: want for key, want in self.acknowledged.items() if key != mine}
        assert {key: want for key, want in attachments.items() if key != mine} == others
        self.acknowledged = attachments


def test_any_history(record_property) -> None:
    COUNTS.clear()
    run_state_machine_as_test(
        AnyHistory,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert HISTORIES < 2000 or COUNTS["crash_points"] > 500
    for name, count in COUNTS.items():
        record_property(name, count)
