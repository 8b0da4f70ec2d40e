"""A toy host whose owner can be killed at any effect and started anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle

from moorline.api import Moorline
from moorline.core.expect import Expect
from moorline.core.locks import Locks
from moorline.core.plan import Step
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import MoorlineError
from moorline.model import Attachment, GuestId, Key, Level, VolumeId
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.faults import Killed
from moorline.testing.toys import (
    BASE,
    MemoryStore,
    ToyExport,
    ToyGuest,
    ToyHypervisor,
    ToyShare,
    ToyWorld,
)
from tests.support.environment import bare

_CODEC = Codec(Secret(b"k" * 32))


def connection(name: str = "a", share: str = "s1", volume: str | None = None) -> dict[str, object]:
    """Cinder's for the file *name* of a toy share. *volume*: the volume's id; None: the name."""
    data = {"share": share, "name": name, "volume_id": volume or name}
    return {"driver_volume_type": "toy", "data": data, "ignored": None}


class Rig:
    """The world and the store survive; everything else is made anew by :meth:`owner`."""

    def __init__(self, *guests: str) -> None:
        self.world = ToyWorld()
        self.world.guests = {GuestId(name): ToyGuest(name) for name in guests}
        self.store = MemoryStore(self.world.faults)
        self.records = Records(self.store, _CODEC, "h1")
        self.kills = 0
        self._expected = cycle(Expect)

    def reconciler(self) -> Reconciler:
        return Reconciler(
            self.records,
            {"toy": ToyShare(self.world)},
            ToyHypervisor(self.world),
            Locks(patience=1.0),
        )

    def owner(self) -> Moorline:
        return Moorline(
            self.records, self.reconciler(), ToyHypervisor(self.world), environment=bare()
        )

    def survive(self, do: Callable[[], object]) -> MoorlineError | None:
        """Run *do* as a process that may be killed; return the error that it ended in."""
        try:
            do()
        except Killed:
            self.kills += 1
        except MoorlineError as e:
            return e
        return None

    def attachment(
        self,
        volume: str,
        guest: str,
        want: Level,
        share: str = "s1",
        encryption: Mapping[str, str] | None = None,
    ) -> None:
        """Write an attachment as the façade would, without acting on it.

        *encryption*: of a LUKS volume, as its connection has it.
        """
        key = Key("h1", VolumeId(volume), GuestId(guest))
        luks = {"format": "luks"} if encryption else {}
        before = self.records.get(key)
        if before is None and want is Level.ABSENT:
            return
        self.records.put(
            Attachment(
                key=key,
                backend="toy",
                connection=Secret(
                    {
                        "driver_volume_type": "toy",
                        "data": {"share": share, "name": volume, **luks},
                        "encryption": encryption,
                    }
                ),
                link=ToyShare(self.world).link_name(ToyExport(share, volume, None)),
                place=f"{share}/{volume}",
                want=want,
                guest_name=guest,
                revision=before.revision if before else 0,
            )
        )

    def settle(self, limit: int = 60) -> None:
        """Sweep with fresh owners until nothing is left to do, through all planned kills."""
        for _ in range(limit):
            quiet: list[bool] = []
            self.survive(partial(self._sweep, quiet))
            self.world.tick()
            if quiet == [True]:
                return
        raise AssertionError(f"did not settle: {self.owner().attachments.list()}")

    def _sweep(self, answer: list[bool]) -> None:
        reconciler = self.reconciler()
        quiet = True
        expect = next(self._expected)  # it may be so no more: that only costs a step
        for row in self.records.all():
            try:
                step = reconciler.advance(row.key, expect=expect).step
            except MoorlineError:
                step = Step.WAIT
            quiet = quiet and step in (Step.NOTHING, Step.PARK)
        answer.append(quiet)

    def check(self, wanted: dict[tuple[str, str], Level], share: str = "s1") -> None:
        """Assert that exactly what is wanted is there."""
        assert not self.world.violations
        for (volume, guest), level in wanted.items():
            toy = self.world.guests[GuestId(guest)]
            halves = [VolumeId(volume) in toy.live, VolumeId(volume) in toy.defined]
            if level is Level.ATTACHED:
                assert all(halves) or not toy.running
            else:
                assert not any(halves)
            stored = self.records.get(Key("h1", VolumeId(volume), GuestId(guest)))
            assert (stored is not None) == (level > Level.ABSENT)
        needed = any(level > Level.ABSENT for level in wanted.values())
        assert (str(BASE / share) in self.world.mounts) == needed
