"""The names of logical units that are unique in the world (SPC-3, 7.6.3). Pure.

A unit is one by whichever target it is reached if it has one of these. Names of other types, and
those whose maker's number is missing, are not: each server of tgt gives its units the same ones.
"""

from __future__ import annotations

_EUI64, _NAA = 2, 3
"""The types of designators."""
_OUI_AT_NAA = {"2": 4, "5": 1, "6": 1}
"""Where the maker's number (IEEE) begins, by the first hexadecimal digit; 3 is local alone."""
_OUI_AT_EUI = {16: 0, 24: 0, 32: 16}
"""The same, by how many digits it has."""
_OUI_DIGITS = 6


def world_wide(type: int, value: bytes) -> str:
    """The name that a designator is; '': none that is unique in the world."""
    digits = value.hex()
    if type == _NAA:
        at = _OUI_AT_NAA.get(digits[:1])
    else:
        at = _OUI_AT_EUI.get(len(digits)) if type == _EUI64 else None
    maker = "" if at is None else digits[at : at + _OUI_DIGITS]
    if len(maker) < _OUI_DIGITS or not maker.strip("0"):
        return ""
    return f"{'naa' if type == _NAA else 'eui'}.{digits}"
