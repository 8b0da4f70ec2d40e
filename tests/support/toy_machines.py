"""Makes, starts and stops guests of a toy world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import NAMESPACE_OID, uuid5

from moorline.errors import Failed, NotFound, NotOurs, Refused
from moorline.model import GuestId, GuestName
from moorline.ports.guests import GuestOption, GuestOptions, GuestState, Kind, Launching
from moorline.testing.toys import ToyGuest, ToyWorld


@dataclass
class ToyLifecycle:
    """Makes, starts and stops a toy world's guests; their ids are ``id-NAME``, or UUIDs."""

    launching: ClassVar[Launching] = Launching(
        GuestOptions(
            (GuestOption("vcpus", Kind.COUNT, ""), GuestOption("template", Kind.DOCUMENT, ""))
        ),
        from_volumes=True,
        removal=GuestOptions(
            (GuestOption("force", Kind.FLAG, ""), GuestOption("any", Kind.FLAG, ""))
        ),
    )

    world: ToyWorld
    launched: set[GuestId] = field(default_factory=set)
    saved: set[GuestId] = field(default_factory=set)
    stubborn: set[GuestId] = field(default_factory=set)
    """They do not hear that they are asked to shut down."""
    undying: set[GuestId] = field(default_factory=set)
    """They run on without power: QEMU hangs in the kernel."""
    uuids: bool = False
    boot: int = 1
    """As of :class:`GuestState`."""

    def look(self, guest: GuestId) -> GuestState:
        toy = self._toy(guest)
        return GuestState(
            GuestName(guest, toy.name),
            toy.running,
            guest in self.launched,
            guest in self.saved,
            boot=self.boot,
        )

    def parse(self, name: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return asked

    def check(self, name: str, hardware: Mapping[str, Any]) -> None:
        if hardware.get("vcpus") == 99:
            raise Refused("a toy has no 99 vCPUs")
        if self._other(name):
            raise NotOurs(f"there is a guest {name} already")

    def define(
        self, name: str, hardware: Mapping[str, Any], progress: Callable[[str], None]
    ) -> None:
        self.check(name, hardware)
        id = GuestId(str(uuid5(NAMESPACE_OID, name)) if self.uuids else f"id-{name}")
        if id not in self.world.guests:
            self.world.faults.effect(lambda: self._define(id, name))

    def start(self, guest: GuestId) -> None:
        toy = self._toy(guest)
        if lost := [path for path in toy.paths() if path.rpartition("/")[0] not in self._mounted()]:
            raise Failed(f"{lost[0]} cannot be opened")
        self.world.faults.effect(lambda: self._start(toy))

    def stop(self, guest: GuestId, *, force: bool) -> None:
        if guest in self.saved and not force:
            raise Refused("its memory was saved")
        self.saved.discard(guest)
        if guest not in self.undying and (force or guest not in self.stubborn):
            self.world.faults.effect(lambda: self._stop(self._toy(guest)))

    def check_removal(self, guest: GuestId) -> None:
        pass

    def remove(self, guest: GuestId) -> None:
        if guest in self.world.guests:
            self.world.faults.effect(lambda: self.world.guests.pop(guest))

    def _toy(self, guest: GuestId) -> ToyGuest:
        try:
            return self.world.guests[guest]
        except KeyError:
            raise NotFound(f"there is no guest {guest}") from None

    def _other(self, name: str) -> bool:
        named = {id for id, toy in self.world.guests.items() if toy.name == name}
        return bool(named - self.launched)

    def _mounted(self) -> set[str]:
        return set(self.world.mounts)

    def _define(self, id: GuestId, name: str) -> None:
        self.world.guests[id] = ToyGuest(name, running=False)
        self.launched.add(id)

    def _start(self, toy: ToyGuest) -> None:
        toy.running, toy.live = True, dict(toy.defined)

    def _stop(self, toy: ToyGuest) -> None:
        toy.running, toy.live = False, {}
