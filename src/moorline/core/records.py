"""The attachments of this host in the store, and their troubles."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from urllib.parse import quote

from moorline.errors import Compacted, Conflict
from moorline.model import (
    Attachment,
    GuestId,
    GuestName,
    Key,
    Level,
    LinkName,
    Renewal,
    VolumeId,
)
from moorline.ports import At, AttachmentCodec, Delete, Entry, Put, Store
from moorline.ports.results import Trouble
from moorline.ports.volume_service import Reservation
from moorline.secret import Secret

Noted = Callable[[Attachment, Trouble], None]
"""Called with each trouble that is recorded. Must neither block nor raise."""


def no_note(attachment: Attachment, trouble: Trouble) -> None:
    """A :data:`Noted` that does nothing."""


class Records:
    """The attachments of one host. Writes compare-and-swap on the revision."""

    def __init__(
        self, store: Store, codec: AttachmentCodec, host: str, noted: Noted = no_note
    ) -> None:
        self._store = store
        self._noted = noted
        self._codec = codec
        self.host = host
        self._decoded: dict[str, Attachment] = {}
        """Attachments that were decoded already, by key: the same revision is the same value."""

    def get(self, key: Key) -> Attachment | None:
        entry = self._store.get(_desired(key))
        return self._decode(entry) if entry else None

    def all(self) -> list[Attachment]:
        """Every attachment of this host, in the order of guest and volume."""
        entries, _ = self._store.list(_prefix("desired", self.host))
        rows = [self._decode(entry) for entry in entries]
        self._decoded = {entry.key: row for entry, row in zip(entries, rows, strict=True)}
        return rows

    def of(self, guest: GuestId) -> list[Attachment]:
        """The attachments of one guest."""
        entries, _ = self._store.list(f"{_prefix('desired', self.host)}{guest}/")
        return [self._decode(entry) for entry in entries]

    def changes(self, stop: threading.Event) -> Iterator[Attachment | None]:
        """Yield each attachment that is made or changed from now on, until *stop* is set.

        Yields None at first and after a gap: what was before is not told, so list.
        May block for the store's poll time. Raises Unavailable.
        """
        prefix = _prefix("desired", self.host)
        while not stop.is_set():
            _, after = self._store.list(prefix)
            yield None
            with suppress(Compacted):
                for event in self._store.watch(prefix, after, stop):
                    if event.entry is not None:
                        yield self._decode(event.entry)

    def put(self, attachment: Attachment) -> Attachment:
        """Write an attachment. Raises Conflict if it changed since it was read."""
        at = _desired(attachment.key)
        value = self._codec.encode(at, attachment)
        revision = self._store.commit(
            [At(at, attachment.revision)], [Put(at, value), Delete(_released(attachment.key))]
        )
        # As it will be read: what the caller has may change in his hands.
        connection = Secret(json.loads(json.dumps(attachment.connection.reveal())))
        row = replace(attachment, connection=connection, revision=revision)
        self._decoded[at] = row
        return row

    def forget(self, attachment: Attachment) -> None:
        """Drop an attachment and its trouble. Raises Conflict if it changed since it was read."""
        at = _desired(attachment.key)
        self._store.commit([At(at, attachment.revision)], [Delete(at), *_beside(attachment.key)])

    def release(self, attachment: Attachment, path: str) -> None:
        """Forget an attachment; keep the *path* of its disk recorded as ours ('': it has none).

        Its reservation is forgotten, too: the guest needs what a volume service has on record.
        """
        at, released = _desired(attachment.key), _released(attachment.key)
        kept = json.dumps({"path": path}).encode()
        self._store.commit(
            [At(at, attachment.revision)],
            [
                *(Delete(at), Delete(_reservation(attachment.key)), *_beside(attachment.key)),
                *([Put(released, kept)] if path else []),
            ],
        )

    def released(self) -> Mapping[tuple[str, str], str]:
        """The paths of disks that were ours and stay without an attachment, by guest and volume.

        A disk is that one if it bears the mark of the volume and has this path.
        """
        entries, _ = self._store.list(_prefix("released", self.host))
        return {_of(entry): str(json.loads(entry.value)["path"]) for entry in entries}

    def drop_released(self, guest: GuestId, volume: VolumeId) -> None:
        """Forget a released disk, which is gone."""
        self._store.commit([], [Delete(_released(Key(self.host, volume, guest)))])

    def launched(self, guest: GuestId) -> None:
        """Record that *guest* was made for this state, which may remove it again."""
        self._store.commit([], [Put(_launched(self.host, guest), b"{}")])

    def has_launched(self, guest: GuestId) -> bool:
        """Whether :meth:`launched` recorded it. An earlier version recorded of none."""
        return self._store.get(_launched(self.host, guest)) is not None

    def drop_launched(self, guest: GuestId) -> None:
        """Forget a guest that is gone."""
        if self.has_launched(guest):
            self._store.commit([], [Delete(_launched(self.host, guest))])

    def unrecorded(self, guest: GuestName, volume: VolumeId) -> Attachment:
        """An attachment for a disk that bears our mark and has no recorded attachment any more."""
        return Attachment(
            key=Key(self.host, volume, guest.id),
            guest_name=guest.name,
            backend="",
            connection=Secret({}),
            link=LinkName(""),
            place="",
            want=Level.ABSENT,
        )

    def troubles(self) -> Mapping[str, Trouble]:
        """The troubles of this host by :func:`trouble_key`."""
        entries, _ = self._store.list(_prefix("status", self.host))
        return {entry.key: Trouble(**json.loads(entry.value)) for entry in entries}

    def trouble(self, key: Key) -> Trouble | None:
        entry = self._store.get(_status(key))
        return Trouble(**json.loads(entry.value)) if entry else None

    def note(self, attachment: Attachment, trouble: Trouble | None) -> None:
        """Record what went wrong (None: nothing any more), unless the attachment has changed."""
        at = _status(attachment.key)
        if trouble is None:
            if self._store.get(at):
                self._store.commit([], [Delete(at)])
            return
        self._noted(attachment, trouble)
        unchanged = At(_desired(attachment.key), attachment.revision)
        with suppress(Conflict):  # the attachment changed, and its trouble is obsolete
            self._store.commit([unchanged], [Put(at, json.dumps(asdict(trouble)).encode())])

    def renewals(self) -> Mapping[Key, Renewal]:
        """The disks whose share's client was seen gone, and whose guests did not go on since."""
        entries, _ = self._store.list(_prefix("renewal", self.host))
        return {self._key(entry): Renewal(**json.loads(entry.value)) for entry in entries}

    def note_renewal(self, key: Key, renewal: Renewal | None) -> None:
        """Record how far the renewal of a disk is; None: there is none any more."""
        at = _renewal(key)
        # An older version knows fewer fields.
        told = {name: value for name, value in asdict(renewal).items() if value} if renewal else {}
        self._store.commit([], [Put(at, json.dumps(told).encode()) if renewal else Delete(at)])

    def reservations(self) -> Mapping[Key, Reservation]:
        """What a volume service may have on record for us."""
        entries, _ = self._store.list(_prefix("reservation", self.host))
        return {self._key(entry): Reservation(**json.loads(entry.value)) for entry in entries}

    def note_reservation(self, key: Key, reservation: Reservation | None) -> None:
        """Record what the service may have; None: it has nothing any more."""
        at = _reservation(key)
        put = Put(at, json.dumps(asdict(reservation)).encode()) if reservation else Delete(at)
        self._store.commit([], [put])

    def _key(self, entry: Entry) -> Key:
        guest, volume = _of(entry)
        return Key(self.host, VolumeId(volume), GuestId(guest))

    def _decode(self, entry: Entry) -> Attachment:
        known = self._decoded.get(entry.key)
        if known is not None and known.revision == entry.revision:
            return known
        row = self._decoded[entry.key] = self._codec.decode(entry)
        return row


