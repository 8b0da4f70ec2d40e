"""Who may read and write what: the one table of it.

A host reads what is wanted of it, and writes what it saw, how its guests are defined, and that
it lives. All else is for controllers alone. A prefix ends in '/', so that the grants of ``h1``
have nothing of ``h10``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moorline.errors import Refused
from moorline.ports.limits import prefix_ends

ROOT = "/moorline/"
"""Above all entries of the fleet."""
EPOCH = f"{ROOT}epoch"
"""Its value is another one whenever a backup of etcd was brought back."""
ENROLLED = f"{ROOT}enrolled/"
"""Which hosts there are, and what is sealed for them: written by enrolment alone."""

ADMINISTRATOR = "root"
"""The name of the user and of the role is etcd's."""
CONTROLLER = "controller"
"""The role of controllers, and of whoever gives orders to the fleet."""

READ, READWRITE = 0, 2
"""Of etcd's ``Permission.Type``."""
MAX_HOST_CHARACTERS = 48
"""Characters of a host's name: with what names its users, no more than a CN can have."""


@dataclass(frozen=True, slots=True)
class Grant:
    """*key*: a key, or a prefix, which ends in '/'."""

    kind: int
    key: str

    @property
    def range_end(self) -> str:
        return prefix_ends(self.key)[1] if self.key.endswith("/") else ""


def controller_grants() -> tuple[Grant, ...]:
    """What a controller may."""
    return (Grant(READWRITE, ROOT),)


def host_grants(host: str) -> tuple[Grant, ...]:
    """What a host's agent may. Raises Refused (no such name is possible)."""
    named(host)
    return (
        Grant(READ, EPOCH),
        Grant(READ, f"{ROOT}hosts/{host}"),
        Grant(READ, f"{ROOT}desired/{host}/"),
        Grant(READWRITE, f"{ROOT}definitions/{host}/"),
        Grant(READWRITE, f"{ROOT}status/{host}/"),
        Grant(READWRITE, f"{ROOT}heartbeat/{host}/"),
        Grant(READWRITE, f"{ROOT}held/{host}"),
    )


def host_role(host: str) -> str:
    """The role with a host's grants."""
    return f"host:{named(host)}"


def host_user(host: str, number: int) -> str:
    """The user of a host's certificate number *number*: each certificate has its own.

    So that one certificate can be revoked, and the next is none of root's or of another host's.
    """
    return f"{host_role(host)}:{number}"


def user_number(host: str, user: str) -> int | None:
    """The number of a host's user; None: it is no user of this host."""
    found = re.fullmatch(re.escape(host_role(host)) + r":(\d+)", user)
    return int(found[1]) if found else None


def controller_user(name: str) -> str:
    """The user of a controller, or of a person who gives orders. Raises Refused."""
    return f"{CONTROLLER}:{named(name)}"


def named(name: str) -> str:
    """*name*, if a host or a controller of the fleet can have it. Raises Refused."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name, re.ASCII):
        raise Refused(
            f"{name!r} cannot be a name in the fleet",
            hint="letters, digits, '.', '-' and '_', with a letter or digit at both ends",
        )
    if len(name) > MAX_HOST_CHARACTERS:
        raise Refused(f"the name {name} has more than {MAX_HOST_CHARACTERS} characters")
    return name
