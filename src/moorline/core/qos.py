"""Reads the limits that Cinder sends with a connection: ``qos_specs``. Pure.

Cinder sends those of the front end as texts or numbers, worked out for the volume's size
(``_parse_connection_options`` of its volume/manager.py). Written by hand they may be as an
operator typed them: for each GB, or with their consumer. What is not understood is refused,
as a limit that is dropped is a limit that somebody believes in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moorline.disk_options import LIMITS, MOST, RATES
from moorline.errors import Refused

_DIGITS = re.compile("[0-9]{1,16}")
_CONSUMERS = ("front-end", "both")
_NAMES = tuple(name for name in LIMITS if name != "shares")
_PER_GB = tuple(f"{rate}_per_gb{end}" for rate in RATES for end in ("", "_min"))


def limits(specs: Any, size: Any) -> dict[str, int]:
    """The limits of *specs* by their option's name; empty: none are set.

    *size*: what the connection says is the volume's, in GiB; None: nothing. Raises Refused.
    """
    if specs is None:
        return {}
    if not isinstance(specs, Mapping):
        raise Refused("the connection's qos_specs is no object")
    given = dict(specs)
    consumer = given.pop("consumer", None)
    if "specs" in given:  # as `openstack volume qos show` has them
        inner = given.pop("specs")
        if given.keys() - {"id", "name"} or not isinstance(inner, Mapping):
            raise Refused("the connection's qos_specs has specs, and more that is not known")
        given = dict(inner)
    if consumer is not None and consumer not in _CONSUMERS:
        raise Refused(
            "the connection's qos_specs are not for the guest's disk: their consumer is none of"
            f" {', '.join(_CONSUMERS)}",
            hint="the storage itself applies those of the back-end: leave them out",
        )
    if unknown := given.keys() - {*_NAMES, *_PER_GB}:
        # Not quoted: it may be a misplaced secret.
        raise Refused(
            f"the connection's qos_specs has {len(unknown)} limits that are not known",
            hint=f"known: {', '.join(_NAMES)}, and NAME_per_gb with NAME_per_gb_min",
        )
    found = {name: _number(name, value) for name, value in given.items() if value is not None}
    for rate in RATES:
        _work_out(found, rate, size)
    return found


def _work_out(found: dict[str, int], rate: str, size: Any) -> None:
    """Replace what is for each GB, as Cinder does: a maximum is then that of the whole."""
    least = found.pop(f"{rate}_per_gb_min", None)
    each = found.pop(f"{rate}_per_gb", None)
    if each is None:
        if least is not None:
            raise Refused(f"the connection's {rate}_per_gb_min is there without {rate}_per_gb")
        return
    if type(size) is not int or size < 1:
        raise Refused(
            f"the connection has {rate}_per_gb, and does not say its volume's size in GiB"
        )
    if rate in found:
        raise Refused(f"the connection has {rate} and {rate}_per_gb")
    total = max(least or 0, each * size)
    found[rate] = min(total, found.pop(f"{rate}_max", total))
    if found[rate] > MOST:
        raise Refused(f"the connection's {rate}_per_gb comes to more than {MOST}")


def _number(name: str, value: Any) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if type(value) is not int or not 0 <= value <= MOST:
        raise Refused(f"the connection's {name} is not a whole number from 0 to {MOST}")
    return value
