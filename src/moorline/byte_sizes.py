"""Bytes as people write them."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def human(size: int | None) -> str:
    """Bytes as people write them, and as commands take them where that is exact: 20GiB."""
    if size is None:
        return "-"
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS))
    if not power:
        return str(size)
    number = f"{size / (1 << (10 * power)):.1f}".removesuffix(".0")
    return f"{number}{_UNITS[power - 1]}"


def exact(size: int) -> str:
    """``20GiB (21474836480 bytes)``: rounded where that is easier to read, and to the byte."""
    return f"{size} bytes" if human(size) == str(size) else f"{human(size)} ({size} bytes)"
