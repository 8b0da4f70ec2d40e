"""Exports of NBD servers, which QEMU reaches itself: nothing is connected on this host."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

from moorline import network_disk
from moorline.backends.allowed_directories import LOCAL_DIRECTORIES, Directories
from moorline.backends.connection_info import ConnectionInfo, absolute_path
from moorline.backends.share_spelling import host_and_port
from moorline.errors import Failed, Refused, Uncertain
from moorline.model import Format, Link, Linked, LinkName, NetworkDisk, VolumeId
from moorline.network_disk import PORTS
from moorline.ports import Command, Host, Mount, Option, Values
from moorline.ports.inspection import Finding, GuestDisk
from moorline.ports.recognising import Recognised

ASK_SECONDS = 5.0
"""Seconds that a server has to answer. An attach to one that hangs would stop its guest."""
ASKS = "nbdinfo"
"""The command that asks, of Debian's libnbd-bin."""
NOBODYS = "moorline-asks-for-what-nobody-has"
"""A name by which no server has an export, unless it does not look at names."""
SCHEMES = ("nbd", "nbds", "nbd+unix", "nbds+unix")
_CERTIFICATES = Option(
    "nbd_tls_certificates",
    "/etc/pki/qemu",
    "Where the certificates are with which a server is asked by TLS: those that QEMU has by"
    " libvirt's nbd_tls_x509_cert_dir.",
)
_MAX_SOCKET_BYTES = 107
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Export:
    """An export of a server."""

    disk: NetworkDisk
    volume: VolumeId | None = None
    name: str = ""
    """The link is the volume."""
    format: Format = "raw"


class Nbd:
    """NBD, as QEMU's own client speaks it; decision 66 has why.

    NBD tells nothing of who else has an export, nor what is behind it. So an export is its server's
    name and its own: names are not resolved, and a server that gives the same whatever the name is
    asked without one.
    """

    kind: ClassVar[str] = "nbd"
    yields: ClassVar[frozenset[type]] = frozenset({NetworkDisk})
    options: ClassVar[Sequence[Option]] = (_CERTIFICATES, LOCAL_DIRECTORIES)

    def __init__(
        self,
        host: Host,
        certificates: Path = Path(_CERTIFICATES.default),
        directories: Directories | None = None,
        *,
        deadline: float = ASK_SECONDS,
    ) -> None:
        self._host = host
        self._certificates = certificates
        self._directories = directories or Directories()
        self._deadline = deadline

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Nbd:
        certificates = Path(values[_CERTIFICATES.name])
        if not certificates.is_absolute():
            raise Refused(f"{_CERTIFICATES.name} is not the absolute path of a directory")
        return cls(host, certificates, Directories.from_options(values))

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``nbd[s]://HOST[:PORT][/EXPORT]`` or ``nbd[s]+unix:///[EXPORT]?socket=PATH``.

        As `<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md>`_. *format*: raw, if
        it is given. Raises Refused.
        """
        if format not in (None, "raw"):
            raise Refused(f"an NBD export is raw here, not {format}", hint="leave the format out")
        try:
            parts = urlsplit(url)
            asked = parse_qs(parts.query, strict_parsing=bool(parts.query), max_num_fields=1)
        except ValueError:
            raise _no_url() from None
        unix = parts.scheme.endswith("+unix")
        fits = set(asked) == ({"socket"} if unix else set()) and bool(parts.netloc) is not unix
        if parts.scheme not in SCHEMES or parts.fragment or "@" in parts.netloc or not fits:
            raise _no_url()
        data: dict[str, Any] = {"export": unquote(parts.path.removeprefix("/")), "format": "raw"}
        data |= {"socket": asked["socket"][0]} if unix else {"server": parts.netloc}
        if parts.scheme.startswith("nbds"):
            data["tls"] = True
        return {"driver_volume_type": self.kind, "data": data}

    def url(self, c: Export) -> str:
        """See :class:`moorline.ports.Naming`."""
        return _url(c.disk)

    def parse(self, connection: Mapping[str, Any]) -> Export:
        """Validate a connection. Raises Refused."""
        info = ConnectionInfo(self.kind, connection)
        info.refuse_options()
        info.format(("raw",))
        if info.value("tls") not in (None, False, True):
            raise Refused("the connection's tls is neither true nor false")
        export = "" if info.value("export") in (None, "") else info.text("export")
        if export in (".", ".."):
            raise Refused("an export cannot be called so")
        tls = bool(info.value("tls"))
        return Export(NetworkDisk("nbd", export, (_server(info),), tls), info.volume_id())

    def demand_for_others(self, c: Export) -> None:
        """See :class:`moorline.ports.Confined`: a socket is this host's, a server is not."""
        if (at := c.disk.servers[0]).startswith("/"):
            self._directories.demand_for_others(Path(at))

    def recognise(
        self,
        disk: GuestDisk,
        mount: Mount | None,
        *,
        ours: bool = False,
        known: Sequence[Any] = (),
    ) -> Recognised | None:
        """An export, by what it is known by. Whether it is reached by TLS, that does not tell."""
        if not disk.path.startswith(("nbd://", "nbd+unix://")):
            return None
        return Recognised(self.from_url(disk.path, None))

    def link_name(self, c: Export) -> LinkName:
        """A name only: nothing appears on this host."""
        at = quote(c.disk.servers[0], safe=":[]")
        return LinkName(f"/nbd/{at}" + (f"/{quote(c.disk.name, safe='')}" if c.disk.name else ""))

    def inspect(self, c: Export) -> Link:
        """There is nothing to make. No server is asked: that would be a process for each look."""
        return Linked(c.disk, given=True)

    def verify(self, c: Export) -> NetworkDisk:
        """Ask the server for the export. Raises Refused, Failed, Uncertain."""
        told = self._ask(c.disk)
        if told is None:
            raise Refused(
                f"{_at(c.disk)} has no export of that name",
                hint=f"nbdinfo --list {quote(_url(replace(c.disk, name='')), safe=':/?=[]+')}",
            )
        if told["export-size"] < _SECTOR:
            raise Refused(f"the export of {_at(c.disk)} is empty")
        if c.disk.name and self._ask(replace(c.disk, name=NOBODYS)) is not None:
            raise Refused(
                f"{_at(c.disk)} gives the same whatever the export is called, so two names would be"
                " one disk",
                hint="name the server alone, without an export",
            )
        return replace(c.disk, readonly=told["is_read_only"])

    def size(self, c: Export) -> int:
        """See :class:`moorline.ports.Sizing`."""
        if (told := self._ask(c.disk)) is None:
            raise Failed(f"{_at(c.disk)} has no export of that name")
        size: int = told["export-size"]
        return size

    def connect(self, c: Export) -> None:
        """Nothing is made; the server is only asked."""
        self.verify(c)

    def disconnect(self, c: Export) -> None:
        """There is nothing to undo."""

    def diagnose(self) -> Sequence[Finding]:
        """Whether the command is installed that asks a server."""
        if shutil.which(ASKS):
            return []
        return [
            Finding(
                "missing-client",
                self.kind,
                f"there is no command {ASKS}",
                f"{self.kind} volumes are wanted here, and cannot be attached without it",
                f"command -v {ASKS}",
            )
        ]

    def _ask(self, disk: NetworkDisk) -> Mapping[str, Any] | None:
        """What the server tells of an export; None: it has none of that name.

        Raises Refused (it is no such server, or wants TLS), Failed, Uncertain.
        """
        url = _url(disk)
        if disk.tls:
            url += f"{'&' if '?' in url else '?'}tls-certificates={quote(str(self._certificates))}"
        argv = (ASKS, "--json", "--no-content", "--", url)
        try:
            said = self._host.run(Command(argv, self._deadline)).stdout
        except Uncertain as e:
            raise Uncertain(
                f"{_at(disk)} did not answer within {self._deadline:g} s",
                hint="it hangs, or takes one client at a time and another has it",
            ) from e
        except Failed as e:
            if (found := _refusal(disk, e.message)) is None:
                return None
            raise found from e
        try:
            (told,) = json.loads(said)["exports"]
            return {
                "export-size": int(told["export-size"]),
                "is_read_only": bool(told["is_read_only"]),
            }
        except (ValueError, KeyError, TypeError) as e:
            raise Failed(f"{ASKS} does not tell what {_at(disk)} has") from e


