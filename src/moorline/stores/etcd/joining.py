"""What a host is given to join the fleet, and the files that it keeps of it."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorline.errors import Denied, NotFound, Refused, Unavailable
from moorline.secret import Secret
from moorline.stores.etcd.access import Access, target
from moorline.stores.etcd.authority import Authority, belongs, user_of, valid_until
from moorline.stores.etcd.enrolment import Enrolment
from moorline.stores.etcd.grants import user_number
from moorline.stores.fleet_seal import BoxKey, SealedBox, for_host
from moorline.stores.key_files import write_over

_FORMAT = 1
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Fleet:
    """What all hosts of a fleet are told alike.

    *ca*: the authority of etcd's members. *box*: the public key of the controllers.
    """

    endpoints: tuple[str, ...]
    ca: bytes
    box: str


@dataclass(frozen=True, slots=True)
class Joining:
    """A host's credentials. Whoever has them is that host: they go there, and are kept nowhere.

    *box*: the key of its sealed box; None: it keeps the one that it has.
    """

    host: str
    fleet: Fleet
    certificate: bytes
    key: Secret[bytes]
    box: Secret[bytes] | None

    def dump(self) -> Secret[bytes]:
        """As a file to carry."""
        fields = {
            "moorline_join": _FORMAT,
            "host": self.host,
            "endpoints": list(self.fleet.endpoints),
            "ca": self.fleet.ca.decode(),
            "fleet_box": self.fleet.box,
            "certificate": self.certificate.decode(),
            "key": self.key.reveal().decode(),
            "box": base64.b64encode(self.box.reveal()).decode() if self.box else None,
        }
        return Secret(json.dumps(fields, indent=1).encode() + b"\n")

    @classmethod
    def load(cls, text: bytes) -> Joining:
        """Raises Refused: that is no such file, or one of a newer Moorline."""
        if len(text) > _LARGEST:
            raise Refused("this is not a file to join a fleet with: it is too large")
        try:
            fields = json.loads(text)
            if fields["moorline_join"] != _FORMAT:
                raise Refused(f"this file to join a fleet is not of format {_FORMAT}")
            joining = cls._of(fields)
            own = user_number(joining.host, user_of(joining.certificate)) is not None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # What it has instead could be a part of a key.
            raise Refused("this is not a file to join a fleet with") from None
        if not own:
            whose = user_of(joining.certificate) or "nobody"
            raise Refused(f"this file is for {joining.host}, its certificate for {whose}")
        if not belongs(joining.certificate, joining.key):
            raise Refused("the key in this file is not that of its certificate")
        return joining

    @classmethod
    def _of(cls, fields: Any) -> Joining:
        endpoints, box = fields["endpoints"], fields["box"]
        for endpoint in endpoints:
            target(endpoint)
        secret = Secret(base64.b64decode(box, validate=True)) if box else None
        if secret:
            BoxKey(secret)
        valid_until(fields["ca"].encode())
        return cls(
            str(fields["host"]),
            Fleet(tuple(endpoints), fields["ca"].encode(), str(fields["fleet_box"])),
            fields["certificate"].encode(),
            Secret(fields["key"].encode()),
            secret,
        )

    def check(self, directory: Path, called: str = "") -> None:
        """Refuse what is another host's, or has no box where there is none to keep.

        *called*: this host's name, which tells whose the file should be where there are no
        credentials yet; '': that cannot be told. Raises Refused, Denied, Unavailable.
        """
        known = _host_in(directory)
        if known and known != self.host:
            raise Refused(
                f"this file is for {self.host}, and this host is {known} in the fleet",
                hint=f"moorline fleet enrol {known} makes the file for this host; to be another"
                " host of a fleet it leaves first: moorline fleet leave",
            )
        if called and not known and not _is_called(called, self.host):
            raise Refused(
                f"this file is for {self.host}, and this host is called {called}",
                hint=f"join with the file for this host; if it shall be {self.host}: moorline state"
                f" rename {self.host}, or, if it has no state yet, [DEFAULT] host = {self.host}",
            )
        if self.box is None and not (directory / "box.key").exists():
            raise Refused(
                "this file renews a certificate, and there is no host of the fleet here to have it",
                hint="enrol the host with a new box",
            )

    def install(self, directory: Path) -> Membership:
        """Write the files of a member. It can be repeated, and replaces what is there.

        Raises Denied or Unavailable (they cannot be written), and as :meth:`check`.
        """
        self.check(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise Unavailable(f"{directory} cannot be made: {e.strerror}") from e
        if self.box is not None:
            write_over(directory / "box.key", self.box.reveal())
        # The key first: a connection that is made in between fails, and is made again.
        write_over(directory / "host.key", self.key.reveal())
        write_over(directory / "host.pem", self.certificate)
        write_over(directory / "ca.pem", self.fleet.ca)
        about = {
            "host": self.host,
            "endpoints": list(self.fleet.endpoints),
            "fleet_box": self.fleet.box,
        }
        write_over(directory / "fleet.json", json.dumps(about, indent=1).encode() + b"\n")
        return Membership.open(directory)


def uninstall(directory: Path) -> None:
    """Remove a member's files; gone already is success. Raises Denied, Unavailable."""
    try:
        for name in ("fleet.json", "host.pem", "host.key", "ca.pem", "box.key"):
            (directory / name).unlink(missing_ok=True)
    except PermissionError as e:
        raise Denied(f"the credentials in {directory} cannot be removed: {e.strerror}") from e
    except OSError as e:
        raise Unavailable(f"the credentials in {directory} cannot be removed: {e.strerror}") from e


