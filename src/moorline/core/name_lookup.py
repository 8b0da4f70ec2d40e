"""Finds the volume or guest that a person means by a name, an id, or the beginning of an id."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from moorline.errors import MoorlineError, NotFound, Refused
from moorline.model import Guest, GuestId, GuestName, VolumeId, is_uuid
from moorline.ports import Hypervisor

MIN_ID_CHARACTERS = 4
"""Characters that the beginning of an id must have."""
MIN_GUEST_ID_CHARACTERS = 8
"""As :data:`MIN_ID_CHARACTERS`, for a guest's: a short name (db01) may begin another's id."""
BY_ID = (
    "moorline list; a volume goes by its id, or the beginning of that if it is a UUID"
    f" ({MIN_ID_CHARACTERS} characters or more)"
)
GUEST_BY_NAME = (
    "a guest goes by its name, its id, or the beginning of that"
    f" ({MIN_GUEST_ID_CHARACTERS} characters or more)"
)
BY_ID_OR_DEVICE = f"{BY_ID}, or by its device in the guest"


def unknown(volume: str, guests: Iterable[str]) -> NotFound:
    """What is said of a *volume* that nothing is recorded of; *guests* by name have others."""
    hint = f"{BY_ID}, or by its device if its guest is named (--guest)"
    if volume in guests:
        hint = f"{volume} is a guest: moorline list {volume}"
    return NotFound(f"no volume {volume} is known on this host", hint=hint)


def is_whole(text: str) -> bool:
    """Whether *text* is a whole UUID: if nothing has it, the volume is gone, not mistyped."""
    return is_uuid(text.lower())


def meant(text: str, ids: Iterable[VolumeId]) -> VolumeId | None:
    """The one of *ids* that *text* equals; of UUIDs, the one that it begins. None: none.

    An id that somebody chose is meant by nothing but itself: it may begin another, or be one in
    capitals, and a command that is repeated would go on with that. Raises Refused if it begins
    several.
    """
    among, folded = set(ids), text.casefold()
    ways: list[Callable[[VolumeId], bool]] = [
        lambda id: id == text,
        lambda id: is_whole(id) and id.casefold() == folded,
    ]
    if len(text) >= MIN_ID_CHARACTERS:
        ways.append(lambda id: is_whole(id) and id.casefold().startswith(folded))
    for fits in ways:
        found = sorted(filter(fits, among))
        if len(found) > 1:
            raise Refused(
                f"{text} is the beginning of {', '.join(found)}", hint="type more of the one"
            )
        if found:
            return found[0]
    return None


def recorded_as(text: str, guests: Iterable[GuestName]) -> frozenset[GuestId]:
    """Those of *guests* whose name or id *text* is; else the one whose id begins with it.

    For guests that are recorded, and may be gone. Raises Refused (several ids begin so).
    """
    among = frozenset(guests)
    if whole := frozenset(guest.id for guest in among if text in guest):
        return whole
    if len(text) < MIN_GUEST_ID_CHARACTERS:
        return frozenset()
    begun = frozenset(g.id for g in among if g.id.casefold().startswith(text.casefold()))
    if len(begun) > 1:
        raise Refused(
            f"{text} is the beginning of {', '.join(sorted(begun))}", hint="type more of the one"
        )
    return begun


def guest_called(text: str, hypervisor: Hypervisor) -> GuestName:
    """The guest whose name or id *text* is, or whose id begins with it.

    Raises NotFound (its hint names guests with similar names), Refused (several guests fit),
    Unavailable, Uncertain.
    """
    try:
        return hypervisor.find(text)
    except NotFound as e:
        try:
            guests = hypervisor.survey()
        except MoorlineError:
            raise e from None  # NotFound is true all the same
        if found := _begun(text, guests):
            return GuestName(found.id, found.name)
        names = {guest.name.casefold(): guest.name for guest in guests}
        near = [names[name] for name in difflib.get_close_matches(text.casefold(), names)]
        hint = f"did you mean {' or '.join(near)}?" if near else e.hint or GUEST_BY_NAME
        raise NotFound(e.message, hint=hint) from None


def _begun(text: str, guests: Iterable[Guest]) -> Guest | None:
    if len(text) < MIN_GUEST_ID_CHARACTERS:
        return None
    found = [guest for guest in guests if guest.id.casefold().startswith(text.casefold())]
    if len(found) > 1:
        both = ", ".join(sorted(f"{guest.name} ({guest.id})" for guest in found))
        raise Refused(f"{text} is the beginning of several ids: {both}", hint="type more of it")
    return found[0] if found else None
