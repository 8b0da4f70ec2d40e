"""libiscsi, QEMU's initiator: the few calls that tell what a logical unit is.

Its commands would not do: they take a password in an argument or the environment. Called in a
process of its own, which can be killed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import POINTER, Structure, c_char_p, c_int, c_uint32, c_uint64, c_void_p
from typing import Any

from moorline.backends.lun_identity import world_wide
from moorline.errors import Failed, Refused

_SONAMES = ("libiscsi.so.7", "libiscsi.so.8", "libiscsi.so.9", "libiscsi.so.10", "libiscsi.so.11")
"""The first is 1.19's, which was tried; the public calls below are meant to stay."""
_NORMAL_SESSION = 2
_DIGEST_IF_ASKED = 1
_GOOD = 0
_NO_ANSWER = -1
_DISK = 0
"""The device type of a disk; 12 is a target's controller."""
_DESIGNATORS = 0x83
"""The page of vital product data that has the names of a unit (SPC-3)."""
_LOGICAL_UNIT = 0
"""What a designator is of: not of the port, nor of the target."""
_RESERVATION = 1
_CHECK_CONDITION = 0x02
_CONFLICT = 0x18
"""The status of what somebody else has reserved, so that we may not even ask."""
_UNKNOWN_COMMAND = "(0x2000)"
"""INVALID COMMAND OPERATION CODE, in libiscsi's words: the target has no such thing."""
_ANSWER_BYTES = 255
_DENIED = ("uthentication failure", "uthorization failure", "CHAP")
_ABSENT = ("Target not found", "LOGICAL_UNIT_NOT_SUPPORTED")


class _Capacity(Structure):
    _fields_ = [("last_block", c_uint64), ("block_bytes", c_uint32)]


class _Inquiry(Structure):
    _fields_ = [("qualifier", c_int), ("type", c_int)]


class _Designator(Structure):
    pass


_Designator._fields_ = [
    *(("next", POINTER(_Designator)), ("protocol", c_int), ("coding", c_int)),
    *(("piv", c_int), ("of", c_int), ("type", c_int), ("length", c_int)),
    ("value", c_void_p),
]


class _Designators(Structure):
    _fields_ = [
        *(("qualifier", c_int), ("type", c_int), ("page", c_int)),
        ("first", POINTER(_Designator)),
    ]


class _Reservation(Structure):
    _fields_ = [("generation", c_uint32), ("length", c_uint32), ("reserved", c_int)]


def _load() -> ctypes.CDLL | None:
    for name in _SONAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


_found = _load()
if _found is None:
    raise ImportError("there is no libiscsi here (Debian: qemu-block-extra)")
_lib: ctypes.CDLL = _found
for _name in ("create_context", "inquiry_sync", "readcapacity16_sync"):
    getattr(_lib, f"iscsi_{_name}").restype = c_void_p
_lib.iscsi_persistent_reserve_in_sync.restype = c_void_p
_lib.iscsi_get_error.restype = c_char_p
_lib.scsi_datain_unmarshall.restype = c_void_p


def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the logical unit is: its bytes, its names, and whether somebody reserved it.

    ``reserved`` is None if the target does not tell; ``ids`` has those names alone that no other
    unit in the world has.

    *question*: ``portal``, ``target``, ``lun``, ``initiator``, and ``user`` and ``password`` or ''.
    Raises Refused (it is no disk, or not for us), Failed.
    """
    with _session(question) as unit:
        _demand_disk(unit)
        capacity = unit.read(_Capacity, "readcapacity16_sync")
        if capacity is None:
            raise Failed(f"{unit.name} does not tell its size: {unit.error()}")
        return {
            "bytes": (capacity.last_block + 1) * capacity.block_bytes,
            "ids": sorted(_ids(unit)),
            "reserved": _is_reserved(unit),
        }


class _Unit:
    """A logical unit in a session."""

    def __init__(self, context: c_void_p, lun: int, name: str) -> None:
        self.context = context
        self.lun = lun
        self.name = name
        self.status = _GOOD
        """Of the last command (SAM-3), or libiscsi's own."""
        self._tasks: list[c_void_p] = []

    def read(self, into: type[Any], call: str, *arguments: int) -> Any:
        """What the unit answers, as *into*; None: it does not."""
        function = getattr(_lib, f"iscsi_{call}")
        task = c_void_p(function(self.context, c_int(self.lun), *map(c_int, arguments)))
        if not task:
            self.status = _NO_ANSWER
            return None
        self._tasks.append(task)  # what it was read into lies in it
        self.status = c_int.from_address(task.value or 0).value
        if self.status != _GOOD:
            return None
        told = c_void_p(_lib.scsi_datain_unmarshall(task))
        return into.from_address(told.value) if told else None

    def error(self) -> str:
        return _error(self.context)

    def free(self) -> None:
        for task in self._tasks:
            _lib.scsi_free_scsi_task(task)


