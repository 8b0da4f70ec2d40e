"""The bounds of the store contract, checked by every engine in the same way."""

from __future__ import annotations

from collections.abc import Sequence

from moorline.ports.store import At, Delete, Put

MAX_VALUE = 256 * 1024
MAX_OPERATIONS = 100
MAX_COMMIT = 1024 * 1024
"""Bytes of all values of a commit: a request to etcd has at most 1.5 MiB."""


def within_limits(when: Sequence[At], then: Sequence[Put | Delete]) -> None:
    """Raise ValueError if a commit breaks the contract, which is a defect of the caller."""
    if len({operation.key for operation in then}) != len(then):
        raise ValueError("a key stands twice in one commit")
    if max(len(when), len(then)) > MAX_OPERATIONS:
        raise ValueError(f"more than {MAX_OPERATIONS} operations in one commit")
    values = [operation for operation in then if isinstance(operation, Put)]
    for put in values:
        if len(put.value) > MAX_VALUE:
            raise ValueError(f"the value of {put.key} is larger than {MAX_VALUE} bytes")
    if sum(len(put.value) for put in values) > MAX_COMMIT:
        raise ValueError(f"the values of one commit are larger than {MAX_COMMIT} bytes")


def prefix_ends(prefix: str) -> tuple[str, str]:
    """The range ``[first, end)`` of the keys below *prefix*. Raises ValueError: it has no '/'.

    Without one, the entries of host ``h1`` would have those of ``h10`` among them.
    """
    if not prefix.endswith("/"):
        raise ValueError(f"a prefix ends in '/': {prefix!r}")
    return prefix, prefix[:-1] + chr(ord("/") + 1)
