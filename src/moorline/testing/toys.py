"""A toy world: shares, a hypervisor and a store in memory, with the real ones' manners.

Changes go through :class:`moorline.testing.faults.Faults`, one effect at a
time. What must never happen is written into :attr:`ToyWorld.violations`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from moorline.disk_options import LIMITS, normal, refuse_others
from moorline.errors import Failed, NotFound, NotOurs, Refused, Unavailable
from moorline.model import (
    BlockDevice,
    Broken,
    CheckedAs,
    Client,
    Disk,
    DiskOptions,
    DiskSource,
    DiskState,
    Foreign,
    Format,
    Growable,
    Guest,
    GuestId,
    GuestName,
    ImageFile,
    Link,
    Linked,
    LinkName,
    NetworkDisk,
    Sizes,
    Unknown,
    Unlinked,
    Use,
    VolumeId,
)
from moorline.ports import Host, Option, Values
from moorline.secret import Secret
from moorline.testing.toy_renewal import ToyDiskRenewal, inode_of
from moorline.testing.toy_store import MemoryStore as MemoryStore
from moorline.testing.toy_world import ToyGuest as ToyGuest
from moorline.testing.toy_world import ToyWorld as ToyWorld

BASE = Path("/toy")
SIZE = 1 << 20
"""Bytes of a file of which nothing else is said."""


@dataclass(frozen=True, slots=True)
class ToyExport:
    share: str
    name: str
    volume: VolumeId | None
    format: Format = "raw"
    password: str = ""
    at: LinkName | None = None


_TAKEN = ("bus", "target", "readonly", "shared", "boot", "startup_policy")


class ToyShare:
    """A back end of kind ``toy``: mounted shares with files on them."""

    kind: ClassVar[str] = "toy"
    yields: ClassVar[frozenset[type]] = frozenset({ImageFile})
    options: ClassVar[Sequence[Option]] = ()

    def __init__(self, world: ToyWorld) -> None:
        self._world = world

    @classmethod
    def from_options(cls, host: Host, values: Values) -> ToyShare:
        return cls(ToyWorld())

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        share, _, name = url.removeprefix("toy://").partition("/")
        return {"driver_volume_type": "toy", "data": {"share": share, "name": name}}

    def url(self, c: ToyExport) -> str:
        return f"toy://{c.share}/{c.name}"

    def parse(self, connection: Mapping[str, Any]) -> ToyExport:
        data = connection.get("data")
        if not isinstance(data, Mapping):
            raise Refused("the connection has no data")
        share, name, volume = data.get("share"), data.get("name"), data.get("volume_id")
        for text in (share, name):
            if not isinstance(text, str) or not text or "/" in text or text.startswith("."):
                raise Refused(f"{text!r} is no name of a share or a file on it")
        return ToyExport(
            str(share),
            str(name),
            VolumeId(volume) if volume else None,
            data.get("format", "raw"),
            data.get("password", ""),
        )

    def link_name(self, c: ToyExport) -> LinkName:
        return c.at or LinkName(str(BASE / c.share))

    def at(self, c: ToyExport, link: LinkName) -> ToyExport:
        return replace(c, at=link)

    def inspect(self, c: ToyExport) -> Link:
        mounted = self._world.mounts.get(at := self.link_name(c))
        if mounted is None:
            return Unlinked()
        if mounted != c.share:
            return Foreign(f"{mounted} is mounted at {at}")
        if c.share in self._world.hung:
            return Unknown(f"{at} does not answer")
        if c.share in self._world.dead:
            presumed = c.share in self._world.presumed
            return Broken(f"{at} is dead", Client.GONE, presumed=presumed)
        if c.share in self._world.cut_off:
            return Broken(f"{at} was cut off", Client.CUT_OFF)
        if c.share in self._world.failing:
            return Broken(f"{at} fails", Client.ALIVE)
        return Linked(ImageFile(Path(at) / c.name, c.format))

    def verify(self, c: ToyExport) -> ImageFile:
        path = f"{self.link_name(c)}/{c.name}"
        if self._world.mounts.get(self.link_name(c)) != c.share:
            raise Failed(f"{c.share} is not mounted")
        if path in self._world.missing:
            raise Refused(f"there is no file {path}")
        if self._world.formats.get(path, c.format) != c.format:
            raise Refused(f"{path} is not {c.format}")
        file = CheckedAs(Path(path), 1, inode_of(path), self._world.changed.get(path, 1.0))
        if path in self._world.replaced:
            file = file._replace(inode=file.inode + 1)
        return ImageFile(Path(path), c.format, checked=(file,))

    def ready(self, c: ToyExport) -> Linked | None:
        link = self.inspect(c)
        if not isinstance(link, Linked):
            return None
        try:
            return replace(link, source=self.verify(c), verified=True)
        except (Refused, Failed):
            return None

    def writes_through(self, c: ToyExport) -> bool:
        return c.share in self._world.write_through

    def connect(self, c: ToyExport) -> None:
        at = self.link_name(c)
        if self._world.passwords.get(c.share, c.password) != c.password:
            raise Failed(f"{c.share} cannot be mounted: wrong password")
        if self._world.mounts.get(at, c.share) != c.share:
            raise NotOurs(f"something else is mounted at {at}")
        if c.share in self._world.hung:
            raise Failed(f"{c.share} cannot be mounted: it does not answer")
        self._world.faults.effect(lambda: self._mount(at, c.share))

    def disconnect(self, c: ToyExport) -> None:
        at = self.link_name(c)
        if at in self._world.mounts:
            self._world.faults.effect(lambda: self._unmount(at, c.share))

    def _mount(self, at: str, share: str) -> None:
        self._world.mounts[at] = share

    def _unmount(self, at: str, share: str) -> None:
        # A dead mount may always be renewed, a broken one while only stopped guests name it.
        dead = share in self._world.dead
        users = self._world.users(at, running=share in self._world.failing)
        if users and not dead:
            self._world.violations.append(f"{at} was pulled from under {', '.join(users)}")
        for guest in self._world.guests.values():
            on = {v for v, path in guest.live.items() if path.startswith(f"{at}/")}
            guest.lost |= on - guest.held
        if self._world.mounts.get(at) != share:
            self._world.violations.append(f"what is at {at} was not ours to unmount")
        self._world.mounts.pop(at, None)
        self._world.dead.discard(share)


class ToyHypervisor:
    """A hypervisor whose attach has two effects, and whose guests let go when they please."""

    kind: ClassVar[str] = "toy"
    accepts: ClassVar[frozenset[type]] = frozenset({ImageFile, BlockDevice, NetworkDisk})
    look_command: ClassVar[str] = "moorline list"
    stop_command: ClassVar[str] = "moorline list"

    def __init__(self, world: ToyWorld) -> None:
        self._world = world

    def find(self, guest: str) -> GuestName:
        for found in self.survey():
            if guest in (found.id, found.name):
                return GuestName(found.id, found.name)
        raise NotFound(f"there is no guest {guest}")

    def survey(self) -> Sequence[Guest]:
        if self._world.blind:
            raise Unavailable("the hypervisor does not answer")
        # The paths first: what is attached meanwhile is then marked already, as with real ones.
        looks = [(id, guest, guest.paths()) for id, guest in self._world.guests.items()]
        guests = [_guest(*each) for each in looks]
        if not self._world.logins:
            return guests
        return [replace(each, disks=self._locked(each.id, each.disks)) for each in guests]

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        if self._world.blind:
            raise Unavailable("the hypervisor does not answer")
        found = self._world.guests.get(guest)
        if found and found.unreadable:
            raise Unavailable(f"guest {found.name} cannot be read: {found.unreadable}")
        return self._locked(guest, _disks(found)) if found else {}

    def check(self, guest: GuestId, source: DiskSource, options: DiskOptions) -> None:
        if guest not in self._world.guests:
            raise NotFound(f"there is no guest {guest}")
        if type(source) not in self.accepts:
            raise Refused(f"a toy cannot use {source}")
        if options.bus not in ("", "toy"):
            raise Refused(f"a toy has no bus {options.bus}")
        refuse_others("a toy's disks", options, (*_TAKEN, *LIMITS))

    def attach(
        self, guest: GuestId, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        self.check(guest, source, options)
        self._refuse_locked(guest, volume, source)
        assert isinstance(source, ImageFile | BlockDevice | NetworkDisk), "check() sees to that"
        found = self._world.guests[guest]
        path = str(source.path)
        if isinstance(source, NetworkDisk):
            self.give_login(guest, volume, source)
        for half in _halves(found):
            if volume in half:
                continue
            self._refuse_missing(path)
            if half is found.live:
                found.lost.discard(volume)
            form = source.format if isinstance(source, ImageFile) else "raw"
            use = Use(path, form, options.readonly, options.shared, volume)
            found.uses = {old for old in found.uses if old.volume != volume} | {use}
            found.limits[volume] = options.limits() or ()
            self._world.faults.effect(partial(half.__setitem__, volume, path))

    def has_key(self, guest: GuestId, volume: VolumeId) -> bool:
        if self._world.blind:
            raise Unavailable("the hypervisor does not answer")
        return (guest, volume) in self._world.keys

    def give_key(self, guest: GuestId, volume: VolumeId, key: Secret[bytes]) -> None:
        of = guest, volume
        self._world.faults.effect(partial(self._world.keys.__setitem__, of, key))

    def take_key(self, guest: GuestId, volume: VolumeId) -> None:
        if (guest, volume) in self._world.keys:
            self._world.faults.effect(partial(self._world.keys.pop, (guest, volume), None))

    def has_login(self, guest: GuestId, volume: VolumeId, source: NetworkDisk) -> bool:
        return source.login is None or bool(self._world.logins.get((guest, volume)))

    def give_login(self, guest: GuestId, volume: VolumeId, source: NetworkDisk) -> None:
        if source.login is not None:
            keep = partial(self._world.logins.__setitem__, (guest, volume), source.login)
            self._world.faults.effect(keep)

    def take_login(self, guest: GuestId, volume: VolumeId) -> None:
        if (guest, volume) in self._world.logins:
            self._world.faults.effect(partial(self._world.logins.pop, (guest, volume), None))

    def _locked(self, guest: GuestId, disks: Mapping[VolumeId, Disk]) -> Mapping[VolumeId, Disk]:
        lost = {of[1] for of, login in self._world.logins.items() if of[0] == guest and not login}
        return {v: replace(d, locked=True) if v in lost else d for v, d in disks.items()}

    def _refuse_locked(self, guest: GuestId, volume: VolumeId, source: DiskSource) -> None:
        if not isinstance(source, ImageFile) or source.format != "luks":
            return
        key = self._world.keys.get((guest, volume))
        if key is None:
            raise Failed(f"there is no key of {volume}")
        right = self._world.opened_by.get(str(source.path))
        if right is not None and key.reveal() != right:
            raise Refused(f"the key does not open {source.path}")

    def limit(self, guest: GuestId, volume: VolumeId, limits: Mapping[str, int]) -> None:
        if volume not in self.disks(guest):
            raise NotFound(f"volume {volume} is not attached to {guest}")
        has = self._world.guests[guest].limits
        self._world.faults.effect(partial(has.__setitem__, volume, normal(limits)))

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        found = self._world.guests.get(guest)
        if found is None:
            return
        if self._world.logins.get((guest, volume)):
            self._world.faults.effect(
                partial(self._world.logins.__setitem__, (guest, volume), None)
            )
        if volume in found.defined:
            self._world.faults.effect(lambda: found.defined.pop(volume))
        if volume in found.live and not found.deaf:
            self._world.faults.effect(lambda: found.leaving.setdefault(volume, 2))

    def sizes(self, guest: GuestId, volume: VolumeId) -> Sizes:
        disk = self.disks(guest).get(volume)
        if disk is None:
            raise NotFound(f"volume {volume} is not attached to {guest}")
        told = self._world.guests[guest].told.get(volume, SIZE)
        return Sizes(guest=told, storage=self._world.sizes.get(disk.source, SIZE))

    def extend(self, guest: GuestId, volume: VolumeId, size: int) -> int:
        seen = self.sizes(guest, volume)
        if size != seen.storage:
            raise Failed(f"the file has {seen.storage} bytes, not {size}")
        if size != seen.guest:
            told = self._world.guests[guest].told
            self._world.faults.effect(partial(told.__setitem__, volume, size))
        return size

    def served_sizes(self, guest: GuestId, volume: VolumeId, stored: int) -> Sizes:
        self._world.sizes[self.disks(guest)[volume].source] = stored
        return self.sizes(guest, volume)

    def show_served(self, guest: GuestId, volume: VolumeId, stored: int) -> int:
        return self.extend(guest, volume, self.served_sizes(guest, volume, stored).storage or 0)

    def growable(self, guest: GuestId, volume: VolumeId) -> Growable:
        seen = self.sizes(guest, volume)
        return Growable(seen.guest, seen.storage or 0, self._world.guests[guest].running)

    def grow(self, guest: GuestId, volume: VolumeId, size: int) -> None:
        toy, path = self._world.guests[guest], self.disks(guest)[volume].source
        if not toy.running:
            raise Failed(f"{toy.name} does not run any more")

        def grown() -> None:
            self._world.sizes[path] = toy.told[volume] = size

        self._world.faults.effect(grown)

    def disk_renewal(self) -> ToyDiskRenewal:
        return ToyDiskRenewal(self._world)

    def close(self) -> None:
        pass

    def _refuse_missing(self, path: str) -> None:
        on = Path(path).parent
        if on.parent == BASE and str(on) not in self._world.mounts:
            raise Failed(f"{path} cannot be opened")


def _guest(id: GuestId, guest: ToyGuest, paths: frozenset[str]) -> Guest:
    if guest.unreadable:
        return Guest(id, guest.name, guest.running, {}, frozenset(), guest.unreadable, "cure it")
    facts, uses = (guest.name, guest.running, _disks(guest), paths), _uses(guest, paths)
    has = {*guest.live.values(), *guest.foreign} if guest.running else ()
    return Guest(id, *facts, uses=uses, paused_by_error=guest.waits, opened=frozenset(has))


def _halves(guest: ToyGuest) -> list[dict[VolumeId, str]]:
    halves = [guest.live] if guest.running else []
    return [*halves, guest.defined] if guest.persistent else halves


def _disks(guest: ToyGuest) -> dict[VolumeId, Disk]:
    live, defined = dict(guest.live), dict(guest.defined)  # time passes in other threads
    halves = ([live] if guest.running else []) + ([defined] if guest.persistent else [])
    return {
        volume: Disk(
            _state(guest, volume, halves),
            f"toy-{volume}",
            path,
            _uses(guest, {path}, volume),
            stale=f"{path} is lost" if volume in live and volume in guest.lost else "",
            limits=frozenset({guest.limits.get(volume, ())}),
        )
        for volume, path in {**defined, **live}.items()
    }


def _uses(guest: ToyGuest, paths: Container[str], volume: str = "") -> frozenset[Use]:
    """How it uses *paths*; *volume*: as the disk of that alone."""
    uses = guest.uses.copy()  # time passes in other threads
    return frozenset(u for u in uses if u.path in paths and volume in ("", u.volume))


def _state(
    guest: ToyGuest, volume: VolumeId, halves: Sequence[Mapping[VolumeId, str]]
) -> DiskState:
    if volume in guest.leaving:
        return DiskState.LEAVING
    whole = all(volume in half for half in halves)
    return DiskState.WHOLE if whole else DiskState.PARTIAL
