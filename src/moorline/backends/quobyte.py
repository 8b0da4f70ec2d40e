"""Quobyte: ``mount.quobyte``, a FUSE mount for each Quobyte volume."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from moorline.backends.connection_info import (
    ConnectionInfo,
    file_name,
    given_mounts,
    typed,
)
from moorline.backends.filesystem import FileOnShare, FileSystem
from moorline.backends.mounter import Mounter
from moorline.backends.share_spelling import known_as, server
from moorline.errors import Refused
from moorline.model import Caching, Format
from moorline.ports import Host, Mount, Option, Root, Values

SCHEME = "quobyte://"
FORMATS: tuple[Format, ...] = ("raw", "qcow2", "luks")
MAX_REGISTRIES = 32
PORT = "7861"
"""A registry's port if none is given (as in the sources of the client's mounts)."""

_VOLUME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuobyteFile(FileOnShare):
    """A disk image on a Quobyte volume."""

    registries: tuple[str, ...]
    """``host[:port]``, in the order of the connection."""
    quobyte_volume: str


class Quobyte(FileSystem[QuobyteFile]):
    """Quobyte volumes. *client_cfg*: the client's configuration file (``-c``).

    What the client's mounts look like, and that the root of a live one has size 0,
    is as in Nova's driver (nova/virt/libvirt/volume/quobyte.py). Exit codes are not
    documented, so none is relied on: the mount is looked at instead.
    """

    kind: ClassVar[str] = "quobyte"
    caching: ClassVar[Caching] = Caching.DIRECT
    options: ClassVar[Sequence[Option]] = (
        Option(
            "quobyte_mount_point_base",
            "${moorline.state_dir}/mnt",
            "Directory of the mount points of Quobyte volumes.",
        ),
        Option("quobyte_client_cfg", "", "Path of a Quobyte client configuration file."),
        Option(
            "quobyte_mount_user",
            "",
            "Mount Quobyte volumes as this user, who needs user_allow_other in /etc/fuse.conf."
            " Default: the user that moorline runs as.",
        ),
        Option(
            "quobyte_mounted",
            "",
            "Volumes that the operator mounts: REGISTRY[,REGISTRY]/VOLUME=/path, comma-separated.",
        ),
        Option(
            "quobyte_mount_points",
            "",
            "Where volumes are mounted instead, as quobyte_mounted: for mounts that Nova made.",
        ),
        Option(
            "quobyte_share_writes_through",
            "",
            "Volumes, REGISTRY[,REGISTRY]/VOLUME with blanks between them, whose client keeps no"
            " write back that it acknowledged: guests that an I/O error paused get their disks"
            " anew when that client died. Read docs/survive.md first.",
        ),
    )

    def __init__(self, client_cfg: Path | None = None, writing_through: str = "") -> None:
        if client_cfg is not None and not client_cfg.is_absolute():
            raise Refused(f"quobyte_client_cfg, {client_cfg}, is not an absolute path")
        self._client_cfg = client_cfg
        try:
            exports = [_export(share) for share in writing_through.split()]
        except Refused as e:
            raise Refused(
                f"quobyte_share_writes_through, {writing_through!r}: {e.message}",
                hint="REGISTRY[,REGISTRY]/VOLUME, with blanks between several",
            ) from e
        self._writing_through = frozenset(name for each in exports for name in _names(*each))

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Mounter[QuobyteFile]:
        cfg = values["quobyte_client_cfg"]
        return Mounter(
            host,
            cls(Path(cfg) if cfg else None, values["quobyte_share_writes_through"]),
            Path(values["quobyte_mount_point_base"]),
            user=values["quobyte_mount_user"],
            given=given_mounts("quobyte_mounted", values["quobyte_mounted"]),
            places=given_mounts("quobyte_mount_points", values["quobyte_mount_points"]),
        )

    def clients(self, *, given: bool) -> Sequence[str]:
        return ("mount.quobyte",)

    @classmethod
    def canonical(cls, share: str) -> str:
        return _share(*_export(share))

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``quobyte://REGISTRY[,REGISTRY…]/VOLUME/FILE`` to a connection. Raises Refused."""
        registries, _, rest = url.removeprefix(SCHEME).partition("/")
        volume, _, name = rest.partition("/")
        if not url.startswith(SCHEME) or not name:
            raise Refused(
                "the URL does not name a file on Quobyte",  # not quoted: it may hold a password
                hint="quobyte://REGISTRY[,REGISTRY]/VOLUME/FILE",
            )
        _export(f"{registries}/{volume}")
        connection = {"export": f"{registries}/{volume}", "name": file_name(name)}
        return typed(self.kind, connection, format)

    def parse(self, connection: Mapping[str, Any]) -> QuobyteFile:
        """Validate Cinder's connection. Raises Refused.

        Credentials in it are not read: the client has its own.
        """
        info = ConnectionInfo(self.kind, connection)
        registries, volume = _export(info.text("export", 4096).removeprefix(SCHEME))
        info.refuse_options()
        return QuobyteFile(
            share=_share(registries, volume),
            name=info.file_name(),
            format=info.format(FORMATS),
            volume=info.volume_id(),
            registries=registries,
            quobyte_volume=volume,
        )

    def shares(self, c: QuobyteFile) -> frozenset[str]:
        """Each registry knows the volume: one that two connections have in common will do."""
        return _names(c.registries, c.quobyte_volume)

    def writes_through(self, c: QuobyteFile) -> bool:
        said = self._writing_through
        return bool(said) and not said.isdisjoint(self.shares(c))

    def claims(self, mount: Mount) -> bool:
        ours = mount.source.startswith("quobyte@")
        return mount.fstype == "fuse.quobyte" or (mount.fstype == "fuse" and ours)

    def exports(self, mount: Mount) -> Sequence[str]:
        """Without the usual port, which connections seldom have, and as the source has it."""
        told, _, volume = mount.source.removeprefix("quobyte@").partition("/")
        registries = told.split("|")
        spelled = ([name.removesuffix(f":{PORT}") for name in registries], registries)
        exports = dict.fromkeys(f"{','.join(names)}/{volume.strip('/')}" for names in spelled)
        return [export for export in exports if _is_export(export)]

    def is_mount_of(self, c: QuobyteFile, mount: Mount) -> bool:
        """Judge by the type, and by the volume where the source tells it.

        The registries in it are spelled by the client's version: ``a:7861`` or
        ``a:7861|b:7861``, in any order.
        """
        if not self.claims(mount):
            return False
        volume = mount.source.partition("/")[2].strip("/")
        return not volume or volume == c.quobyte_volume

    def mount_command(self, c: QuobyteFile, at: Path) -> tuple[str, ...]:
        # --disable-xattrs, as Nova has it: QEMU needs none, and asking costs.
        share = f"{','.join(c.registries)}/{c.quobyte_volume}"
        config = ("-c", str(self._client_cfg)) if self._client_cfg else ()
        return ("mount.quobyte", "--disable-xattrs", share, str(at), *config)

    def defect(self, root: Root) -> str:
        return f"its root has the size {root.size}, not 0" if root.size else ""


def _export(export: str) -> tuple[tuple[str, ...], str]:
    registries, _, volume = export.partition("/")
    if not _VOLUME.fullmatch(volume):
        raise Refused(
            "the connection's export does not name a Quobyte volume",
            hint="its name has 1 to 128 of A-Z a-z 0-9 _ . + - (no blanks), and begins with"
            " a letter, a digit or _",
        )
    names = registries.split(",")
    if len(names) > MAX_REGISTRIES:
        raise Refused(f"the connection's export has more than {MAX_REGISTRIES} registries")
    return tuple(_registry(name) for name in names), volume


def _is_export(text: str) -> bool:
    try:
        _export(text)
    except Refused:
        return False
    return True


def _share(registries: Sequence[str], volume: str) -> str:
    """A share in one spelling, whatever the order of its registries."""
    return f"{','.join(sorted(set(registries)))}/{volume}"


def _names(registries: Sequence[str], volume: str) -> frozenset[str]:
    return frozenset(f"{known_as(name, PORT)}/{volume}" for name in registries)


def _registry(text: str) -> str:
    if name := server(text):
        return name
    raise Refused("the connection's export does not name Quobyte registries (host[:port])")
