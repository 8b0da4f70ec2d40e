"""Which block nodes a disk of a guest has, and which call brings it nearer to what it should have.

Pure. libvirt makes two nodes for a disk, ``libvirt-N-format`` over ``libvirt-N-storage``, N being
the index of its source in the XML, and knows them by these names; libvirt 11.3 makes a raw disk's
storage alone. A disk cannot be given another file beneath its nodes: QEMU flushes the old one
first, which fails. So the nodes are deleted and made anew under their names, while the disk is on a
placeholder that fails each request. The failed requests of a guest that was paused by an error wait
in the disk, and go to whatever node is there when it goes on.

QEMU itself opens a file anew by its path where libvirt said ``auto-read-only`` (beneath a format)
and whether anybody may write to it changes: when a raw disk goes to the placeholder, and is back;
when the node of an image with metadata goes, and is made. Such a node of a file may stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from moorline.errors import Refused
from moorline.hypervisors.libvirt.monitor import Call

_EIO = 5
_DRIVER = frozenset({"name", "type", "cache", "io", "error_policy", "rerror_policy"})
_FRONT_END = frozenset({"iothread", "queues", "queue_size", "ioeventfd", "event_idx", "packed"})
"""Attributes of ``<driver>`` that are of the disk, and not of its nodes."""
_PARTS = frozenset(
    {"driver", "source", "backingStore", "target", "serial", "alias", "boot", "address"}
)
_SOURCE_PARTS = frozenset({"seclabel", "privateData"})
_CACHES = {"none": True, "directsync": True}
"""Whether the page cache is bypassed. With others QEMU, or the host, keeps writes back; with
writethrough new nodes go on to fail writes with the error of the old ones (QEMU 7.2)."""
_LEFT_BY_LIBVIRT = {"name": "libvirt-tmp-activewrite", "persistent": False, "busy": False}
"""What a guest writes while a copy or commit ends, for other bitmaps. libvirt 11.3 leaves it on a
raw image that has no node for its format; nobody reads it when that is over."""
_WITH_METADATA = ("directsync",)
"""What an image with metadata must have: with cache=none QEMU keeps these in its memory until
the guest flushes, and new nodes would not have them."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The nodes of a disk: its format over its file, or its file alone."""

    target: str
    alias: str
    path: str
    format: str
    index: str
    direct: bool
    aio: str
    """How QEMU reads and writes; '': its default."""
    is_bare: bool = False
    """It has no node for its format."""

    @property
    def top(self) -> str:
        return self.storage if self.is_bare else f"libvirt-{self.index}-format"

    @property
    def storage(self) -> str:
        return f"libvirt-{self.index}-storage"

    @property
    def hold(self) -> str:
        """The placeholder."""
        return f"moorline-hold-{self.index}"

    @property
    def cache(self) -> Mapping[str, bool]:
        return {"direct": self.direct, "no-flush": False}


@dataclass(frozen=True, slots=True)
class Graph:
    """The block nodes of a guest, and on which of them the disk is."""

    drive: str
    nodes: Mapping[str, Mapping[str, Any]]
    """As query-named-block-nodes tells them, by name."""
    edges: Collection[tuple[str, str]]
    """Parent and child; the parent of what a device is on is a backend, without a name of a node:
    ''."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a guest's process has open that may be a disk's file, by its inode number."""

    here: frozenset[int]
    """By its path, on the mount that is there now."""
    lost: frozenset[int]
    """On a mount that is no more."""


