"""Parses Cinder's shares of Virtuozzo Storage: ``[mds1[,mds2…]:/]cluster[:password]``.

Also writes the file in which its client finds the metadata servers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moorline.backends.share_spelling import server
from moorline.errors import Failed, Refused
from moorline.secret import Secret

MAX_SERVERS = 32
MAX_PASSWORD_BYTES = 1024
CLUSTER = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
"""A cluster's name, as a regular expression."""

_PLAIN = re.compile(rf"(?P<cluster>{CLUSTER})(?::(?P<password>[^/].*))?")
_SERVED = re.compile(rf"(?P<servers>[^/]+):/(?P<cluster>{CLUSTER})(?::(?P<password>.+))?")


def read_share(text: str) -> tuple[tuple[str, ...], str, Secret[str] | None]:
    """``[mds1[,mds2…]:/]cluster[:password]`` to its parts. Raises Refused.

    Whatever follows the cluster's colon is the password. A share that can be
    read both as ``host:port…:/cluster`` and as ``cluster:password`` is refused.
    ``name:/…`` names a server: where none is named, no password begins with a slash.
    """
    plain = _PLAIN.fullmatch(text)
    match = _SERVED.fullmatch(text)
    servers = _servers(match["servers"]) if match else ()
    if plain and servers:
        raise Refused(
            "the connection's export can be read in two ways: a server with its port, or a"
            " cluster with its password",
            hint="give metadata servers by their full names or addresses",
        )
    match = match if servers else plain
    if match is None:
        raise Refused(
            "the connection's export is not [MDS[,MDS…]:/]CLUSTER[:PASSWORD]",
            hint="a cluster's name has 1 to 63 of A-Z a-z 0-9 _ - (no blanks), and begins with"
            " no hyphen",
        )
    password = match["password"]
    if password and len(password.encode()) > MAX_PASSWORD_BYTES:
        raise Refused(f"the cluster's password is longer than {MAX_PASSWORD_BYTES} bytes")
    return servers, match["cluster"], Secret(password) if password else None


def _servers(text: str) -> tuple[str, ...]:
    """A list of metadata servers; empty if it is none."""
    servers = tuple(server(part) for part in text.split(","))
    return servers if all(servers) and len(servers) <= MAX_SERVERS else ()


def tell_servers(path: Path, servers: Sequence[str], mount: str) -> None:
    """Write the list of metadata servers, one a line, unless it is right already.

    *mount* tells this writer from another one: a cluster can have two mounts. Raises Failed.
    """
    if not servers:
        return
    temporary = path.with_name(f".{path.name}.{mount}")
    try:
        with suppress(FileNotFoundError):
            if set(path.read_text().split()) == set(servers):
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w") as file:
            file.writelines(f"{server}\n" for server in servers)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, UnicodeDecodeError) as e:
        raise Failed(f"the list of metadata servers, {path}, cannot be written: {e}") from e
