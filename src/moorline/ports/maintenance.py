"""The part of :mod:`moorline.ports.api` for people who look after a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from moorline.model import Format
from moorline.ports.care_results import (
    Adoption,
    AdoptionOfAll,
    Candidate,
    Diagnosis,
    DiskOutcome,
    Explanation,
    Repair,
)
from moorline.ports.results import EventLogEntry


class Maintenance(Protocol):
    """For people who look after the host."""

    def events(
        self,
        *,
        after: int = 0,
        since: float = 0.0,
        volume: str = "",
        guest: str = "",
        most: int = 1000,
    ) -> Sequence[EventLogEntry]:
        """The latest *most* of what was done and seen, oldest first.

        Only those with an id above *after*, not before *since* (seconds since
        the epoch), of *volume*: as of ``show``, or one that is no longer wanted, of *guest* (name
        or id), which may be gone. Raises Denied; NotFound (nothing is known of that volume or
        guest), Refused (it can be several).
        """

    def explain(self, volume: str, guest: str | None = None) -> Sequence[Explanation]:
        """Say how a volume's attachments stand, what they wait for and what to do.

        *volume*, *guest*: as of ``show``. Raises NotFound.
        """

    def doctor(self) -> Diagnosis:
        """Find what is not as it should be on this host. Each share that hangs costs 2 s."""

    def disks(self, guest: str | None = None) -> Sequence[Candidate]:
        """All disks of *guest*, or of all guests: ours or not, whose, and how large.

        Each file is looked at for its size; a share that hangs costs 2 s once. Raises
        NotFound, Unavailable, Uncertain.
        """

    def repair(
        self, *, disks: bool = False, boot_disks: bool = False, dry_run: bool = False
    ) -> Sequence[Repair]:
        """Take away links that no attachment and no guest needs; empty mount points too.

        *disks*: also disks that were ours, were released, and stay.
        *boot_disks*: of those even the ones that a guest boots from, or that are its only one.
        Raises Unavailable or Uncertain if the guests cannot be looked at: unknown means in use.
        What one repair meets does not stop the others.
        """

    def abort(
        self,
        mount_point: str,
        *,
        force: bool = False,
        renew: bool = False,
        vouch: str = "",
        dry_run: bool = False,
    ) -> Repair:
        """End the FUSE connection of a link that hangs: all who wait for it get an error.

        What guests have not written yet is lost to them, so it is Refused
        while a guest that runs is on it, or if that cannot be told, unless
        *force*. *renew*: its client is killed and seen dead, too, the link is made anew, and
        guests that were paused by the error are given their disks anew (docs/survive.md); Refused
        if one cannot be, unless *force*. *vouch*: why a person is sure that the storage carries
        out nothing any more that the client had sent; without it, *renew* is Refused.
        Raises NotFound (nothing is mounted there), NotOurs (it is no
        link of ours), Refused (it does not hang, or is no FUSE), Denied; Uncertain: it was
        aborted, and its client does not end.
        """

    def adopt(
        self,
        guest: str,
        connection: Mapping[str, Any] | str,
        *,
        format: Format | None = None,
        volume: str | None = None,
        target: str = "",
        hands_off: bool = False,
        dry_run: bool = False,
    ) -> Adoption:
        """Attachment what is there already: the disk of *guest* that is the connection's volume.

        The disk stays as it is; one without a mark gets it, which needs a
        stopped guest. *connection*, *format*, *volume*: as of ``attach``.
        *target*: the disk that it must be. *hands_off*: somebody else (Nova)
        goes on plugging it, so it needs no mark, and only its link is wanted.
        Raises Refused (no such disk, or it is another), NotFound.
        """

    def release(self, guest: str, volume: str, *, dry_run: bool = False) -> Adoption:
        """Give a disk and its link back as they are: only the attachment goes.

        Raises NotFound, Refused (it is on its way out), Conflict.
        """

    def follow(self, *, vouch: str = "", dry_run: bool = False) -> Sequence[str]:
        """Have this host follow its fleet's store again, of which a backup was brought back.

        Return where the store differs from what this host did since. *vouch*: why a person
        is sure that what the store says may be done all the same. Raises Refused (it differs,
        and nobody vouches; this host is in no fleet), Unavailable. Followed already is success.
        """

    def adopt_all(
        self,
        guest: str | None = None,
        *,
        connections: Sequence[Mapping[str, Any]] = (),
        cinder: bool = False,
        local: bool = False,
        hands_off: bool = False,
        dry_run: bool = False,
    ) -> AdoptionOfAll:
        """Adopt each disk of *guest*, or of all guests, whose volume is known; can be repeated.

        *connections*: rows as Nova's mappings or Cinder's attachments are; of a disk that none
        names, its share tells. *cinder*: Cinder is asked, too, of each disk whose serial is a
        volume's id; its attachment is taken over as of ``adopt``. *local*: also what is on no
        share. *hands_off*: as of ``adopt``; without *guest* those that Nova plugs, else the
        others. One disk's error stops no other.
        Raises NotFound, Refused (a row is malformed), Unavailable, Uncertain.
        """

    def release_all(self, guest: str | None = None, *, dry_run: bool = False) -> list[DiskOutcome]:
        """Release all of *guest*, or of this host; one's error stops no other. NotFound."""
