"""A guest's QEMU, with one disk, as libvirt and the process table show it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorline.testing.faults import Faults

PATH, INODE, SIZE = "/mnt/share/disk", 77, 1 << 20
VOLUME = "vol-1"
DEAD_MOUNT, MOUNT = 30, 31
XML = """<domain{id}><name>web01</name><uuid>u</uuid><devices>
<disk type='file' device='disk'><driver name='qemu' type='{format}' cache='{cache}' io='native'
 error_policy='{on_error}' rerror_policy='stop'{driver}/><source file='{path}' index='2'/>{more}
<target dev='vdb' bus='virtio'/><serial>vol-1</serial><alias name='ua-vol-1'/></disk>{disks}
</devices></domain>"""


@dataclass
class FakeQemu:
    """What becomes of a guest; changes by the monitor go through *faults*."""

    root: Path
    faults: Faults = field(default_factory=Faults)
    condition: tuple[int, int] = (3, 5)
    """As libvirt tells it: 3, 5 is paused by an I/O error."""
    job: int = 0
    libvirt: int = 9_000_000
    version: tuple[int, int] = (7, 2)
    xml: dict[str, str] = field(default_factory=dict)
    bare: bool = False
    """The disk has no node for its format, as a raw one of libvirt 11.3."""
    drive: str = ""
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    """Between nodes of others."""
    block_jobs: list[Any] = field(default_factory=list)
    at_path: int = INODE
    """The inode number of the file that is at the path now."""
    opens_otherwise: int = 0
    """What QEMU opens instead; 0: the file at the path."""
    errors: dict[str, str] = field(default_factory=dict)
    """What QEMU answers to a command instead of doing it."""
    elsewhere: list[tuple[str, int, int]] = field(default_factory=list)
    """More open files: path, mount and inode."""
    reopens: bool = True
    """QEMU can open the file by itself, where it may."""
    hides: bool = False
    """The guest does not see the mount that is there now."""
    covers: bool = False
    """The mount that is there now lies over the old one, which nobody took away."""
    idle: bool = False
    """QEMU answers that it did what it was told, and does nothing."""
    said: list[str] = field(default_factory=list)
    shown: list[Any] | None = None
    """The open files that the process table shows."""

    def __post_init__(self) -> None:
        self.xml = {
            "id": " id='1'",
            "format": "raw",
            "cache": "none",
            "driver": "",
            "on_error": "stop",
            "more": "",
            "disks": "",
            "path": PATH,
            **self.xml,
        }
        form, direct = self.xml["format"], self.xml["cache"] != "writethrough"
        cache = {"direct": direct, "no-flush": False, "writeback": True}
        made = {"libvirt-2-storage": _node("file", cache, fd=("/disk", DEAD_MOUNT, INODE))}
        if not self.bare:
            made["libvirt-2-format"] = _node(form, cache, file="libvirt-2-storage")
        self.nodes = made | self.nodes
        self.drive = self.drive or self.top

    @property
    def top(self) -> str:
        return "libvirt-2-storage" if self.bare else "libvirt-2-format"

    # --- libvirt's side

    def look(self, subject: str, do: Callable[[Any], Any]) -> Any:
        self.show()
        return do(self)

    change = look

    def of(self, virt: Any, guest: str) -> FakeQemu:
        return self

    def state(self) -> list[int]:
        return list(self.condition)

    def getLibVersion(self) -> int:
        return self.libvirt

    def XMLDesc(self) -> str:
        return XML.format(**self.xml)

    def jobInfo(self) -> list[int]:
        return [self.job]

    def resume(self) -> None:
        def go_on() -> None:
            self.said.append("resume")
            self.condition = (1, 1) if self.works() else (3, 5)

        self.faults.effect(go_on)

    # --- what a guest would see

    def works(self) -> bool:
        """Whether a request of the guest's comes to the file that is there."""
        storage = self.nodes.get("libvirt-2-storage", {})
        return self.drive == self.top and storage.get("fd", ("", 0))[1] == MOUNT

    def written_to(self) -> int:
        """The inode number of the file to which the guest would write; 0: none."""
        return int(self.nodes["libvirt-2-storage"]["fd"][2]) if self.works() else 0

    # --- the monitor's side

    def say(self, domain: Any, text: str) -> str:
        told = json.loads(text)
        command, given = told["execute"], told["arguments"]
        if command in self.errors:
            return json.dumps({"error": {"desc": self.errors[command]}})
        asked = {
            "qom-get": lambda: self.drive,
            "query-named-block-nodes": lambda: [
                {"node-name": name, **node} for name, node in self.nodes.items()
            ],
            "x-debug-query-block-graph": self._graph,
            "query-version": lambda: {
                "qemu": dict(zip(("major", "minor"), self.version, strict=True))
            },
            "query-block-jobs": lambda: self.block_jobs,
        }
        if command in asked:
            return json.dumps({"return": asked[command]()})
        self.faults.effect(lambda: self._change(command, given))
        return json.dumps({"return": {}})

    def _change(self, command: str, given: dict[str, Any]) -> None:
        before = self._is_written()
        self._do(command, given)
        storage = self.nodes.get("libvirt-2-storage")
        if storage and self._is_written() != before and self.reopens:
            # QEMU opens an auto-read-only file by its path when who may write to it changes.
            storage["fd"] = (PATH, MOUNT, self.opens_otherwise or self.at_path)

    def _do(self, command: str, given: dict[str, Any]) -> None:
        self.said.append(f"{command} {given.get('node-name') or given.get('value')}")
        if self.idle:
            return
        if command == "qom-set":
            assert given["path"] == "/machine/peripheral/ua-vol-1"
            assert given["value"] in self.nodes
            self.drive = given["value"]
        elif command == "blockdev-del":
            name = given["node-name"]
            assert name != self.drive
            assert not any(node.get("file") == name for node in self.nodes.values())
            del self.nodes[name]
        else:
            assert command == "blockdev-add"
            assert given["node-name"] not in self.nodes
            fd = None
            if given["driver"] == "file":
                assert given["filename"] == PATH
                # As libvirt's monitor log has it (9.0 and 11.3).
                beneath = {"auto-read-only": True, "discard": "unmap"}
                assert given["aio"] == "native"
                own = {"driver", "filename", "node-name", "aio", "cache"}
                said = {key: given[key] for key in given.keys() - own}
                assert said == ({"read-only": False} if self.bare else beneath)
                fd = (PATH, MOUNT, self.opens_otherwise or self.at_path)
            elif given["driver"] == "blkdebug":
                assert given["inject-error"] == [{"event": "none", "errno": 5}]  # of each request
            else:
                alone = {"backing": None} if given["driver"] == "qcow2" else {}
                own = {"driver", "node-name", "file", "cache"}
                said = {key: given[key] for key in given.keys() - own}
                assert said == {"read-only": False, **alone}
            cache = given.get("cache", {})
            assert not cache.get("no-flush"), "what the guest flushes is to be stored"
            size = given["image"]["size"] if "image" in given else SIZE
            node = _node(given["driver"], cache, file=given.get("file"), fd=fd, size=size)
            self.nodes[given["node-name"]] = node

    def _is_written(self) -> bool:
        """Whether somebody may write to the file: an image with metadata, or the disk."""
        top = self.nodes.get("libvirt-2-format")
        return bool(top) and (top["drv"] != "raw" or self.drive == self.top)

    def _graph(self) -> dict[str, Any]:
        ids = {name: number for number, name in enumerate(self.nodes)}
        edges = [(name, node["file"]) for name, node in self.nodes.items() if node.get("file")]
        edges += self.edges
        backend = len(ids)
        return {
            "nodes": [
                *({"id": n, "type": "block-driver", "name": name} for name, n in ids.items()),
                {"id": backend, "type": "block-backend", "name": "/machine/…/virtio-backend"},
            ],
            "edges": [
                {"parent": backend, "child": ids[self.drive], "name": "root"},
                *({"parent": ids[a], "child": ids[b], "name": "file"} for a, b in edges),
            ],
        }

    # --- the process table

    def show(self) -> None:
        """Write what the kernel shows of the process, where it does not say so yet."""
        files = [node["fd"] for node in self.nodes.values() if node.get("fd")] + self.elsewhere
        if self.shown == files:
            return
        self.shown = list(files)
        for name in ("42", "self"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir(parents=True)
            mounts = ["1 0 8:1 / / rw - ext4 /dev/sda rw"]
            if self.covers:
                mounts.append(f"{DEAD_MOUNT} 1 0:50 / /mnt/share rw - fuse.quobyte q rw")
            if name == "self" or not self.hides:
                mounts.append(f"{MOUNT} 1 0:51 / /mnt/share rw - fuse.quobyte q rw")
            (self.root / name / "mountinfo").write_text("\n".join([*mounts, ""]))
        (self.root / "web01.pid").write_text("42")
        for number, (path, mount, inode) in enumerate(files):
            for kind in ("fd", "fdinfo"):
                (self.root / "42" / kind).mkdir(exist_ok=True)
            (self.root / f"42/fd/{number}").symlink_to(path)
            facts = f"pos:\t0\nflags:\t02\nmnt_id:\t{mount}\nino:\t{inode}\n"
            (self.root / f"42/fdinfo/{number}").write_text(facts)
        for kind in ("fd", "fdinfo"):
            (self.root / "42" / kind).mkdir(exist_ok=True)


def _node(driver: str, cache: Any, **more: Any) -> dict[str, Any]:
    size = more.pop("size", SIZE)
    facts = {"drv": driver, "ro": False, "encrypted": False, "cache": cache}
    return {**facts, "image": {"virtual-size": size}, **more}
