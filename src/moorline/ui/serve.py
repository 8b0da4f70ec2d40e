"""Serves the page: at an address of this machine, or on a Unix socket.

Loopback addresses are open to every user of the machine, so there the page's address has a token
in it that is told only to whoever starts it. A Unix socket has the rights of its file.
"""

from __future__ import annotations

import grp
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moorline.errors import Refused
from moorline.local_api.server import Server, listen, loopback
from moorline.ports.api import Api

try:
    from moorline.ui.watch import Watch
    from moorline.ui.web import Page
except ModuleNotFoundError as e:
    raise Refused(f"the page cannot be served: {e}", hint="pip install 'moorline[ui]'") from e

_TOKEN_BYTES = 24


def on_loopback(api: Api, about: Mapping[str, Any], address: str) -> tuple[Server, str]:
    """Serve at ``127.0.0.1:PORT`` (0: a free one), once started; return also the page's URL.

    Raises Refused (it is no loopback address), Unavailable (another has it).
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    listening = loopback(address)
    host, port = address.rpartition(":")[0], listening.getsockname()[1]
    server = Server(listening, Page(Watch(api), about, token))
    return server, f"http://{host}:{port}/{token}/"


def on_socket(api: Api, about: Mapping[str, Any], path: Path, group: str) -> Server:
    """Serve on a Unix socket, once started. *group*: who may open it besides us; '': nobody.

    Raises Refused (there is no such group, or something else is there), Busy, Denied.
    """
    number = None
    if group:
        try:
            number = grp.getgrnam(group).gr_gid
        except KeyError:
            raise Refused(f"there is no group {group!r}", hint="getent group") from None
    listening = listen(path, 0o660 if group else 0o600, number)
    return Server(listening, Page(Watch(api), about))
