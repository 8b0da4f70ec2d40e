"""What is kept in the fleet's store: frozen values, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from enum import Enum, StrEnum
from functools import cache
from typing import Any, ClassVar, Self, get_type_hints

from moorline.model import GuestId
from moorline.ports import Entry
from moorline.ports.moving import Presence


@dataclass(frozen=True, slots=True)
class Stored:
    """A record, written as JSON. Fields that an older release did not write have their default."""

    revision: int = 0
    """The store's, of the entry that it was read from; 0: it was not."""

    later: ClassVar[Collection[str]] = ()
    """Fields of a later release than the others: written only where they say something."""

    def encode(self) -> bytes:
        """Return its stored form."""
        left_out = {"revision", *(name for name in self.later if not getattr(self, name))}
        return json.dumps({k: v for k, v in asdict(self).items() if k not in left_out}).encode()

    @classmethod
    def decode(cls, entry: Entry) -> Self:
        """Return the record in *entry*."""
        hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
        given = {
            name: _read(hints[name], value)
            for name, value in json.loads(entry.value).items()
            if name in hints
        }
        return cls(**given, revision=entry.revision)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.name != "revision"}


def _read(hint: Any, value: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    return tuple(value) if isinstance(value, list) else value


class Role(StrEnum):
    """What a host is to do with a guest."""

    HERE = "here"
    """Have it. This host alone may run it."""
    LEAVING = "leaving"
    """Send it to the other host, or let it go if it is stopped. It does not start here any more."""
    ARRIVING = "arriving"
    """Make ready for it. A copy that arrives stays paused until it is HERE."""
    GONE = "gone"
    """Stop any copy at once, and clean up."""


class Bring(StrEnum):
    """How far a guest that is HERE shall be brought, once."""

    NOTHING = "nothing"
    """It is as its users have it."""
    DEFINED = "defined"
    RUNNING = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord(Stored):
    """A host of the fleet."""

    cordoned: bool = False
    """No guest is brought here."""
    draining: bool = False
    """Its guests are brought elsewhere."""
    fenced: str = ""
    """Why it can surely not write any more, and who says so; '': it may."""
    fenced_by: str = ""
    fenced_at: float = 0.0
    """Seconds since the epoch."""
    disputed: tuple[str, ...] = ()
    """``GUEST/VOLUME`` of what it has by itself, and somebody else has by the fleet's word."""
    same_ids: tuple[GuestId, ...] = ()
    """Ids of guests that are here and are, by the fleet's word, another host's."""
    first: tuple[GuestId, ...] = ()
    """Guests that go before the others, in this order, while it is drained or evacuated."""
    at_once: int = 0
    """How many are on their way, or starting, at a time then; 0: as many as usual."""

    later: ClassVar[Collection[str]] = ("disputed", "same_ids", "first", "at_once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Stored):
    """An agent's sign of life: what counts is that it changes."""

    session: str
    """One process of the agent."""
    count: int = 0
    at: float = 0.0
    """By that host's own clock, for people: seconds since the epoch."""
    quiet: int = 0
    """The revision of the host's record whose fencing it has obeyed: no copy of a guest runs."""
    memory: int = 0
    """MiB that guests may have there in all; 0: not told."""
    unread: int = 0
    """How many of the attachments that are wanted there it cannot read."""
    left: bool = False
    """The host left the fleet: what it reported is its last word, and its guests are its own."""

    later: ClassVar[Collection[str]] = ("unread", "left")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEvent(Stored):
    """An entry of a host's event log: see :class:`moorline.ports.results.EventLogEntry`."""

    id: int
    at: float
    step: str
    outcome: str
    volume: str = ""
    guest: str = ""
    link: str = ""
    message: str = ""
    seconds: float = 0.0
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Stored):
    """What a person or a controller decided: for people, and nothing follows from it."""

    at: float
    """By the clock of whoever wrote it: seconds since the epoch."""
    step: str
    """``migrate``, ``hand over``, ``stay``, ``cordon``, ``uncordon``, ``drain``, ``fence``,
    ``evacuate`` (the order of an evacuation is another now), ``return``, ``dispute``,
    ``removed``."""
    host: str
    guest: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader(Stored):
    """The controller that leads."""

    session: str
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestOwner(Stored):
    """Which host has a guest."""

    host: str
    name: str
    generation: int = 1
    """Grows each time that it is given away: what bears an older one is out of date."""
    note: str = ""
    """Why its last move came to nothing; ''."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOwner(Stored):
    """Which guests have a volume: one, unless all of them share it."""

    guests: tuple[GuestId, ...]
    shared: bool = False
    place: str = ""
    """Identifies the storage behind it: one storage has one id."""
    aliases: tuple[str, ...] = ()
    """What *place* is by other spellings; each has an entry of its own, as *place* has."""

    later: ClassVar[Collection[str]] = ("aliases",)

    @property
    def places(self) -> frozenset[str]:
        """All that identifies the storage behind it."""
        return frozenset({self.place, *self.aliases} - {""})


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnClaim(Stored):
    """That a guest is among the owners of a volume because its host has that by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment(Stored):
    """What a host is to do with a guest."""

    name: str
    role: Role
    generation: int
    bring: Bring = Bring.NOTHING
    peer: str = ""
    """The host where it goes, or comes from."""
    calls: int = 0
    """Grows to have the host report anew: what it says then was seen after that."""
    never_here: bool = False
    """Of one that is GONE: it was to come, and never was this host's."""

    later: ClassVar[Collection[str]] = ("never_here",)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestReport(Stored):
    """What a host reports of a guest."""

    assignment: int = 0
    """The revision of the assignment that it follows; 0: it has none."""
    seen: Presence = Presence.ABSENT
    name: str = ""
    memory: int = 0
    """MiB; 0: not told."""
    error: str = ""
    """The family of what keeps it from doing as it is told. Of a guest that is LEAVING it is also
    a promise: under this assignment it does not go."""
    message: str = ""
    due: bool = False
    """Somebody started it, or it ran before the host booted, and it was not allowed to yet."""
    definition: str = ""
    """The digest of the definition that it keeps in the store; '': none."""
    looked: bool = False
    """Its disks were looked at: *others* are all that neither the fleet wants nor its host has on
    record. False: which there are is not known; an earlier release never tells."""
    others: tuple[str, ...] = ()
    """What those are called: serials and aliases in small letters, paths on its host, and what
    identifies their files; ``local:…``: among those of that host."""
    written: tuple[str, ...] = ()
    """Those of *others* that identify files which nobody else may have: neither only read by the
    guest, nor shared."""

    removed: bool = False
    """Somebody removed it here, by Moorline: it is nowhere any more."""
    another: bool = False
    """What is here only has the id of the guest that *assignment* is about, and is left alone."""

    later: ClassVar[Collection[str]] = ("looked", "others", "written", "removed", "another")


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeReport(Stored):
    """What a host reports of an attachment."""

    attachment: int = 0
    """The revision of the attachment that it follows."""
    seen: str = ""
    """The level that it is at (``attached``, ``connected``, ``absent``), if it is as wanted."""
    error: str = ""
    message: str = ""
    lost: bool = False
    """What the guest has open as its disk is not what another host would open; *message* says why.
    As far as its host knows without asking a share."""
    hint: str = ""
    """What a person can do there about what is in the way, where *message* does not say so."""
    places: tuple[str, ...] = ()
    """What identifies the file that the guest has as its disk, whichever that is: one place for
    each spelling. It may be another than the volume's (an external snapshot, a copy)."""
    own: bool = False
    """The fleet does not want it: the host has it by itself. *places* are all that it is then."""
    shared: bool = False
    """Of one that is *own*: others may write to it, too."""
    path: str = ""
    """Where the volume is on this host, as far as its link leads to it; '': not told."""
    local: tuple[str, ...] = ()
    """As *places*, of what the host has by itself on storage of its own: there it is *own* to
    nobody. On another host the same path is another file, so nobody is refused that; an earlier
    release takes it for a volume that the fleet does not know."""

    other_file: bool = False
    """The guest has its disk, whole, with another file than the volume's: a snapshot, a copy."""

    later: ClassVar[Collection[str]] = (
        *("lost", "hint", "places", "own", "shared", "path", "local", "other_file"),
    )

    @property
    def by_itself(self) -> bool:
        """Whether the fleet does not want it, and its host has it all the same."""
        return self.own or bool(self.local)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Stored):
    """What all reports of a host name; see :mod:`moorline.fleet.held`."""

    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Move(Stored):
    """That a guest is to go to another host."""

    guest: GuestId
    source: str
    destination: str
    by: str = ""
    why: str = ""
    at: float = 0.0
    """Seconds since the epoch."""
    given_up: str = ""
    """Why it is not done after all; ''."""
