"""Checks the options that a caller gives for a guest against those that its hypervisor declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moorline.core.privilege import is_trusted
from moorline.core.validation import MAX_INTEGER, MAX_TEXT_CHARACTERS
from moorline.disk_options import BY_NAME, DiskOptions
from moorline.errors import Denied, Refused
from moorline.model import Format
from moorline.ports.guests import GuestOption, GuestOptions, Kind, Launching

MAX_DOCUMENT_CHARACTERS = 64 << 10
"""Characters of a document, such as a guest's XML, that may be given."""
Volume = tuple[Mapping[str, Any] | str, Format | None]
"""A connection, or what is typed for one with its format."""
_NUMBERS = (Kind.COUNT, Kind.MIB, Kind.BYTES)


def validate(options: GuestOptions, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options that are set, by key: null, empty and false values are left out.

    Raises Refused (an option that is not declared, a value of the wrong kind, options that
    exclude each other), Denied (the caller may not name files of the host).
    """
    known = {option.key: option for option in options.each}
    asked = {key: value for key, value in (given or {}).items() if not _is_empty(value)}
    if unknown := asked.keys() - known:
        # An unknown option may be a misplaced value, even a secret: it is not repeated.
        raise Refused(
            f"{len(unknown)} of the options are not known here",
            hint=f"known: {', '.join(known) or 'none'}",
        )
    for key, value in asked.items():
        _check(known[key], value)
    if why := exclusion(options, asked):
        raise Refused(why)
    return asked


def exclusion(options: GuestOptions, asked: Mapping[str, Any]) -> str:
    """Say which of the given options exclude each other, or which is missing; '' if all is well."""
    typed = {option.key: f"--{option.name}" for option in options.each}
    for one in options.one_of:
        found = [key for key in one.keys if asked.get(key)]
        if len(found) > 1 or (one.needed and not found):
            words = " or ".join(typed[key] for key in one.keys)
            return f"give either {words}" if one.needed else f"give {words}, not both"
    return ""


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value == ""


def _check(option: GuestOption, value: Any) -> None:
    if option.kind in _NUMBERS:
        fits = type(value) is int and 1 <= value <= MAX_INTEGER
    elif option.kind is Kind.FLAG:
        fits = value is True
    else:
        longest = MAX_DOCUMENT_CHARACTERS if option.kind is Kind.DOCUMENT else MAX_TEXT_CHARACTERS
        fits = isinstance(value, str) and len(value) <= longest
    if not fits or (option.choices and value not in option.choices):
        known = ", ".join(option.choices)
        raise Refused(f"{option.key} is no {option.kind.value} that can be used", hint=known)
    if option.kind is Kind.FILE and not value.startswith("/"):
        raise Refused(f"{option.key} is no absolute path")
    if option.kind in (Kind.FILE, Kind.DOCUMENT) and not is_trusted():
        raise Denied(
            f"this user may not give a {option.name}: it can name any file of this host",
            hint=f"root may, or do without --{option.name}",
        )


def volumes_of(
    kind: str,
    launching: Launching,
    boot: Mapping[str, Any] | str | None,
    format: Format | None,
    connections: Sequence[Mapping[str, Any]],
) -> list[Volume]:
    """The connections of a guest's disks, the boot disk first. Raises Refused.

    *kind*: of the hypervisor, for people.
    """
    if not launching.from_volumes:
        if boot is not None or format is not None or connections:
            raise Refused(
                f"{kind} guests are made with a disk of their own", hint="attach volumes later"
            )
        return []
    if boot is None:
        raise Refused(f"{kind} guests boot from a volume, and none is given")
    return [(boot, format), *((connection, None) for connection in connections)]


def refuse_options(options: DiskOptions, volumes: Sequence[Volume]) -> None:
    """Refuse options of a disk that cannot be said of all *volumes*. Raises Refused."""
    asked = options.asked()
    if asked and not volumes:
        raise Refused("options are of volumes, and this guest has a disk of its own")
    if odd := [name for name in asked if BY_NAME[name].one and name != "boot"]:
        raise Refused(f"{odd[0]} is not of all volumes of a guest")


def options_at(place: int, options: DiskOptions, free: int) -> DiskOptions:
    """*options* as the volume at *place* has them: the first is the one that is booted from.

    *free*: where in the boot order it goes if nothing is said of that.
    """
    return replace(options, boot=0 if place else options.boot or free)
