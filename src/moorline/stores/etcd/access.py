"""Where etcd is, and who we are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from moorline.errors import Denied, Refused, Unavailable
from moorline.stores.key_files import private


@dataclass(frozen=True, slots=True)
class Access:
    """The members of etcd, and the files with which we and they know each other.

    *endpoints*: ``https://NAME:PORT`` of each member; NAME is in its certificate.
    *ca*: the authority of the members' certificates. *certificate*: ours; its CN is the user
    whose grants we have. *key*: of that certificate, a file for its owner alone.

    The files are read anew for each connection, so that they can be replaced at any time.
    Raises Refused (an endpoint that cannot be one).
    """

    endpoints: tuple[str, ...]
    ca: Path
    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise Refused("etcd has no endpoint", hint="name one as https://NAME:2379")
        for endpoint in self.endpoints:
            target(endpoint)

    def credentials(self) -> grpc.ChannelCredentials:
        """What the files have now. Raises Denied or Unavailable (a file cannot be read)."""
        key = private(self.key)
        ca, certificate = (_read(path) for path in (self.ca, self.certificate))
        return grpc.ssl_channel_credentials(ca, key.reveal(), certificate)

    def stamp(self) -> tuple[int, ...]:
        """Equal for as long as the files are the same; () where one is not there."""
        try:
            status = [path.stat() for path in (self.ca, self.certificate, self.key)]
        except OSError:
            return ()
        return tuple(number for one in status for number in (one.st_mtime_ns, one.st_ino))


def target(endpoint: str) -> str:
    """The host and port of an endpoint. Raises Refused."""
    try:
        parts = urlsplit(endpoint)
        whole = parts.scheme == "https" and parts.hostname and parts.port
    except ValueError:
        whole = False
    if not whole or parts.path.strip("/") or parts.query or parts.username:
        raise Refused(
            f"{endpoint!r} is not an endpoint of etcd",
            hint="as https://NAME:2379; Moorline speaks with etcd by TLS only",
        )
    return parts.netloc


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError as e:
        raise Denied(f"{path} cannot be read: {e.strerror}") from e
    except OSError as e:
        raise Unavailable(f"{path} cannot be read: {e.strerror}") from e
