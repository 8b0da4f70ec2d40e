"""Which volume a person means, who types its id, or the beginning of it, in capitals or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from moorline.errors import Refused
from moorline.model import VolumeId, is_uuid

SHORTEST = 4
"""Characters that the beginning of an id has at least."""
BY_ID = (
    "moorline list; a volume goes by its id, or the beginning of that"
    f" ({SHORTEST} characters or more)"
)
BY_ID_OR_DEVICE = f"{BY_ID}, or by its device in the guest"


def is_whole(text: str) -> bool:
    """Whether *text* can be nothing but a whole id: what it names may be gone, not mistyped."""
    return is_uuid(text.lower())


def meant(text: str, ids: Iterable[VolumeId]) -> VolumeId | None:
    """The one of *ids* that *text* is or begins. Raises Refused if it begins several."""
    among, folded = set(ids), text.casefold()
    ways: list[Callable[[VolumeId], bool]] = [
        lambda id: id == text,
        lambda id: id.casefold() == folded,
    ]
    if len(text) >= SHORTEST:
        ways += [
            lambda id: id.startswith(text),
            lambda id: id.casefold().startswith(folded),
        ]
    for fits in ways:
        found = sorted(filter(fits, among))
        if len(found) > 1:
            raise Refused(
                f"{text} is the beginning of {', '.join(found)}", hint="type more of the one"
            )
        if found:
            return found[0]
    return None