def chain_of(disk: ET.Element, *, raw_is_bare: bool) -> Chain:
    """The nodes that a ``<disk>`` of a running guest has. Raises Refused if it may have others.

    *raw_is_bare*: a raw image has no node for its format.
    """
    target = _get(disk, "target", "dev")
    driver, source = disk.find("driver"), disk.find("source")
    if driver is None or source is None or disk.get("type") != "file":
        raise _not_tried(target, "it is no file")
    backing = disk.find("backingStore")
    if backing is not None and len(backing):
        raise _not_tried(target, "it has a backing file")
    odd = {each.tag for each in disk} - _PARTS
    odd |= {each.tag for each in source} - _SOURCE_PARTS
    odd |= set(driver.keys()) - _DRIVER - _FRONT_END
    odd |= {each.tag for each in driver}
    if odd:
        raise _not_tried(target, f"its definition has {', '.join(sorted(odd))}")
    form, cache = driver.get("type", "raw"), driver.get("cache", "default")
    if form not in ("raw", "qcow2") or cache not in _CACHES:
        raise _not_tried(target, f"it is {form} with cache={cache}")
    if form != "raw" and cache not in _WITH_METADATA:
        raise Refused(
            f"{target} is {form} with cache={cache}: what QEMU has in its memory of the image would"
            " be lost, silently",
            hint=f"such a disk must have cache={' or '.join(_WITH_METADATA)}",
        )
    index, alias = source.get("index", ""), _get(disk, "alias", "name")
    if not index or not alias:
        raise _not_tried(target, "libvirt does not tell its nodes")
    return Chain(
        *(target, alias, source.get("file", ""), form, index),
        _CACHES[cache],
        driver.get("io", ""),
        is_bare=raw_is_bare and form == "raw",
    )


def demand_stopped_by_errors(disk: ET.Element, chain: Chain) -> None:
    """Refuse a disk whose guest is told of an error, instead of being paused by it."""
    policies = {_get(disk, "driver", name) for name in ("error_policy", "rerror_policy")}
    if policies != {"stop"}:
        raise Refused(
            f"an error of {chain.target} is told to the guest, and does not pause it",
            hint="it must have been attached with --on-error stop",
        )


def demand_expected(chain: Chain, graph: Graph) -> None:
    """Refuse a disk that has other nodes than *chain*, or nodes that somebody else uses too.

    A copy, a commit, a backup, a throttle filter, LUKS and the like all have nodes of their own;
    what is in a node's memory alone goes with it (bitmaps).
    """
    ours = {("", chain.top), *([] if chain.is_bare else [(chain.top, chain.storage)])}
    touching = [e for e in graph.edges if {chain.top, chain.storage} & {*e}]
    if graph.drive != chain.top or sorted(touching) != sorted(ours):
        raise _not_tried(chain.target, f"its block nodes are {_said(touching)}")
    drivers = {chain.top: chain.format, chain.storage: "file"}
    for name, driver in drivers.items():
        node = graph.nodes.get(name, {})
        cache = node.get("cache", {})
        odd = node.get("ro") or node.get("encrypted") or not node.get("active", True)
        if node.get("drv") != driver or odd:
            raise _not_tried(chain.target, f"{name} is not as it was made")
        if (cache.get("direct"), cache.get("no-flush")) != (chain.direct, False):
            raise _not_tried(chain.target, f"{name} has another cache than {dict(chain.cache)}")
        if not all(bitmap | _LEFT_BY_LIBVIRT == bitmap for bitmap in node.get("dirty-bitmaps", ())):
            raise _not_tried(chain.target, f"{name} has a bitmap, as of a checkpoint")


def next_call(chain: Chain, graph: Graph, opened: Opened, inode: int) -> Call | None:
    """The one call that brings a disk nearer to a file that is there; None: it has it.

    By what is seen alone, so that it goes on wherever it was left. *inode*: of the file that it is
    to have. Raises Refused: the disk stays as it is.
    """
    is_old = bool(opened.lost) and not opened.here
    if graph.drive == chain.top:
        if is_old:
            return _set(chain, chain.hold) if chain.hold in graph.nodes else _add_hold(chain, graph)
        _demand_open(chain, opened, inode)
        return _delete(chain.hold) if chain.hold in graph.nodes else None
    if graph.drive != chain.hold:
        raise _not_tried(chain.target, f"its block nodes begin with {graph.drive}")
    if chain.storage in graph.nodes and is_old:
        return _delete(chain.top if chain.top in graph.nodes else chain.storage)
    if chain.storage not in graph.nodes:
        return _add_storage(chain)
    _demand_open(chain, opened, inode)
    if chain.top not in graph.nodes:
        return _add_format(chain)
    size, before = (_size(graph.nodes[name]) for name in (chain.top, chain.hold))
    if size != before:
        raise Refused(f"{chain.path} has {size} bytes for a guest now, and had {before}")
    return _set(chain, chain.top)