_REFUSED = re.compile(
    r"server (replied with error|policy prevents|rejected|requires)|not supported by the server"
)
"""What libnbd 1.14 (Debian 12) and 1.22 (13) say of a server that answers and gives nothing.

One that goes away meanwhile, or is shutting down, is said otherwise: it is asked again.
"""


def _refusal(disk: NetworkDisk, said: str) -> Refused | Failed | None:
    """Why the server was not asked, or gives nothing; None: it has no export of that name."""
    if "No such file or directory for" in said:  # the answer NBD_REP_ERR_UNKNOWN, by libnbd
        return None
    if _REFUSED.search(said):
        way = "it may want TLS: nbds://" if not disk.tls else "it may not know this host"
        return Refused(f"{_at(disk)} does not give that export: {said}", hint=way)
    return Failed(f"{_at(disk)} was not asked: {said}")


def _at(disk: NetworkDisk) -> str:
    """The server, in words."""
    return f"the NBD server at {disk.servers[0]}"


def _url(disk: NetworkDisk) -> str:
    scheme, _, rest = disk.path.partition("://")
    if not disk.tls:
        return disk.path
    return f"{'nbds' + scheme.removeprefix('nbd')}://{rest}"


def _server(info: ConnectionInfo) -> str:
    """The one server of a connection, as :class:`NetworkDisk` has it. Raises Refused."""
    if info.has("socket") == info.has("server"):
        raise Refused("the connection has not one of server and socket")
    if info.has("socket"):
        return absolute_path(info.text("socket", _MAX_SOCKET_BYTES))
    host, port = host_and_port(info.text("server", 260))
    if not host:
        raise Refused("the connection's server is not HOST or HOST:PORT")
    return network_disk.server(host, port or PORTS["nbd"])


def _no_url() -> Refused:
    return Refused(
        "that is no URL of an NBD export",
        hint="nbd://HOST[:PORT][/EXPORT], nbds:// with TLS, or nbd+unix:///[EXPORT]?socket=PATH",
    )
