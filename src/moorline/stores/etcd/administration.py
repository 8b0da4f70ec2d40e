"""The directory from which a fleet is administered: its authorities, and root's certificate.

Whoever can read it is root of the fleet. It is on no host of the fleet; controllers have a
certificate and the key of their sealed box from it, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from moorline.errors import NotFound, Refused, Unavailable
from moorline.stores.etcd.access import Access, target
from moorline.stores.etcd.authority import Authority, Certificate
from moorline.stores.etcd.enrolment import Enrolled, Enrolment
from moorline.stores.etcd.grants import ADMINISTRATOR, ENROLLED, named
from moorline.stores.etcd.joining import Fleet, Joining, invite, renew
from moorline.stores.etcd.store import EtcdStore
from moorline.stores.fleet_seal import BoxKey, SealedBox, for_controllers
from moorline.stores.key_files import write_over

_DIRECTORY_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Initialised:
    """What etcd was made, or already was."""

    epoch: str
    warnings: list[str]
    """What is known against this release of etcd, for people."""


class Administration:
    """The fleet as root. Methods raise as the store does, and Denied or Unavailable for files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def certify(self, members: Sequence[str], *, dry_run: bool = False) -> list[Path]:
        """Make the authorities, root's certificate, and those of etcd's members.

        What is there already is kept, such as an authority of one's own in ``ca.pem`` and
        ``ca.key``. *members*: the names of each, with commas; the first one names its files.
        Returns the directories of the members. *dry_run*: make nothing.
        """
        places = [self._directory / "members" / _names(member)[0] for member in members]
        if dry_run:
            return places
        users, peers = self._authority("."), self._authority("peers")
        self._write(self._directory / "root", users.user(ADMINISTRATOR))
        BoxKey.made(self._directory / "box.key")
        for place, names in zip(places, map(_names, members), strict=True):
            self._write(place / "server", users.member(names))
            self._write(place / "peer", peers.peer(names))
            write_over(place / "ca.pem", users.pem, mode=0o644)
            write_over(place / "peer-ca.pem", peers.pem, mode=0o644)
        return places

    def initialise(self, endpoints: Sequence[str], *, dry_run: bool = False) -> Initialised:
        """Make etcd the fleet's, and remember where it is. *dry_run*: only look at it."""
        for endpoint in endpoints:
            target(endpoint)
        access = self._access(endpoints)
        with closing(Enrolment(access)) as enrolment:
            epoch = enrolment.initialise(dry_run=dry_run)
            warnings = enrolment.warnings
        if dry_run:
            return Initialised(epoch, warnings)
        about = json.dumps({"endpoints": list(endpoints)}, indent=1) + "\n"
        write_over(self._directory / "fleet.json", about.encode())
        return Initialised(epoch, warnings)

    def restored(self, *, dry_run: bool = False) -> str:
        """Say that a backup of etcd was brought back; return the new epoch, or the one it is."""
        with closing(self._enrolment()) as enrolment:
            return enrolment.restored(dry_run=dry_run)

    def would_enrol(self, host: str, *, renew: bool = False) -> Enrolled:
        """What :meth:`enrol`, or :meth:`renew`, would make of a host. Changes nothing."""
        with closing(self._enrolment()) as enrolment:
            return enrolment.enrol(host, "" if renew else "another", dry_run=True)

    def enrol(self, host: str) -> Joining:
        """Make a host one of the fleet, or give it all of its credentials anew."""
        with closing(self._enrolment()) as enrolment:
            return invite(enrolment, self._authority("."), host, self._fleet())

    def renew(self, host: str) -> Joining:
        """Give a host of the fleet another certificate."""
        with closing(self._enrolment()) as enrolment:
            return renew(enrolment, self._authority("."), host, self._fleet())

    def retire(self, host: str, *, dry_run: bool = False) -> list[str]:
        """Revoke a host's certificates but for the last one; return their users."""
        with closing(self._enrolment()) as enrolment:
            return enrolment.retire(host, dry_run=dry_run)

    def revoke(self, host: str, *, dry_run: bool = False) -> list[str]:
        """Revoke all of a host's certificates; return their users."""
        with closing(self._enrolment()) as enrolment:
            return enrolment.revoke(host, dry_run=dry_run)

    def hosts(self) -> list[Enrolled]:
        """All hosts, also those that were revoked."""
        with closing(self._enrolment()) as enrolment:
            return enrolment.all()

    def access(self) -> Access:
        """The way to etcd: a controller's, where its certificate is there, else root's."""
        access = self._access(self._endpoints())
        certificate = self._directory / "controller.pem"
        if not certificate.exists():
            return access
        return replace(access, certificate=certificate, key=certificate.with_suffix(".key"))

    def _enrolment(self) -> Enrolment:
        return Enrolment(self._access(self._endpoints()))

    def _access(self, endpoints: Sequence[str]) -> Access:
        certificates = ("root.pem", "controller.pem")
        if not any((self._directory / name).exists() for name in certificates):
            raise NotFound(
                f"there is no authority in {self._directory}", hint="moorline fleet certify"
            )
        members = self._directory / "members-ca.pem"
        return Access(
            tuple(endpoints),
            members if members.exists() else self._directory / "ca.pem",
            self._directory / "root.pem",
            self._directory / "root.key",
        )

    def _fleet(self) -> Fleet:
        access = self._access(self._endpoints())
        box = BoxKey.from_file(self._directory / "box.key")
        return Fleet(access.endpoints, access.ca.read_bytes(), box.public)

    def _endpoints(self) -> list[str]:
        file = self._directory / "fleet.json"
        try:
            return [str(each) for each in json.loads(file.read_bytes())["endpoints"]]
        except FileNotFoundError:
            raise NotFound(
                f"no fleet is administered from {self._directory}",
                hint="moorline fleet init --endpoints https://NAME:2379",
            ) from None
        except OSError as e:
            raise Unavailable(f"{file} cannot be read: {e.strerror}") from e
        except (ValueError, KeyError, TypeError) as e:
            raise Unavailable(f"{file} is damaged") from e

    def _authority(self, place: str) -> Authority:
        directory = self._directory / place
        _make(directory)
        if not (directory / "ca.key").exists() and not (directory / "ca.pem").exists():
            return Authority.make(directory, f"Moorline fleet {place}".removesuffix(" ."))
        return Authority.open(directory / "ca.pem", directory / "ca.key")

    def _write(self, at: Path, made: Certificate) -> None:
        certificate = at.with_name(f"{at.name}.pem")
        if not certificate.exists():
            _make(certificate.parent)
            write_over(certificate.with_suffix(".key"), made.key.reveal())
            write_over(certificate, made.certificate, mode=0o644)


@contextmanager
def orders(directory: Path) -> Iterator[tuple[EtcdStore, SealedBox]]:
    """The store and the sealed box of one who gives orders, with the credentials in *directory*.

    Those are the fleet's root's, or, where there is a ``controller.pem``, a controller's.
    Raises NotFound (there are none), Denied, Unavailable.
    """
    administration = Administration(directory)
    store = EtcdStore(administration.access())
    try:
        yield store, for_controllers(BoxKey.from_file(directory / "box.key"), partial(_box, store))
    finally:
        store.close()


def _box(store: EtcdStore, host: str) -> str:
    entry = store.get(f"{ENROLLED}{host}")
    return str(json.loads(entry.value)["box"]) if entry else ""


def _names(member: str) -> list[str]:
    """All names of a member of etcd. Raises Refused."""
    names = [name.strip() for name in member.split(",") if name.strip()]
    if not names:
        raise Refused(f"{member!r} does not name a member of etcd")
    named(names[0])
    return names


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as e:
        raise Unavailable(f"{directory} cannot be made: {e.strerror}") from e
