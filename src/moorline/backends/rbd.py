"""Images of Ceph, which QEMU reaches itself by librbd: nothing is mapped on this host."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from moorline.backends import cephx
from moorline.backends.connection_info import ConnectionInfo, absolute_path
from moorline.backends.osbrick.properties import block_facts
from moorline.backends.rbd_command import ASKS, Images, Told
from moorline.backends.share_spelling import host_and_port
from moorline.errors import Denied, Failed, Refused
from moorline.model import Format, Link, Linked, LinkName, NetworkDisk, VolumeId
from moorline.network_disk import PORTS, NetworkLogin, server
from moorline.ports import Host, Option, Values
from moorline.ports.inspection import Finding

USER = Option(
    "rbd_user",
    "",
    "As which user of Ceph images are asked for that are typed; others than root get no image by"
    " the key of another. Default: Ceph asks for no key.",
)
KEYRINGS = Option(
    "rbd_keyrings",
    "/etc/ceph",
    "The directory of the users' keys, CLUSTER.client.USER.keyring, for connections without one.",
)
LOOK_DEADLINE_SECONDS = 5.0
"""Seconds that a cluster has for each question. An attach to one that hangs stops its guest."""
_NAME = re.compile(r"(?!-)[^/@]{1,200}")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_URL = re.compile(r"rbd://(?P<servers>[^/@]*)/(?P<pool>[^/?#]+)/(?P<image>[^/?#]+)")
_EXAMPLE = "rbd://MONITOR[:PORT][,MONITOR…]/POOL/IMAGE[@SNAPSHOT]"
_MAX_SERVERS = 32
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a pool, or a snapshot of one."""

    disk: NetworkDisk
    """Without its login."""
    user: str = ""
    """As whom the cluster is asked; '': it asks for no key."""
    key: NetworkLogin | None = field(default=None, compare=False)
    """None: the host has the user's key."""
    cluster: str = "ceph"
    volume: VolumeId | None = None
    size: int = 0
    """Bytes that it has at least; 0: it was not told."""
    identity: tuple[str, str] = ("", "")
    """The cluster's fsid, and the image's id, which tell it from others of its name; '': any."""
    name: str = ""
    """The link is the volume."""


class Rbd:
    """Images of Ceph, by Cinder's connection or as an operator names them; decision 70 has why.

    A cluster is asked before a guest is given an image, by a command that can be killed: QEMU opens
    it while its guest stands still, and cannot be called off.
    """

    kind: ClassVar[str] = "rbd"
    yields: ClassVar[frozenset[type]] = frozenset({NetworkDisk})
    options: ClassVar[Sequence[Option]] = (USER, KEYRINGS)

    def __init__(
        self,
        host: Host,
        keyrings: Path = Path(KEYRINGS.default),
        *,
        user: str = "",
        deadline: float = LOOK_DEADLINE_SECONDS,
    ) -> None:
        self._images = Images(host, deadline)
        self._keyrings = keyrings
        self._user = user

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Rbd:
        """Make one. Raises Refused."""
        user = values[USER.name]
        if user and not _WORD.fullmatch(user):
            raise Refused(f"{USER.name} is no name of a user of Ceph, without its 'client.'")
        return cls(host, Path(absolute_path(values[KEYRINGS.name])), user=user)

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """``rbd://MONITOR[:PORT][,MONITOR…]/POOL/IMAGE[@SNAPSHOT]`` to a connection.

        *format*: raw, if it is given. Raises Refused.
        """
        if format not in (None, "raw"):
            raise Refused(
                f"an image of Ceph is raw here, not {format}", hint="leave the format out"
            )
        match = _URL.fullmatch(url)
        if match is None:  # it may hold a key
            raise Refused(
                f"an image of Ceph is typed as {_EXAMPLE}",
                hint=f"its user is {USER.name}; with a key: --connection FILE",
            )
        at = [host_and_port(each) for each in match["servers"].split(",") if each]
        data: dict[str, Any] = {
            "name": f"{unquote(match['pool'])}/{unquote(match['image'])}",
            "hosts": [host for host, _ in at],
            "ports": [str(port or PORTS["rbd"]) for _, port in at],
            "auth_enabled": bool(self._user),
        }
        if self._user:
            data["auth_username"] = self._user
        return {"driver_volume_type": self.kind, "data": data}

    def url(self, c: Image) -> str:
        """See :class:`moorline.ports.Naming`. Its user is not told."""
        pool, _, image = c.disk.name.partition("/")
        return f"rbd://{','.join(c.disk.servers)}/{quote(pool)}/{quote(image, safe='@')}"

    def parse(self, connection: Mapping[str, Any]) -> Image:
        """Validate a connection, Cinder's or one with more fields of ours. Raises Refused."""
        info = ConnectionInfo(self.kind, connection)
        name = _image_name(info)
        user = _user(info)
        return Image(
            NetworkDisk("rbd", name, _servers(info), readonly="@" in name),
            user=user,
            key=NetworkLogin(user, key) if user and (key := cephx.told(info, user)) else None,
            cluster=_word(info, "cluster_name") or "ceph",
            volume=info.volume_id(),
            size=block_facts(info)["size"],
            identity=(_word(info, "fsid"), _word(info, "image_id")),
        )

    def demand_for_others(self, c: Image) -> None:
        """See :class:`moorline.ports.Confined`: the host's keys are not for everyone to use."""
        if c.user and c.key is None and c.user != self._user:
            raise Denied(
                "this user gets no image by that user's key, which the host has",
                hint=f"give the connection its key, or let others by {USER.name}",
            )

    def link_name(self, c: Image) -> LinkName:
        """A name only: nothing appears on this host. It is one image by whichever monitors."""
        return LinkName(f"/{self.kind}/{quote(c.disk.name, safe='/@')}")

    def inspect(self, c: Image) -> Link:
        """Always there, as far as we are concerned: :meth:`verify` asks the cluster."""
        return Linked(replace(c.disk, login=c.key), given=True)

    def verify(self, c: Image) -> NetworkDisk:
        """Ask the cluster for the image: its size, which it is, and who has it open.

        Raises Refused, Failed, Uncertain.
        """
        disk = replace(c.disk, login=self.login(c))
        told = self._images.ask(disk, fsid=bool(c.identity[0]))
        _demand_same(c, told)
        if told.size < max(c.size, _SECTOR):
            raise Refused(f"{disk.name} has {told.size} bytes, the volume has {c.size}")
        if told.locks:
            raise Failed(
                f"{disk.name} is locked by {', '.join(told.locks)}",
                hint="its holder unlocks it, or if that is no more: rbd lock ls, rbd lock rm",
            )
        return replace(disk, opened=told.watchers)

    def login(self, c: Image) -> NetworkLogin | None:
        """See :class:`moorline.ports.LoggingIn`: the connection's key, or the host's keyring's."""
        if not c.user or c.key is not None:
            return c.key
        keyring = self._keyrings / f"{c.cluster}.client.{c.user}.keyring"
        return NetworkLogin(c.user, cephx.kept(keyring, c.user))

    def size(self, c: Image) -> int:
        """See :class:`moorline.ports.Sizing`."""
        return self._images.ask(replace(c.disk, login=self.login(c)), fsid=False).size

    def connect(self, c: Image) -> None:
        """Nothing is made; the image is only verified."""
        self.verify(c)

    def disconnect(self, c: Image) -> None:
        """There is nothing to undo: QEMU closes it."""

    def diagnose(self) -> Sequence[Finding]:
        """Whether the command is installed that asks a cluster."""
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


