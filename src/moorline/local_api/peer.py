"""The process at the other end of a Unix socket, as the kernel says, and its rights."""

from __future__ import annotations

import grp
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

_UCRED = struct.Struct("3i")
# Linux 4.13 (socket(7) does not name it): the peer's supplementary groups when it connected.
_SO_PEERGROUPS = 59
_MAX_OPTION_BYTES = 1024
"""Bytes that Python reads of an option: 256 groups."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A process as it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]

    @property
    def trusted(self) -> bool:
        """Whether it is root, or the user that the agent runs as."""
        return self.uid in (0, os.geteuid())


def peer(connection: socket.socket) -> Peer:
    """Return who connected. Raises OSError where it is no Unix socket."""
    ucred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(ucred)
    more = b""
    with suppress(OSError):  # if there are more groups than can be read, only the first counts
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION_BYTES)
    return Peer(pid, uid, frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)}))


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may do what, besides root and the user that the agent runs as."""

    group: int | None
    """Its members may change. None: there is no such group."""
    anyone_may_look: bool = False

    @classmethod
    def of(cls, group: str, *, anyone_may_look: bool) -> Rights:
        """Look the group's number up; it need not exist."""
        try:
            return cls(grp.getgrnam(group).gr_gid, anyone_may_look)
        except KeyError:
            return cls(None, anyone_may_look)

    def may_change(self, peer: Peer) -> bool:
        return peer.trusted or self.group in peer.groups

    def may_look(self, peer: Peer) -> bool:
        return self.anyone_may_look or self.may_change(peer)

    @property
    def mode(self) -> int:
        """The socket's permissions: who may do nothing need not even connect."""
        return 0o666 if self.anyone_may_look else 0o660
