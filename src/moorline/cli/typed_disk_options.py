"""The options of commands that plug disks, made from their declaration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import click

from moorline.cli.common import F
from moorline.cli.sizes import size, within
from moorline.disk_options import OPTIONS, DiskOption, DiskOptions, Kind


def disk_options(*, without: Collection[str] = (), live: bool = False) -> Callable[[F], F]:
    """Give a command the options of a disk but *without*; *live*: only those to be changed."""
    declared = [o for o in OPTIONS if o.name not in without and (o.live or not live)]

    def decorate(command: F) -> F:
        for each in reversed(declared):
            command = click.option(*_spellings(each), **_how(each))(command)
        return command

    return decorate


def of_a_launch() -> list[click.Option]:
    """Those that can be said of all volumes of a guest, or are of the boot volume: as click's."""
    said = [each for each in OPTIONS if not each.one or each.name == "boot"]
    return [click.Option(_spellings(each), **_how(each)) for each in said]


def asked(values: Mapping[str, Any]) -> DiskOptions:
    """What was typed."""
    names = (each.name for each in OPTIONS)
    return DiskOptions(**{n: values[n] for n in names if values.get(n) is not None})


def demand_of_one(options: DiskOptions, *others: str) -> None:
    """Refuse what can be said of one volume alone. *others*: the same of what is no option of a
    disk, if it was said. Raises UsageError."""
    said = [f"--{each.typed}" for each in OPTIONS if each.one and each.name in options.asked()]
    if found := [*filter(None, others), *said]:
        raise click.UsageError(f"{', '.join(found)}: of one volume alone")


def _spellings(option: DiskOption) -> list[str]:
    short = [f"--{option.short}"] if option.short else []
    return [*short, f"--{option.typed}", option.name]


def _how(option: DiskOption) -> dict[str, Any]:
    how: dict[str, Any] = {"help": option.help, "default": None}
    if option.kind is Kind.FLAG:
        return how | {"is_flag": True, "default": False}
    if option.kind is Kind.CHOICE:
        return how | {"type": click.Choice(option.choices)}
    if option.kind is Kind.COUNT:
        return how | {"type": click.IntRange(option.least, option.most), "metavar": "N"}
    if option.kind is Kind.BYTES:
        return how | {"callback": partial(_bytes, option), "metavar": "SIZE"}
    return how | {"metavar": option.metavar}


def _bytes(
    declared: DiskOption, context: click.Context, option: click.Parameter, text: str | None
) -> int | None:
    """As :func:`size`, or 0, which takes a limit away; as *declared* allows."""
    value = 0 if text == "0" else size(context, option, text)
    if text is None or value is None:
        return None
    return within(text, value, declared.least, declared.most)