def call_away(chain: Chain, graph: Graph, opened: Opened, inode: int) -> Call | None:
    """The call that takes a disk off another file than it is to have; None: it is on none.

    That one came to its path while QEMU opened it.
    """
    is_astray = graph.drive == chain.top and opened.here and opened.here != {inode}
    return _set(chain, chain.hold) if is_astray and chain.hold in graph.nodes else None


def begins(chain: Chain, graph: Graph, call: Call) -> bool:
    """Whether nothing of the disk was changed before *call*."""
    return graph.drive == chain.top and call.command != "blockdev-del"


def may_open(call: Call) -> bool:
    """Whether QEMU may open the file anew by *call*, or let the guest write to it."""
    return call.command != "blockdev-del"


def graph_of(drive: str, nodes: Sequence[Mapping[str, Any]], graph: Mapping[str, Any]) -> Graph:
    """What the monitor answered: to qom-get, query-named-block-nodes, x-debug-query-block-graph."""
    names = {
        each["id"]: each["name"] if each["type"] == "block-driver" else ""
        for each in graph["nodes"]
    }
    edges = [(names[each["parent"]], names[each["child"]]) for each in graph["edges"]]
    return Graph(drive, {node["node-name"]: node for node in nodes}, edges)


def _demand_open(chain: Chain, opened: Opened, inode: int) -> None:
    if opened.here != {inode}:
        raise Refused(
            f"QEMU has not the file open that was checked at {chain.path}: the disk {chain.target}"
            " stays as it is"
        )


def _add_hold(chain: Chain, graph: Graph) -> Call:
    image = {"driver": "null-co", "size": _size(graph.nodes[chain.top])}
    fails = [{"event": "none", "errno": _EIO}]
    what = {"driver": "blkdebug", "node-name": chain.hold, "inject-error": fails, "image": image}
    return Call("blockdev-add", what)


def _add_storage(chain: Chain) -> Call:
    aio = {"aio": chain.aio} if chain.aio else {}
    # What libvirt says: what a guest discards is to take no space beneath a format alone.
    beneath = {"auto-read-only": True, "discard": "unmap"}
    options = {**({"read-only": False} if chain.is_bare else beneath), "cache": chain.cache, **aio}
    what = {"driver": "file", "filename": chain.path, "node-name": chain.storage}
    return Call("blockdev-add", {**what, **options})


def _add_format(chain: Chain) -> Call:
    what = {"driver": chain.format, "node-name": chain.top, "file": chain.storage}
    alone = {"backing": None} if chain.format == "qcow2" else {}
    return Call("blockdev-add", {**what, **alone, "read-only": False, "cache": chain.cache})


def _set(chain: Chain, node: str) -> Call:
    at = {"path": f"/machine/peripheral/{chain.alias}", "property": "drive"}
    return Call("qom-set", {**at, "value": node})


def _delete(node: str) -> Call:
    return Call("blockdev-del", {"node-name": node})


def _size(node: Mapping[str, Any]) -> int:
    return int(node["image"]["virtual-size"])


def _said(edges: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{parent or 'a device'} over {child}" for parent, child in sorted(edges))


def _not_tried(target: str, why: str) -> Refused:
    return Refused(f"the disk {target} cannot be given its file anew: {why}")


def _get(element: ET.Element, child: str, attribute: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(attribute, "")