@contextmanager
def _session(question: Mapping[str, Any]) -> Iterator[_Unit]:
    portal, target, lun = question["portal"], question["target"], question["lun"]
    context = c_void_p(_lib.iscsi_create_context(question["initiator"].encode()))
    if not context:
        raise Failed("libiscsi makes no context")
    try:
        _lib.iscsi_set_targetname(context, target.encode())
        _lib.iscsi_set_session_type(context, c_int(_NORMAL_SESSION))
        _lib.iscsi_set_header_digest(context, c_int(_DIGEST_IF_ASKED))
        _lib.iscsi_set_noautoreconnect(context, c_int(1))
        if question["user"]:
            user, password = question["user"].encode(), question["password"].encode()
            _lib.iscsi_set_initiator_username_pwd(context, user, password)
        if _lib.iscsi_full_connect_sync(context, portal.encode(), c_int(lun)):
            raise _not_connected(f"LUN {lun} of {target} at {portal}", _error(context))
        unit = _Unit(context, lun, f"LUN {lun} of {target}")
        try:
            yield unit
        finally:
            unit.free()
            _lib.iscsi_logout_sync(context)
    finally:
        _lib.iscsi_destroy_context(context)


def _not_connected(where: str, error: str) -> Failed | Refused:
    if any(word in error for word in _DENIED):
        return Refused(f"{where} lets nobody in by this user and password: {error}")
    if any(word in error for word in _ABSENT):
        return Refused(f"there is no such volume as {where}: {error}")
    return Failed(f"{where} cannot be reached: {error}")


def _demand_disk(unit: _Unit) -> None:
    inquiry = unit.read(_Inquiry, "inquiry_sync", 0, 0, _ANSWER_BYTES)
    if inquiry is None:
        raise Failed(f"{unit.name} does not tell what it is: {unit.error()}")
    if inquiry.qualifier or inquiry.type != _DISK:
        raise Refused(f"{unit.name} is no disk")


def _ids(unit: _Unit) -> Iterator[str]:
    page = unit.read(_Designators, "inquiry_sync", 1, _DESIGNATORS, _ANSWER_BYTES)
    each = page.first if page else None
    while each:
        found = each.contents
        if found.of == _LOGICAL_UNIT and found.length > 0 and found.value:
            value = ctypes.string_at(found.value, found.length)
            if name := world_wide(found.type, value):
                yield name
        each = found.next


def _is_reserved(unit: _Unit) -> bool | None:
    """Whether somebody keeps it for himself (SCSI-3); None: the target does not tell.

    A target that does not know the command has no reservations.
    """
    found = unit.read(_Reservation, "persistent_reserve_in_sync", _RESERVATION, _ANSWER_BYTES)
    if found is not None:
        return bool(found.reserved)
    if unit.status == _CONFLICT:
        return True
    checked = unit.status == _CHECK_CONDITION  # else the error is of an earlier command
    return False if checked and _UNKNOWN_COMMAND in unit.error() else None


def _error(context: c_void_p) -> str:
    return (_lib.iscsi_get_error(context) or b"").decode("utf-8", "replace").strip()
