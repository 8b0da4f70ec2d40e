"""What this host is to storage: the connector that Cinder is told, as os-brick makes it."""

from __future__ import annotations

import platform
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

_IQN = re.compile(r"^\s*InitiatorName\s*=\s*(\S+)", re.MULTILINE)


def connector_properties(
    host: str, peer: str, *, multipath: bool, root: Path = Path("/")
) -> Mapping[str, Any]:
    """The names by which storage knows this *host*, as far as it has such.

    *peer*: a host near the storage; our address is the one that packets to it come from. Reads
    local files alone. *root*: where they are.
    """
    found: dict[str, Any] = {
        "host": host,
        "ip": _address_towards(peer),
        "multipath": multipath,
        "platform": platform.machine(),
        "os_type": sys.platform,
        "do_local_attach": False,
    }
    if iqn := _IQN.search(_text(root / "etc/iscsi/initiatorname.iscsi")):
        found["initiator"] = iqn[1]
    if nqn := _text(root / "etc/nvme/hostnqn").strip():
        found["nqn"] = nqn
    if ports := sorted((root / "sys/class/fc_host").glob("host*")):
        for field, file in (("wwpns", "port_name"), ("wwnns", "node_name")):
            found[field] = [_text(port / file).strip().removeprefix("0x") for port in ports]
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _address_towards(peer: str) -> str:
    """No packet is sent: connecting a datagram socket chooses the address alone."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
        with closing(socket.socket(family, kind)) as asking:
            asking.connect(address)
            return str(asking.getsockname()[0])
    except OSError:
        return "127.0.0.1"
