"""The one spelling of a share's servers, by which two shares are told to be the same.

What else of a share may be spelled in several ways is in ``canonical`` of its file system.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from moorline.errors import Refused
from moorline.network_disk import server_name as server_name

# DNS names, also of SRV records (_quobyte._tcp.example.com), or bracketed IPv6.
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_SERVER = re.compile(
    rf"(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::(?P<port>[0-9]{{1,5}}))?"
)


def server(text: str) -> str:
    """``host[:port]`` in one spelling; '' if *text* is none.

    Raises Refused if the port is invalid.
    """
    match = _SERVER.fullmatch(text)
    if match is None or len(text) > 260:
        return ""
    if int(match["port"] or 1) not in range(1, 65536):
        raise Refused("the connection's export has a port that is none")
    host = match["host"].lower()
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return ""
    return f"{host}:{int(match['port'])}" if match["port"] else host


def host_and_port(text: str) -> tuple[str, int]:
    """The host of ``host[:port]``, and its port or 0; '': *text* is none. Raises as above."""
    host, colon, port = server(text).rpartition(":")
    if not colon or port.endswith("]"):
        return server(text), 0
    return host, int(port)


@lru_cache(maxsize=1024)  # few servers, and very many volumes
def known_as(server: str, usual_port: str) -> str:
    """``host[:port]``, without the port where that is the usual one."""
    host, _, port = server.partition("]") if server[0] == "[" else server.partition(":")
    host += "]" if server[0] == "[" else ""
    port = port.lstrip(":")
    name = server_name(host)
    return f"{name}:{port}" if port not in ("", usual_port) else name
