"""Sizes as people write them."""

from __future__ import annotations

import re

import click

from moorline.core.validation import MAX_INTEGER

_UNITS = "KMGTP"
_OF_MEMORY = {"M": 1, "G": 1 << 10, "T": 1 << 20}


class Memory(click.ParamType):  # type: ignore[type-arg]
    """``2G``, ``512M``; a bare number is MiB."""

    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,8})([MGT]?)(?:i?B)?", str(value), re.IGNORECASE)
        if not found:
            self.fail(f"{value!r} is no size; such as 2G or 512M", param, ctx)
        mib = int(found[1]) * _OF_MEMORY[found[2].upper() or "M"]
        if mib > MAX_INTEGER >> 20:
            self.fail(f"{value} is more than any guest can have", param, ctx)
        return mib


def size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Bytes, or a whole number of KiB, MiB, GiB …: ``20G`` or ``20GiB``."""
    if text is None:
        return None
    match = re.fullmatch(rf"([1-9][0-9]{{0,18}})(?:([{_UNITS}])(?:iB)?)?", text, re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{text!r} is no size, such as 20G or 21474836480")
    power = _UNITS.index(match[2].upper()) + 1 if match[2] else 0
    return within(text, int(match[1]) << (10 * power), 1, MAX_INTEGER)


def within(text: str, value: int, least: int, most: int) -> int:
    """*value*, which was typed as *text*. Raises BadParameter as click does of a number."""
    if not least <= value <= most:
        raise click.BadParameter(f"{text} is not in the range {least}<=x<={most}.")
    return value
