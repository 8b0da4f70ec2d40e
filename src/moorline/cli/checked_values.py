"""Values of options that would do harm if they were taken as they are typed."""

from __future__ import annotations

import math
from typing import Any

import click

from moorline.core.validation import check_reason
from moorline.deadline import MAX_TIMEOUT_SECONDS
from moorline.errors import Refused


class Seconds(click.FloatRange):
    """A duration: click's range would take NaN, which is never over."""

    def __init__(self, least: float = 0.0) -> None:
        super().__init__(least, MAX_TIMEOUT_SECONDS)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """As click's."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


def persons_word(_: click.Context, __: click.Parameter, reason: str | None) -> str:
    """Why a person is sure of what Moorline cannot see; '': it was not typed."""
    try:
        if reason is not None:
            check_reason(reason)
    except Refused as e:
        raise click.BadParameter(e.message) from None
    return reason or ""
