"""The state directories of this host: whose each is, and who has what in another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from pathlib import Path

from moorline import config
from moorline.core.no_fleet import ALONE
from moorline.core.records import launched_in, wants
from moorline.core.state_owner import Owner, state_id
from moorline.errors import Denied, MoorlineError, Refused, Unavailable
from moorline.fleet.host_memory import Marks
from moorline.fleet.unattended import Elsewhere, PerhapsAlone, Told, Unattended
from moorline.host.boot_id import boot_id
from moorline.host.known_state_dirs import KnownStates, look
from moorline.model import GuestId, VolumeId
from moorline.ports import AttachmentCodec, Host, Store
from moorline.ports.guarding import Guarding
from moorline.ports.volume_service import VolumeService

RECORDS = "moorline.db"


def owner_of(
    given: config.Settings, store: Store, codec: AttachmentCodec, known: KnownStates | None = None
) -> Owner:
    """The owner of the state in *store*."""
    known = known or KnownStates()
    directory = os.path.realpath(given.state_dir)

    def id_in(other: str) -> str | None:
        try:
            if not known.is_there(Path(other)):
                return ""
            if Path(other).samefile(directory):
                return ""  # another name of it: a bind mount
            with _opened(Path(other)) as its:
                return state_id(its)
        except FileNotFoundError:
            return ""
        except (OSError, MoorlineError):
            return None

    return Owner(store, codec, directory, id_in)


def known_states(host: Host) -> KnownStates:
    """The states of this host, each looked at by *host*: it may lie on a share that hangs."""
    return KnownStates(is_there=partial(look, host))


def make_known(given: config.Settings, store: Store, known: KnownStates | None = None) -> None:
    """Let the owners of other states on this host find the one in *store*."""
    (known or KnownStates()).note(state_id(store), Path(os.path.realpath(given.state_dir)))


def kept_elsewhere(
    store: Store, known: KnownStates | None = None
) -> Callable[[GuestId, VolumeId], str]:
    """As :attr:`.Environment.kept_elsewhere`, beside the state in *store*."""

    def directory(guest: GuestId, volume: VolumeId) -> str:
        for other in _others(state_id(store), known or KnownStates()):
            with _opened(other) as its:
                if wants(its, guest, volume):
                    return str(other)
        return ""

    return directory


def launched_elsewhere(store: Store, known: KnownStates | None = None) -> Callable[[GuestId], str]:
    """As :attr:`.Environment.launched_elsewhere`, beside that in *store*."""

    def directory(guest: GuestId) -> str:
        for other in _others(state_id(store), known or KnownStates()):
            with _opened(other) as its:
                if launched_in(its, guest):
                    return str(other)
        return ""

    return directory


def _others(id: str, known: KnownStates) -> Iterator[Path]:
    """The directories of other states, as far as they lie still where they are said to."""
    for noted, directory in known.all():
        if noted != id and known.is_there(directory) and (directory / RECORDS).exists():
            with _opened(directory) as its:
                there = state_id(its) == noted
            if there:
                yield directory


def _opened(directory: Path) -> closing[Store]:
    from moorline.stores.sqlite import SqliteStore

    return closing(SqliteStore(directory / RECORDS, make=False))


def guard_of(given: config.Settings, marks: Marks, told: Told) -> Guarding:
    """Who is asked, by whoever opens this state, while no agent of it asks the host's fleet.

    Its credentials tell that a host is in a fleet, from when it joined; a state that follows one
    tells it, too. A host's other states, and one that was lost and made anew, tell nothing.
    """
    unattended, elsewhere = Unattended(marks, boot_id, told), Elsewhere(marks, boot_id, told)
    directory = config.fleet_dir(given)

    def now() -> Guarding:
        if marks.epoch():
            return unattended
        joined = config.has_credentials(directory or config.FLEET_DIR)
        own = directory is not None and not given.beside
        return (unattended if own else elsewhere) if joined else ALONE

    return PerhapsAlone(now)


def demand_followers(given: config.Settings, marks: Marks) -> None:
    """Raise Refused if the fleet's agent keeps another state than this one, which never did."""
    if given.beside and not marks.epoch():
        raise Refused(
            "the configuration has the agent of another state of this host follow its fleet",
            hint="leave --state-dir out; or say --fleet DIRECTORY, if that state is given up",
        )


def host_called(given: config.Settings) -> str:
    """This host's name, by its configuration, its state or the machine. Raises Unavailable."""
    from moorline.stores.codec import Codec

    with _opened(given.state_dir) as store:
        codec = Codec.from_file(given.state_dir / "key", make=False)
        known = given.host or owner_of(given, store, codec).host()
    return known or config.host_name(given, remember=False)


def volume_service_of(given: config.Settings, host: str) -> Callable[[], VolumeService]:
    """What opens Cinder for *host*, when it is first needed, and returns it.

    That raises Refused (it is not installed, or no cloud is told).
    """

    @cache
    def opened() -> VolumeService:
        from moorline.cinder import CLOUD, Cinder
        from moorline.host.connector_properties import connector_properties

        multipath = given.values["volume_use_multipath"] == "true"
        return Cinder(
            given.values[CLOUD.name],
            lambda peer: connector_properties(host, peer, multipath=multipath),
        )

    return opened


def make_state_dir(path: Path) -> None:
    """Make it, if it is not there. Raises Denied, Unavailable."""
    try:
        # QEMU's user must pass through it to the mount points; the files are for their owner alone.
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
    except PermissionError as e:
        raise Denied(
            f"the state directory {path} cannot be made: {e.strerror}",
            hint="run as root, or give --state-dir",
        ) from e
    except OSError as e:
        raise Unavailable(f"the state directory {path} cannot be made: {e.strerror}") from e
