"""The seam to a service that gives volumes by name, and has on record who has them: Cinder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moorline.model import GuestId, VolumeId
from moorline.secret import Secret

SCHEME = "cinder:"
"""Before a volume's name or id, as a person types it."""


@dataclass(frozen=True, slots=True)
class ServiceVolume:
    """A volume as the service describes it."""

    id: VolumeId
    status: str
    """``available``, ``in-use``, ``reserved``, ``extending``, ``error`` and so on."""
    multiattach: bool
    encrypted: bool
    size: int
    """Bytes; while it is being extended those that it had."""


@dataclass(frozen=True, slots=True)
class ServiceAttachment:
    """The service's own record that a guest has a volume."""

    id: str
    complete: bool
    """Whether the service was told that the guest has it."""
    connection: Secret[Mapping[str, Any]] | None
    """As Nova is given it; None: the service does not know yet which host asks."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """That the service may have an attachment that was made for us: recorded before it is asked."""

    guest_name: str
    project: str
    """Whose it is there: another project's credentials do not see it."""
    attachment: str = ""
    """The service's id of it; '': not known."""
    unheard: int = 0
    """How many were asked for, and are neither known nor known not to be."""
    asked: float = 0.0
    """When that was last, seconds since the epoch."""
    completed: bool = False
    """Whether the service has acknowledged that the guest has the volume."""


class VolumeService(Protocol):
    """What is asked of it. Each call is bounded in time.

    Raises Refused (NotFound, Denied among them), Failed: it surely did not happen; Uncertain: it
    may have, or may yet; Unavailable: it cannot be asked, and nothing happened.
    """

    def project(self) -> str:
        """Whose attachments it shows and makes."""

    def find(self, volume: str) -> VolumeId:
        """The id of a volume by its id or name. Raises NotFound, Refused (it is several's)."""

    def volume(self, id: VolumeId) -> ServiceVolume:
        """One as it is now. Raises NotFound."""

    def extend(self, id: VolumeId, gib: int) -> None:
        """Have an attached volume made larger; its status tells when that is done.

        Not idempotent: while it is being extended a second request is refused.
        """

    def attachments(self, volume: VolumeId, guest: GuestId) -> Sequence[ServiceAttachment]:
        """Those of *volume* that were made for *guest*, whoever made them."""

    def attachment(self, id: str) -> ServiceAttachment | None:
        """One of them; None: there is no such."""

    def reserve(self, volume: VolumeId, guest: GuestId) -> str:
        """Make one, and return its id. Not idempotent: two are made by two calls."""

    def connect(self, id: str, *, readonly: bool) -> None:
        """Tell which host it is for, so that it has a connection then. Idempotent."""

    def complete(self, id: str) -> None:
        """Tell that the guest has the volume. Idempotent."""

    def release(self, id: str) -> None:
        """Take one away. Absence is success."""


def is_named(connection: object) -> bool:
    """Whether it is a volume's name or id at the service, as it is typed."""
    return isinstance(connection, str) and connection.startswith(SCHEME)
