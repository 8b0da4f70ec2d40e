"""Disks that the hypervisor reaches by a network protocol itself, and what they are known by. Pure.

For a back end: it yields ``NetworkDisk``, has its servers in the spelling of :func:`server`, and
inspects as ``Linked(disk, given=True)``, for nothing of it appears on this host. Its ``verify``
asks the server first, by a command with a deadline: an attach to a server that hangs stops the
guest and cannot be called off. What a hypervisor makes of it is the hypervisor's.

For a hypervisor: the disks of all its guests, whoever's they are, are surveyed under the name that
:func:`known_as` gives them, also beneath others. By it alone two are told to be one
(:func:`may_be_one`). A protocol that is added here needs a rule there: what is the same wherever it
is reached (a target's IQN), or by which server it is known.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from moorline.secret import Secret

Protocol = Literal["nbd", "iscsi", "rbd"]
PORTS = {"nbd": 10809, "iscsi": 3260, "rbd": 6789}
"""The usual ports."""


@dataclass(frozen=True, slots=True)
class NetworkLogin:
    """As whom a server is asked for a disk."""

    user: str
    password: Secret[str]
    """Of iSCSI the text, of Ceph the key as its keyring has it."""


@dataclass(frozen=True, slots=True)
class NetworkDisk:
    """A disk that a server has. It is raw: formats are declared, and no other is taken."""

    protocol: Protocol
    name: str
    """What the server calls it: an export, ``IQN/LUN``, ``pool/image[@snapshot]``; '': its only
    one."""
    servers: tuple[str, ...] = ()
    """Each as :func:`server` spells it; or the path of a socket on this host."""
    tls: bool = False
    initiator: str = ""
    """Of iSCSI: as which initiator the target sees this host."""
    login: NetworkLogin | None = field(default=None, compare=False)
    readonly: bool = field(default=False, compare=False)
    """The server lets nobody write to it; told when it was asked."""
    opened: tuple[str, ...] = field(default=(), compare=False)
    """Who had it open when the server was asked, for people to read; (): nobody, or it is not
    told."""
    reserved: str = field(default="", compare=False)
    """Why it is for nobody but whom it is reserved for, of which a LUN's guest may be one; told
    as well."""
    ids: frozenset[str] = field(default=frozenset(), compare=False)
    """Its names that no other disk in the world has, by whatever it is reached; told as well."""

    @property
    def path(self) -> str:
        """What it is known by: see :func:`known_as`."""
        return known_as(self.protocol, self.name, self.servers)


def server_name(host: str) -> str:
    """A server's name or address in one spelling. It is not resolved."""
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or f"[{address}]")
    return str(address)


def server(host: str, port: int) -> str:
    """``HOST:PORT``, with an IPv6 address in brackets."""
    return f"{server_name(host)}:{port}"


def known_as(protocol: str, name: str, servers: Sequence[str]) -> str:
    """The one spelling of a disk, by whichever of its servers it is reached. Never a path.

    A target of iSCSI has its name in all the world. So has an image of Ceph, as far as we can
    tell: which monitors are of one cluster, a host cannot. All else is its servers'.
    """
    if protocol == "iscsi":
        target, _, unit = name.partition("/")
        return f"iscsi:{target.lower()}/{unit or '0'}"
    if protocol == "rbd":
        return f"rbd:{name.partition('@')[0]}"
    called = quote(name, safe="")
    if servers and servers[0].startswith("/"):
        return f"{protocol}+unix:///{called}?socket={quote(servers[0])}"
    return f"{protocol}://{','.join(sorted(servers))}/{called}"


def is_known(path: str) -> bool:
    """Whether *path* is what a server's disk is known by, as :func:`known_as` has it."""
    return not path.startswith("/") and (path.startswith(("iscsi:", "rbd:")) or "://" in path)


def may_be_one(one: str, other: str) -> bool:
    """Whether two disks, as they are known, are one or may be.

    What a server of NBD gives to who names no export may be any of them.
    """
    if one == other or not (one.startswith("nbd") and other.startswith("nbd")):
        return one == other
    nameless = at_its_server(one)
    return nameless == at_its_server(other) and nameless in (one, other)


def at_its_server(known: str) -> str:
    """As what a disk is known if no name is asked for; of what its servers do not tell, itself."""
    url, mark, socket = known.partition("?")
    server, slash, _ = url.rpartition("/")
    return f"{server}{slash}{mark}{socket}" if url.startswith("nbd") else known
