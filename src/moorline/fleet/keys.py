"""Where in the fleet's store everything is. All prefixes end in ``/``.

============================  =====================  ======================================
key                           written by             what
============================  =====================  ======================================
epoch                         whoever made the store changes when a backup was restored
leader                        controllers            which of them leads
enrolled/HOST                 enrolment              that HOST is of the fleet, and its keys
hosts/HOST                    controllers            enrolled, cordoned, fenced
desired/HOST/GUEST            controllers            the assignment: what HOST is to do with GUEST
desired/HOST/GUEST/VOLUME     controllers            an attachment, sealed to HOST
definitions/HOST/GUEST        HOST and controllers   what GUEST is defined by, sealed to HOST
status/HOST/GUEST[/VOLUME]    HOST                   what HOST reports of it
held/HOST                     HOST                   digests of what its reports name
heartbeat/HOST/agent          HOST                   that its agent lives
heartbeat/HOST/events/SLOT    HOST                   the last entries of its event log
owners/guests/GUEST           controllers            which host has GUEST, and its generation
owners/volumes/VOLUME         controllers            which guests have VOLUME
owners/places/DIGEST          controllers            which volume a storage is, by each spelling
owners/own/HOST/GUEST/VOLUME  controllers            that GUEST has VOLUME by HOST itself
moves/GUEST                   controllers            that GUEST is to go to another host
decisions/TIME                controllers            what was decided, for people
============================  =====================  ======================================

A host reads ``epoch``, ``hosts/HOST``, ``desired/HOST/``, and what it writes itself. Of others it
learns nothing, not even who has what it lost.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote, unquote

from moorline.model import GuestId, VolumeId

ROOT = "/moorline/"
EPOCH = f"{ROOT}epoch"
LEADER = f"{ROOT}leader"
ENROLLED = f"{ROOT}enrolled/"
HOSTS = f"{ROOT}hosts/"
MOVES = f"{ROOT}moves/"
DECISIONS = f"{ROOT}decisions/"
GUEST_OWNERS = f"{ROOT}owners/guests/"
DESIRED = f"{ROOT}desired/"
STATUS = f"{ROOT}status/"
VOLUME_OWNERS = f"{ROOT}owners/volumes/"
OWN_VOLUMES = f"{ROOT}owners/own/"
HELD = f"{ROOT}held/"
EVENTS_PER_HOST = 64
"""Entries of its event log that the fleet has of each host."""


def host(name: str) -> str:
    """Of the host itself."""
    return f"{HOSTS}{_plain(name)}"


def heartbeat(host: str) -> str:
    """Of its agent's sign of life."""
    return f"{ROOT}heartbeat/{_plain(host)}/agent"


def events(host: str) -> str:
    """The prefix of what a host tells of its event log."""
    return f"{ROOT}heartbeat/{_plain(host)}/events/"


def event(host: str, id: int) -> str:
    """Of an entry of a host's event log: it displaces one of long before."""
    return f"{events(host)}{id % EVENTS_PER_HOST}"


def decision(nanoseconds: int, writer: str) -> str:
    """Of a decision, made so long after the epoch; in the order of time."""
    return f"{DECISIONS}{nanoseconds:020}-{writer}"


def desired(host: str) -> str:
    """The prefix of all that is wanted of a host."""
    return f"{DESIRED}{_plain(host)}/"


def status(host: str) -> str:
    """The prefix of all that a host reports."""
    return f"{STATUS}{_plain(host)}/"


def held(host: str) -> str:
    """Of what a host's reports name."""
    return f"{HELD}{_plain(host)}"


def assignment(host: str, guest: GuestId) -> str:
    """Of what a host is to do with a guest."""
    return f"{desired(host)}{guest}"


def attachment(host: str, guest: GuestId, volume: VolumeId) -> str:
    """Of an attachment of a guest on a host."""
    return f"{desired(host)}{guest}/{volume}"


def definition(host: str, guest: GuestId) -> str:
    """Of a guest's definition, as that host can open it."""
    return f"{definitions(host)}{guest}"


def definitions(host: str) -> str:
    """The prefix of what the guests of a host are defined by."""
    return f"{ROOT}definitions/{_plain(host)}/"


def report(desired: str) -> str:
    """Of what a host reports of an assignment or an attachment, given that one's key."""
    return f"{STATUS}{desired.removeprefix(DESIRED)}"


def guest_owner(guest: GuestId) -> str:
    """Of who has a guest."""
    return f"{GUEST_OWNERS}{guest}"


def volume_owner(volume: VolumeId) -> str:
    """Of who has a volume."""
    return f"{VOLUME_OWNERS}{volume}"


def own_volume(host: str, guest: GuestId, volume: VolumeId) -> str:
    """Of that a host has a volume by itself, and the volume's owner says so."""
    return f"{OWN_VOLUMES}{_plain(host)}/{guest}/{volume}"


def place(place: str) -> str:
    """Of which volume a storage is: one storage has one id."""
    return f"{ROOT}owners/places/{sha256(place.encode()).hexdigest()}"


def move(guest: GuestId) -> str:
    """Of a guest's move."""
    return f"{MOVES}{guest}"


def last(key: str) -> str:
    """What a key ends with: the name of a host, or the id of a guest or a volume."""
    return unquote(key.rsplit("/", 1)[1])


def below(prefix: str, key: str) -> tuple[str, ...]:
    """The parts of *key* below *prefix*: a guest, or a guest and a volume."""
    return tuple(key.removeprefix(prefix).split("/"))


def _plain(name: str) -> str:
    return quote(name, safe="")
