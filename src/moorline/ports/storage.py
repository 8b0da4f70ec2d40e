"""The seam to storage: what makes a volume reachable on this host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from moorline.model import (
    DiskSource,
    Format,
    Link,
    Linked,
    LinkName,
    VolumeId,
)
from moorline.network_disk import NetworkLogin
from moorline.ports.host import Host


@dataclass(frozen=True, slots=True)
class Option:
    """A setting that an adapter declares, under the name that operators know."""

    name: str
    default: str
    """May refer to ``${moorline.state_dir}``."""
    help: str
    group: str = "libvirt"
    """The section of the configuration file; Nova's is ``libvirt``."""


Values = Mapping[str, str]
"""The values of the options that an adapter declared, by name; and ``state_dir``: our state's."""


class Connection(Protocol):
    """What every parsed connection can tell. Back ends add what they need."""

    @property
    def volume(self) -> VolumeId | None:
        """The volume's id, if the connection bears one."""

    @property
    def name(self) -> str:
        """The volume's own name within its link ('' if the link is the volume)."""


C = TypeVar("C", bound=Connection)


class StorageDriver(Protocol):
    """How a back end is made: what an entry point names. A back end's own class may be it."""

    kind: ClassVar[str]
    """Cinder's ``driver_volume_type``; also the scheme of the URLs people type."""
    options: ClassVar[Sequence[Option]]
    """What can be configured."""

    @classmethod
    def from_options(cls, host: Host, values: Values) -> StorageBackend[Any]:
        """Make one. Raises Refused if a value is unusable."""


class StorageBackend(Protocol[C]):
    """Makes a volume reachable on this host."""

    @property
    def kind(self) -> str:
        """As of :class:`StorageDriver`."""

    @property
    def yields(self) -> frozenset[type]:
        """The classes of disk source that :meth:`inspect` can return."""

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """Turn what a person types into a connection. Raises Refused."""

    def parse(self, connection: Mapping[str, Any]) -> C:
        """Validate untrusted input; touch nothing. Raises Refused."""

    def link_name(self, c: C) -> LinkName:
        """Where the link appears. Connections with equal names share the link."""

    def inspect(self, c: C) -> Link:
        """Tell what is there. Bounded: a share that hangs is Unknown."""

    def verify(self, c: C) -> DiskSource:
        """Check that the volume on the link may be given to a guest. Bounded.

        Returns what may be opened: the source that :meth:`inspect` told, with
        all files beneath it. Raises Refused with the reason (no such file,
        outside the share, not of the declared format), Failed, Uncertain (no
        answer within the deadline).
        """

    def connect(self, c: C) -> None:
        """Make the link. May block up to the client command's deadline.

        Raises Refused, Failed, Uncertain (deadline passed), NotOurs.
        """

    def disconnect(self, c: C) -> None:
        """Take the link away; its absence is success. May block like connect.

        Raises Failed (busy), Uncertain, NotOurs.
        """


@runtime_checkable
class Readying(Protocol):
    """A back end that can see link and volume with one question to the storage."""

    def ready(self, c: Any) -> Linked | None:
        """The link, if it works, with the source that :meth:`StorageBackend.verify` returns.

        None: something is wrong, which inspect and verify tell. Bounded as verify is.
        Raises Failed (nothing can be asked).
        """


@runtime_checkable
class Sharing(Protocol):
    """A back end whose volumes lie on shares that have more than one name."""

    def shares(self, c: Any) -> frozenset[str]:
        """What the share of *c* is called, wherever it is mounted. Touches nothing.

        Two that have a name in common are one share. Ports and addresses are spelled
        in one way; names of servers are not resolved, for that answer can change.
        """


@runtime_checkable
class Identifying(Protocol):
    """A back end of servers' disks that have names which no other disk in the world has."""

    def ids(self, c: Any) -> frozenset[str]:
        """Those of *c*, as its server told when it was last asked; else it is asked now.

        As in :attr:`moorline.network_disk.NetworkDisk.ids` of what verify returns. Bounded as that
        is. Raises Refused, Failed, Uncertain.
        """


@runtime_checkable
class LoggingIn(Protocol):
    """A back end of servers' disks that may take a password which is not in the connection."""

    def login(self, c: Any) -> NetworkLogin | None:
        """As whom its server is asked; None: it asks for no password. No server is asked.

        Raises Refused, Failed (it is kept on this host, and is not there).
        """


@runtime_checkable
class Sizing(Protocol):
    """A back end of servers' disks whose server tells how large one is, also while it is open."""

    def size(self, c: Any) -> int:
        """The bytes of *c*. Bounded as verify is. Raises Refused, Failed, Uncertain."""


@runtime_checkable
class Naming(Protocol):
    """A back end that can tell what a person types for a volume."""

    def url(self, c: Any) -> str:
        """What :meth:`StorageBackend.from_url` takes for the same volume. '': it cannot be typed.

        It bears no secret, and nothing of how the share is mounted. Touches nothing.
        """


@runtime_checkable
class Placing(Protocol):
    """A back end whose options say where its links appear: they change, and a link stays."""

    def at(self, c: Any, link: LinkName) -> Any:
        """*c*, of which :meth:`StorageBackend.link_name` is *link*, where it was made.

        Touches nothing. Raises Refused: its link can never have been there.
        """


@runtime_checkable
class Mounting(Protocol):
    """A back end whose links are mounts, or lie on mounts."""

    def mounted(self, c: Any) -> bool:
        """Whether the mount table shows a mount that may be the link of *c*. Asks no storage.

        False: :meth:`StorageBackend.inspect` would tell no working link.
        """


@runtime_checkable
class WritingThrough(Protocol):
    """A back end of which the operator may have said that a share's client writes through."""

    def writes_through(self, c: Any) -> bool:
        """Whether that was said of the share of *c*: what its client acknowledged is stored.

        Touches nothing.
        """


@runtime_checkable
class Confined(Protocol):
    """A back end whose connections name files or devices of this host: not for everyone to name."""

    def demand_for_others(self, c: Any) -> None:
        """See that who is neither root nor our own user may have what *c* names.

        Told by the path alone: nothing is looked at. Raises Refused, Denied.
        """


Backends = Mapping[str, StorageBackend[Any]]
