"""What can be said of how a volume is a disk of its guest: each option is declared here, once.

Commands, files of declared attachments, the API, the store and the views are made from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from types import MappingProxyType
from typing import Any

from moorline.errors import Refused

Limits = tuple[tuple[str, int], ...]
"""How much a guest may ask of a disk, by the names of options; what is not named has no limit."""
_WWN = re.compile("[0-9a-fA-F]{16}")
MOST = 10**15
"""The most that QEMU takes as a limit (THROTTLE_VALUE_MAX of its include/qemu/throttle.h)."""


class Kind(Enum):
    """What a value is."""

    TEXT = "text"
    CHOICE = "choice"
    FLAG = "flag"
    COUNT = "count"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class DiskOption:
    """One option as it is declared."""

    name: str
    """The attribute of :class:`DiskOptions`, and how it is recorded."""
    help: str
    kind: Kind
    default: Any
    choices: Sequence[str] = ()
    least: int = 0
    most: int = MOST
    spoken: str = ""
    """What it is called in a sentence."""
    short: str = ""
    """Another name in commands, which is quicker to type."""
    typed_as: str = ""
    metavar: str = ""
    live: bool = False
    """Whether it can be changed while the disk is plugged."""
    one: bool = False
    """Whether it is of one volume, and cannot be said of several at once."""

    @property
    def typed(self) -> str:
        """Its name in commands."""
        return self.typed_as or self.name.replace("_", "-")

    @property
    def declared(self) -> str:
        """Its name in a file of declared attachments."""
        return self.typed.replace("-", "_")


def _said(kind: Kind, default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"is": {"kind": kind, "help": help, **more}})


def _choice(help: str, *choices: str, **more: Any) -> Any:
    return _said(Kind.CHOICE, "", help, choices=choices, **more)


def _count(help: str, least: int, most: int, **more: Any) -> Any:
    return _said(Kind.COUNT, 0, help, least=least, most=most, **more)


def _limit(help: str, kind: Kind = Kind.COUNT, **more: Any) -> Any:
    return _said(kind, None, help, live=True, **more)


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """How a volume appears in the guest. Empty text, 0 and None: it is not said.

    A limit of 0 says that there is none, and None leaves it as it is: a disk that has
    limits of somebody else's keeps them. All limits are as libvirt's of the same names.
    """

    bus: str = _said(Kind.TEXT, "", "virtio, scsi, usb or sata; default: virtio.", metavar="BUS")
    target: str = _said(
        Kind.TEXT, "", "Such as vdb; default: the next free.", metavar="DEV", one=True
    )
    device: str = _choice(
        "A LUN, to which the guest sends its own SCSI commands, or a disc in a drive (cdrom), which"
        " is read-only; default: a disk.",
        *("lun", "cdrom"),
        one=True,
    )
    reservations: bool = _said(
        Kind.FLAG,
        False,
        "A LUN that is a device of this host can be reserved by its guest (SCSI-3), as clusters do;"
        " qemu-pr-helper does that for it.",
        one=True,
    )
    readonly: bool = _said(
        Kind.FLAG, False, "The guest may only read.", typed_as="read-only", spoken="read-only"
    )
    shared: bool = _said(Kind.FLAG, False, "Other guests write to it as well, and know how.")
    """Several guests write to it at once, and its users know how to do that."""
    boot: int = _count(
        "Its place in the order of devices that the guest boots from; 1: the first.",
        *(1, 999),
        typed_as="boot-order",
        spoken="the place in the boot order",
        one=True,
    )
    """0: nothing is said of it, and a volume keeps the place that it has."""
    startup_policy: str = _choice(
        "What becomes of a guest that is started while the volume's file is missing: it is not"
        " started (mandatory, which is libvirt's default), or starts without the disk (optional).",
        *("mandatory", "optional"),
        spoken="what a start without the volume's file does",
    )
    """A disk that was left out is plugged in again once its file is there."""
    on_error: str = _choice(
        "What an I/O error does: stop pauses the guest, report tells it, enospace (QEMU's default)"
        " pauses it for want of space alone.",
        *("stop", "report", "enospace"),
        spoken="what an I/O error does",
    )
    """What an I/O error does: ``stop`` pauses the guest, all of it, until somebody resumes it;
    ``report`` tells the guest's system; ``enospace`` does the one for want of space and the other
    else. It holds for as long as the disk is plugged."""
    cache: str = _choice(
        "Whether writes pass the host's page cache; default: as the storage needs it.",
        *("none", "writeback", "writethrough", "directsync"),
    )
    io: str = _choice(
        "How QEMU does I/O; native needs the cache none or directsync.",
        *("native", "threads", "io_uring"),
    )
    discard: str = _choice(
        "Whether what the guest discards is given back to the storage.", "unmap", "ignore"
    )
    detect_zeroes: str = _choice("What is done with zeroes that are written.", "off", "on", "unmap")
    queues: int = _count("Queues of a virtio disk.", 1, 1024)
    iothread: int = _count("Which of its guest's I/O threads serves a virtio disk.", 1, 65535)
    logical_block_size: int = _count("Bytes of a block, as the guest sees it.", 512, 2 << 20)
    physical_block_size: int = _count("Bytes of a block, as the guest is told.", 512, 2 << 20)
    rotation_rate: int = _count("Turns a minute; 1: an SSD. For scsi and sata.", 1, 65534)
    wwn: str = _said(
        Kind.TEXT, "", "World wide name, 16 hex digits. For scsi and sata.", metavar="WWN", one=True
    )
    total_iops_sec: int | None = _limit("Requests a second, at most; 0: any.", short="iops")
    read_iops_sec: int | None = _limit("Reads a second, at most.", short="read-iops")
    write_iops_sec: int | None = _limit("Writes a second, at most.", short="write-iops")
    total_bytes_sec: int | None = _limit("Bytes a second, at most.", Kind.BYTES)
    read_bytes_sec: int | None = _limit("Bytes read a second, at most.", Kind.BYTES)
    write_bytes_sec: int | None = _limit("Bytes written a second, at most.", Kind.BYTES)
    total_iops_sec_max: int | None = _limit("Requests a second in a burst.")
    read_iops_sec_max: int | None = _limit("Reads a second in a burst.")
    write_iops_sec_max: int | None = _limit("Writes a second in a burst.")
    total_bytes_sec_max: int | None = _limit("Bytes a second in a burst.", Kind.BYTES)
    read_bytes_sec_max: int | None = _limit("Bytes read a second in a burst.", Kind.BYTES)
    write_bytes_sec_max: int | None = _limit("Bytes written a second in a burst.", Kind.BYTES)
    total_iops_sec_max_length: int | None = _limit("Seconds of that burst; default: 1.")
    read_iops_sec_max_length: int | None = _limit("Seconds of that burst.")
    write_iops_sec_max_length: int | None = _limit("Seconds of that burst.")
    total_bytes_sec_max_length: int | None = _limit("Seconds of that burst.")
    read_bytes_sec_max_length: int | None = _limit("Seconds of that burst.")
    write_bytes_sec_max_length: int | None = _limit("Seconds of that burst.")
    size_iops_sec: int | None = _limit(
        "Bytes that count as one request; a larger one counts as several.", Kind.BYTES
    )
    shares: int | None = _limit(
        "Its part of a busy datastore, beside the 1000 of a disk of which nothing is said; 0: as"
        " those. For vSphere."
    )

    def asked(self) -> dict[str, Any]:
        """The options that say something, by name: all that is recorded and sent."""
        values = ((name, default, getattr(self, name)) for name, default in _DEFAULTS)
        return {name: value for name, default, value in values if value != default}

    def limits(self) -> Limits | None:
        """All limits of the disk as they are wanted; None: nothing is said of them."""
        told = {name: getattr(self, name) for name in LIMITS}
        if all(value is None for value in told.values()):
            return None
        return normal({name: value for name, value in told.items() if value})


_DEFAULTS: Sequence[tuple[str, Any]] = tuple(
    (each.name, each.default) for each in fields(DiskOptions)
)
OPTIONS: Sequence[DiskOption] = tuple(
    DiskOption(each.name, default=each.default, **each.metadata["is"])
    for each in fields(DiskOptions)
    if each.metadata
)
"""All that can be said by who attaches a disk, in the order in which it is told to people."""
BY_NAME: Mapping[str, DiskOption] = MappingProxyType({each.name: each for each in OPTIONS})
LIMITS: Sequence[str] = tuple(each.name for each in OPTIONS if each.live)
"""The names of the limits: what can be changed while a disk is plugged."""
RATES: Sequence[str] = tuple(
    f"{of}_{what}_sec" for what in ("iops", "bytes") for of in ("total", "read", "write")
)
"""The limits that do not depend on another one."""


def normal(limits: Mapping[str, int]) -> Limits:
    """*limits* in the one way in which equal ones are equal: a burst has its length told."""
    bursts = {f"{rate}_max_length": 1 for rate in RATES if limits.get(f"{rate}_max")}
    return tuple(sorted((bursts | {k: v for k, v in limits.items() if v}).items()))


def validate(options: DiskOptions) -> None:
    """Refuse what no disk can be. Raises Refused."""
    for name, value in options.asked().items():
        if name in BY_NAME:
            _check(BY_NAME[name], value)
    _check_blocks(options)
    if options.device == "cdrom" and not options.readonly:
        raise Refused("a disc can only be read", hint="--read-only")
    if options.reservations and options.device != "lun":
        raise Refused("what is no LUN has no reservations", hint="--device lun")
    if options.io == "native" and options.cache not in ("", "none", "directsync"):
        raise Refused(f"I/O cannot be native with the cache {options.cache}")
    if options.wwn and not _WWN.fullmatch(options.wwn):
        raise Refused("the wwn is not 16 hex digits")
    if (limits := options.limits()) is not None:
        _check_limits(dict(limits))


def _check(option: DiskOption, value: Any) -> None:
    if option.kind is Kind.FLAG:
        fits = isinstance(value, bool)
    elif option.kind in (Kind.COUNT, Kind.BYTES):
        fits = type(value) is int and option.least <= value <= option.most
    else:
        fits = isinstance(value, str)
        if fits and option.choices and value not in option.choices:
            raise Refused(f"{option.name} is none of {', '.join(option.choices)}")
    if not fits:
        number = option.kind in (Kind.COUNT, Kind.BYTES)
        what = f"a whole number from {option.least} to {option.most}" if number else "such a value"
        raise Refused(f"{option.name} is not {what}")


def _check_blocks(options: DiskOptions) -> None:
    logical, physical = options.logical_block_size, options.physical_block_size
    for size in (logical, physical):
        if size & (size - 1):
            raise Refused(f"a block of {size} bytes is no power of 2")
    if physical and physical < (logical or 512):
        raise Refused("the physical_block_size is smaller than the logical_block_size")


def _check_limits(limits: Mapping[str, int]) -> None:
    """As QEMU would, and before it is asked (throttle_is_valid of its util/throttle.c)."""
    for what in ("iops", "bytes"):
        for end in ("", "_max"):
            parts = [f"{of}_{what}_sec{end}" for of in ("read", "write")]
            total = f"total_{what}_sec{end}"
            if total in limits and (both := [part for part in parts if part in limits]):
                raise Refused(
                    f"{total} is not set together with {both[0]}",
                    hint=f"take one away: {total}=0, or {both[0]}=0",
                )
    for rate in RATES:
        most, length = limits.get(f"{rate}_max", 0), limits.get(f"{rate}_max_length", 0)
        if most and most < max(1, limits.get(rate, 0)):
            raise Refused(f"{rate}_max is smaller than {rate}")
        if most and rate not in limits:
            raise Refused(f"{rate}_max is set without {rate}")
        if length and not most:
            raise Refused(f"{rate}_max_length is set without {rate}_max")
        if most * length > MOST:
            raise Refused(f"{rate}_max_length is too long for {rate}_max")
    if "size_iops_sec" in limits and not any("iops" in rate for rate in RATES if rate in limits):
        raise Refused("size_iops_sec is set without a limit of requests")


AS_IT_COMES = DiskOptions()
"""Nothing is said."""


def refuse_others(what: str, options: DiskOptions, taken: Collection[str]) -> None:
    """Refuse options that a hypervisor does not take. *what*: its disks; *taken*: the others."""
    for name in options.asked():
        if name in BY_NAME and name not in taken:
            raise Refused(f"{what} have no {BY_NAME[name].typed}", hint="leave it out")


def spoken(name: str) -> str:
    """What the option *name* is called in a sentence."""
    return BY_NAME[name].spoken or BY_NAME[name].declared