@dataclass(frozen=True, slots=True)
class Membership:
    """A host that is in a fleet: its name there, its way to etcd, and its sealed box."""

    host: str
    access: Access
    box: SealedBox

    @classmethod
    def open(cls, directory: Path) -> Membership:
        """Raises NotFound (this host is in no fleet), Denied, Unavailable (a file is damaged)."""
        about = _read(directory / "fleet.json")
        try:
            access = Access(
                tuple(about["endpoints"]),
                directory / "ca.pem",
                directory / "host.pem",
                directory / "host.key",
            )
            own = BoxKey.from_file(directory / "box.key")
            return cls(about["host"], access, for_host(own, about["fleet_box"]))
        except (KeyError, TypeError) as e:
            raise Unavailable(f"{directory / 'fleet.json'} is damaged") from e


def invite(enrolment: Enrolment, authority: Authority, host: str, fleet: Fleet) -> Joining:
    """Enrol a host with a new certificate and a new box.

    What was sealed for it before is sealed anew by a controller. Raises as :meth:`Enrolment.enrol`.
    """
    box = Secret(os.urandom(32))
    enrolled = enrolment.enrol(host, BoxKey(box).public)
    made = authority.user(enrolled.user)
    return Joining(host, fleet, made.certificate, made.key, box)


def renew(enrolment: Enrolment, authority: Authority, host: str, fleet: Fleet) -> Joining:
    """Give a host another certificate, before its own ends or after its key was lost sight of.

    Once the host has it, ``retire`` makes the earlier ones worthless.
    """
    enrolled = enrolment.enrol(host)
    made = authority.user(enrolled.user)
    return Joining(host, fleet, made.certificate, made.key, None)


def _host_in(directory: Path) -> str:
    """Whose credentials *directory* has; '': there are none. Raises Denied, Unavailable."""
    try:
        return str(_read(directory / "fleet.json")["host"])
    except NotFound:
        return ""
    except KeyError:
        raise Unavailable(f"{directory / 'fleet.json'} is damaged") from None


def _is_called(name: str, host: str) -> bool:
    """Whether they are one name, perhaps one of them without its domain."""
    one, other = name.lower(), host.lower()
    return one == other or one.partition(".")[0] == other or one == other.partition(".")[0]


def _read(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise NotFound(
            f"this host is in no fleet: there is no {file}", hint="moorline fleet join FILE"
        ) from None
    except OSError as e:
        raise Unavailable(f"{file} cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise Unavailable(f"{file} is damaged") from e
    if not isinstance(about, dict):
        raise Unavailable(f"{file} is damaged")
    return about