def trouble_key(key: Key) -> str:
    """The name of an attachment in :meth:`Records.troubles`."""
    return _status(key)


def wants(store: Store, guest: GuestId, volume: VolumeId) -> bool:
    """Whether any host's records in *store* have an attachment of *volume* to *guest*."""
    entries, _ = store.list("/moorline/desired/")
    return any(_of(entry) == (guest, volume) for entry in entries)


def launched_in(store: Store, guest: GuestId) -> bool:
    """Whether *guest* was made for the state in *store*."""
    entries, _ = store.list("/moorline/launched/")
    return any(entry.key.endswith(f"/{guest}") for entry in entries)


@lru_cache(maxsize=64)
def _prefix(kind: str, host: str) -> str:
    return f"/moorline/{kind}/{quote(host, safe='')}/"


def _at(kind: str, key: Key) -> str:
    return f"{_prefix(kind, key.host)}{key.guest}/{key.volume}"


def _desired(key: Key) -> str:
    return _at("desired", key)


def _released(key: Key) -> str:
    return _at("released", key)


def _launched(host: str, guest: GuestId) -> str:
    return f"{_prefix('launched', host)}{guest}"


def _of(entry: Entry) -> tuple[str, str]:
    guest, volume = entry.key.split("/")[-2:]
    return guest, volume


def _status(key: Key) -> str:
    return _at("status", key)


def _renewal(key: Key) -> str:
    return _at("renewal", key)


def _reservation(key: Key) -> str:
    return _at("reservation", key)


def _beside(key: Key) -> Sequence[Delete]:
    """What is recorded beside an attachment, and goes with it."""
    return [Delete(_status(key)), Delete(_renewal(key))]