def _demand_same(c: Image, told: Told) -> None:
    """Raise Refused if it is another of that name than the connection's."""
    for what, wanted, is_now in zip(("cluster", "image"), c.identity, told.identity, strict=True):
        if wanted and wanted != is_now:
            raise Refused(
                f"{c.disk.name} is another {what} than the volume's: {is_now or 'it has no id'},"
                f" not {wanted}"
            )


def _image_name(info: ConnectionInfo) -> str:
    """``pool/image`` or ``pool/image@snapshot``. Raises Refused."""
    name = info.text("name", 600)
    pool, _, rest = name.partition("/")
    image, at, snapshot = rest.partition("@")
    parts = [pool, image, *([snapshot] if at else [])]
    if not all(map(_NAME.fullmatch, parts)) or {".", ".."} & set(parts):
        raise Refused(
            "the connection's name is not POOL/IMAGE or POOL/IMAGE@SNAPSHOT",
            hint="images in a namespace of a pool are not supported",
        )
    return name


def _servers(info: ConnectionInfo) -> tuple[str, ...]:
    """The monitors, as :class:`NetworkDisk` has them; (): those of ceph.conf. Raises Refused."""
    hosts, ports = ([] if (v := info.value(f)) is None else v for f in ("hosts", "ports"))
    if not isinstance(hosts, list) or not isinstance(ports, list) or len(hosts) > _MAX_SERVERS:
        raise Refused("the connection's hosts or ports are no list of some")
    if ports and len(ports) != len(hosts):
        raise Refused("the connection has not as many ports as hosts")
    return tuple(map(_server, hosts, ports or [PORTS["rbd"]] * len(hosts)))


def _server(host: object, port: object) -> str:
    plain = isinstance(host, str) and isinstance(port, int | str) and not isinstance(port, bool)
    text = f"[{host}]" if plain and str(host).count(":") > 1 and "[" not in str(host) else host
    name, own = host_and_port(f"{text}:{port}") if plain else ("", 0)
    if not name or not own:
        raise Refused("a monitor of the connection is not a host and a port")
    return server(name, own)


def _user(info: ConnectionInfo) -> str:
    """As whom the cluster is asked; '': it asks for no key. Raises Refused."""
    enabled = info.value("auth_enabled")
    if enabled not in (None, True, False):
        raise Refused("the connection's auth_enabled is neither true nor false")
    if info.value("secret_type") not in (None, "ceph"):
        raise Refused("the connection's secret_type is not ceph")
    user = _word(info, "auth_username")
    if enabled and not user:
        raise Refused("the connection has no auth_username")
    return user if enabled is not False else ""


def _word(info: ConnectionInfo, field: str) -> str:
    """A name without blanks or slashes; '': it is not there. Raises Refused."""
    if info.value(field) in (None, ""):
        return ""
    if not _WORD.fullmatch(word := info.text(field)):
        raise Refused(f"the connection's {field} is odd")
    return word
