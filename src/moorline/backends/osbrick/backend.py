"""The back end of block devices that os-brick connects. os-brick itself runs in ``child``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from moorline.backends.osbrick.device import SYS, Device, look
from moorline.deadline import Deadline
from moorline.errors import Failed, NotOurs, Refused, Uncertain
from moorline.model import (
    BlockDevice,
    Broken,
    Foreign,
    Format,
    Link,
    Linked,
    LinkName,
    Unknown,
    Unlinked,
    VolumeId,
)
from moorline.ports import Call, Host, Mount, Option, Values
from moorline.ports.inspection import Found
from moorline.secret import Secret

LOCK_PATH = Option(
    "lock_path",
    "${moorline.state_dir}/os-brick",
    "Where os-brick and its bridge keep locks.",
    group="os_brick",
)
MULTIPATH = Option(
    "volume_use_multipath", "false", "Use all paths to a volume, through the host's multipathd."
)
HELPER = Option(
    "helper_command",
    "",
    "How os-brick's privsep helper is started where Moorline is not root. Default: sudo.",
    group="privsep_osbrick",
)
QUESTION_DEADLINE_SECONDS = 10.0
"""Seconds; starting the privsep helper is part of it where we are not root."""
_CHILD = "moorline.backends.osbrick.child"
_POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockVolume:
    """A volume that os-brick can connect."""

    device: Path
    """The path of its device on this host: known beforehand, and unique."""
    properties: Secret[Mapping[str, Any]]
    """What os-brick is given; it may hold credentials."""
    id: str
    """Tells it from all others of its kind, in names of files."""
    volume: VolumeId | None = None
    name: str = ""
    """The link is the volume."""
    size: int = 0
    """Bytes that it has at least; 0: unknown."""
    discard: bool = False
    format: Format = "raw"


V = TypeVar("V", bound=BlockVolume)


class OsBrick(ABC, Generic[V]):
    """Most of a :class:`moorline.ports.StorageBackend` for a protocol of os-brick.

    *locks*: the directory of the locks, made if it is not there. *helper*: how
    os-brick's privsep helper is started where we are not root. *multipath*: use
    all paths to a volume, which multipathd must join. *deadline*: seconds that
    connecting and disconnecting have. *patience*: seconds that a device has to
    appear, or to go, after os-brick said that it did it.
    """

    kind: ClassVar[str]
    protocol: ClassVar[str]
    """os-brick's name of the protocol."""
    yields: ClassVar[frozenset[type]] = frozenset({BlockDevice})
    options: ClassVar[Sequence[Option]] = (LOCK_PATH, HELPER, MULTIPATH)
    given: ClassVar[bool] = False
    """The volume is connected already, and nothing is to be done."""
    commands_hold: ClassVar[bool] = False
    """Whether each command keeps the volume's lock as long as it lives. Not where
    one leaves a daemon behind, as iscsiadm does."""

    def __init__(
        self,
        host: Host,
        locks: Path,
        *,
        helper: str = "",
        multipath: bool = False,
        deadline: float = 120.0,
        patience: float = 5.0,
        sys: Path = SYS,
    ) -> None:
        self._host = host
        self._locks = locks
        self._helper = helper
        self._multipath = multipath
        self._deadline = deadline
        self._patience = patience
        self._sys = sys

    @classmethod
    def from_options(cls, host: Host, values: Values) -> Self:
        """Make one. Raises Refused."""
        locks = Path(values[LOCK_PATH.name])
        if not locks.is_absolute():
            raise Refused(f"[os_brick] lock_path {locks} is not absolute")
        multipath = values[MULTIPATH.name].lower()
        if multipath not in ("true", "false"):
            raise Refused(f"{MULTIPATH.name} is {multipath[:80]!r}, not true or false")
        return cls(host, locks, helper=values[HELPER.name], multipath=multipath == "true")

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        raise Refused(
            f"{self.kind} volumes cannot be typed", hint="give Cinder's with --connection FILE"
        )

    @abstractmethod
    def parse(self, connection: Mapping[str, Any]) -> V:
        """Validate a connection. Raises Refused."""

    def link_name(self, c: V) -> LinkName:
        """The device's path."""
        return LinkName(str(c.device))

    def inspect(self, c: V) -> Link:
        """Look at the device's path. Asks no storage, so it never hangs."""
        found = look(c.device, self._sys)
        if isinstance(found, Foreign):
            return found
        if self._busy(c):
            return Unknown(f"a command that (dis)connects {c.device} still runs", hangs=False)
        if not isinstance(found, Device):
            return found
        return self._other_volume(c) or Linked(self.source(c), given=self.given)

    def source(self, c: V) -> BlockDevice:
        """The source of the guest's disk."""
        return BlockDevice(c.device, discard=c.discard, format=c.format)

    def verify(self, c: V) -> BlockDevice:
        """See :meth:`moorline.ports.StorageBackend.verify`: checks that it is the right device."""
        device = self._demand_device(c)
        if device.size < c.size:
            raise Refused(f"{c.device} has {device.size} bytes, the volume has {c.size}")
        self._identify(c, device)
        return self.source(c)

    def connect(self, c: V) -> None:
        """Let os-brick connect it, and check that its device is there."""
        link = self.inspect(c)
        if isinstance(link, Unlinked):
            begun = self._begun(c)
            self._ready(c)
            try:
                self.change("connect", c)
            except Refused:
                if not begun:
                    self._drop_holds(c)  # nothing was changed, so there is nothing to undo
                raise
            if not self._becomes(c, Device):
                raise Uncertain(f"os-brick says it is connected, yet there is no {c.device}")
            link = self.inspect(c)
        if isinstance(link, Foreign):
            raise NotOurs(link.reason)
        if isinstance(link, Unknown):
            raise Uncertain(link.reason)
        if isinstance(link, Broken):
            raise Failed(link.reason)

    def disconnect(self, c: V) -> None:
        """Let os-brick disconnect it, and check that its device is gone. Absence is success."""
        link = self.inspect(c)
        if isinstance(link, Foreign):
            raise NotOurs(link.reason)
        if isinstance(link, Unknown):
            raise Uncertain(link.reason)
        if self.given or (isinstance(link, Unlinked) and not self._begun(c)):
            return
        self._ready(c)
        self.change("disconnect", c)
        if not self._becomes(c, Unlinked):
            raise Uncertain(f"os-brick says it is disconnected, yet {c.device} is still there")
        self._drop_holds(c)

    # --- Discovering ---

    def places(self) -> Sequence[Path]:
        """It has no directory of its own: libvirt makes device nodes in each guest's /dev."""
        return []

    def links(self) -> Sequence[Found]:
        """Volumes that we began to connect and have not disconnected yet."""
        found = []
        for volume in self._begun_volumes():
            link = self.inspect(volume)
            found.append(Found(self.link_name(volume), None if isinstance(link, Linked) else link))
        return found

    def claims(self, mount: Mount) -> bool:
        return False

    def clear(self, link: LinkName) -> None:
        """Raises Refused: os-brick needs the connection, which went with the attachment."""
        raise Refused(
            f"how {link} was connected is not known any more",
            hint="attach its volume with its connection, and detach it",
        )

    # --- what a protocol may add ---

    def _of(self, id: str) -> V:
        """The volume *id*, with as much as its link tells. Raises Refused."""
        raise Refused(f"{id} is not known")

    def _other_volume(self, c: V) -> Foreign | None:
        """The other volume whose device is at *c*'s path; None: none is known to be."""
        return None

    def _identify(self, c: V, device: Device) -> None:
        """Check that *device* is the volume *c*. Raises Refused, Failed, Uncertain."""

    # --- how ---

    def ask(self, do: str, c: V) -> Mapping[str, Any]:
        """Ask os-brick something that changes nothing."""
        return self._call(do, c, QUESTION_DEADLINE_SECONDS, None, "")

    def change(self, do: str, c: V) -> Mapping[str, Any]:
        """Let os-brick connect or disconnect, one at a time even after a crash."""
        call, command = self._holds(c)
        return self._call(do, c, self._deadline, call, str(command) if self.commands_hold else "")

    def _call(
        self, do: str, c: V, deadline: float, hold: Path | None, command_hold: str
    ) -> Mapping[str, Any]:
        question = {
            "do": do,
            "protocol": self.protocol,
            "properties": dict(c.properties.reveal()),
            "link": str(c.device),
            "locks": str(self._locks),
            "hold": command_hold,
            "helper": self._helper,
            "multipath": self._multipath,
            "deadline": deadline,
        }
        return self._host.call(Call("os-brick", _CHILD, Secret(question), deadline, hold))

    def _holds(self, c: V) -> tuple[Path, Path]:
        """The locks of the process that calls os-brick, and of the command that it runs."""
        name = f"{self._hold_prefix()}{c.id}"
        return self._locks / f"{name}.call", self._locks / f"{name}.command"

    def _hold_prefix(self) -> str:
        return f"moorline-{self.kind}-"

    def _busy(self, c: V) -> bool:
        return any(self._host.held(hold) for hold in self._holds(c))

    def _begun(self, c: V) -> bool:
        """Whether connecting was begun, and is not known to be undone."""
        return any(hold.exists() for hold in self._holds(c))

    def _begun_volumes(self) -> Iterator[V]:
        for hold in self._locks.glob(f"{self._hold_prefix()}*.command"):
            with suppress(Refused):  # it is not ours
                yield self._of(hold.stem.removeprefix(self._hold_prefix()))

    def _drop_holds(self, c: V) -> None:
        for hold in self._holds(c):
            with suppress(OSError):
                hold.unlink()

    def _ready(self, c: V) -> None:
        try:
            self._locks.mkdir(mode=0o755, parents=True, exist_ok=True)
            # Commands run as root. If we are not root, we could not open a file that they make.
            self._holds(c)[1].touch()
        except OSError as e:
            raise Failed(f"the directory of locks {self._locks} cannot be used: {e}") from e

    def _demand_device(self, c: V) -> Device:
        found = look(c.device, self._sys)
        if isinstance(found, Unlinked):
            raise Refused(f"there is no device {c.device}")
        if isinstance(found, Foreign):
            raise Refused(found.reason)
        if isinstance(found, Broken):
            raise Failed(found.reason)
        return found

    def _becomes(self, c: V, what: type) -> bool:
        """Wait until the device has come or gone."""
        deadline = Deadline(self._patience)
        while not isinstance(look(c.device, self._sys), what):
            if deadline.over():
                return False
            deadline.sleep(_POLL_SECONDS)
        return True
