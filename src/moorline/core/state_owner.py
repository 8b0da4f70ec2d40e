"""The owner of a state directory (host, machine, hypervisor), recorded at first use and checked."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

from moorline.errors import Conflict, Refused
from moorline.model import Key
from moorline.ports import At, AttachmentCodec, Delete, Entry, Put, Store
from moorline.ports.results import Result

OWNER = "/moorline/owner"
_ROOT = "/moorline/"
_DESIRED = "desired"
_ENTRIES_PER_COMMIT = 40
"""Entries that one commit moves: each takes two of the 100 operations that a commit may have."""


@dataclass(frozen=True, slots=True)
class Identity(Result):
    """What a state directory belongs to."""

    host: str
    machine: str
    """A digest of the machine-id; '' where this machine has none, and then not compared."""
    hypervisor: str
    """The driver, and where it is, without what only says how to get there."""
    uuid: str = ""
    """The hypervisor's own id; '' if it has none, or was not met yet, and then not compared."""


@dataclass(frozen=True, slots=True)
class Ownership(Result):
    """The recorded owner, the present one, and what was done about the difference."""

    recorded: Identity | None
    """None: none is recorded yet."""
    now: Identity
    attachments: int
    steps: list[str]
    """``rename``, ``rebind``; none if nothing is to be done."""
    original: str = ""
    """The directory of the state that this one is a copy of, and that is there still, or may be;
    ''."""
    refused: str = ""
    """Why all other commands refuse the state here and now, and what to do; '': they do not."""


class Owner:
    """Records and checks which host, machine and hypervisor a state directory belongs to."""

    def __init__(
        self,
        store: Store,
        codec: AttachmentCodec,
        directory: str = "",
        id_in: Callable[[str], str | None] = lambda _: "",
    ) -> None:
        """*directory*: where the state lies; '': that is not compared. *id_in*: the id of the
        state that lies in another directory; '': there is none, None: that cannot be told.
        """
        self._store = store
        self._codec = codec
        self._directory = directory
        self._id_in = id_in

    def recorded(self) -> Identity | None:
        """The recorded owner; None: none is recorded."""
        entry = self._store.get(OWNER)
        return _identity(entry) if entry else None

    def check(self, now: Identity, *, own: bool) -> None:
        """Refuse a state of another owner; with *own*, record the owner if none is.

        A state that is older than this record is taken for ours, unless it has only attachments
        of another host. Raises Refused.
        """
        entry = self._store.get(OWNER)
        if name := _renaming(entry):
            raise Refused(
                f"the state was being renamed to {name} when that was interrupted",
                hint=f"moorline state rename {shlex.quote(name)}",
            )
        known = _identity(entry) if entry else None
        _refuse_other(known or self._of_before(now), now)
        if original := self._original(entry):
            raise Refused(
                f"the state is a copy of that in {original}, which is there still, or may be:"
                " two would serve the same attachments",
                hint=f"--state-dir {shlex.quote(original)}; `moorline state rebind` if the other is"
                " to be used no more",
            )
        bound = now
        if known:
            bound = replace(now, machine=now.machine or known.machine, uuid=known.uuid)
        moved = self._directory not in ("", _fields(entry).get("directory"))
        if own and (bound != known or moved):
            self._put(entry, bound, here=True)

    def on_identity(self, uuid: str, *, own: bool) -> None:
        """Refuse a hypervisor whose *uuid* is not the recorded one; with *own*, record the first.

        The id is known when the hypervisor is first asked something, which may be long after
        :meth:`check`.
        Raises Refused, Unavailable.
        """
        entry = self._store.get(OWNER)
        if not uuid or entry is None:
            return
        known = _identity(entry)
        if known.uuid and known.uuid != uuid:
            raise Refused(
                f"{known.hypervisor} is another than the one that the state belongs to"
                f" ({uuid}, not {known.uuid})",
                hint="`moorline state rebind` if the guests of its attachments are on this one now",
            )
        if own and not known.uuid:
            try:
                self._put(entry, replace(known, uuid=uuid))
            except Conflict:  # another thread recorded it at the same time
                self.on_identity(uuid, own=own)

    def tell(self, now: Identity) -> Ownership:
        """Report the recorded and the present owner, and whether the state must be rebound."""
        before = self.recorded()
        if before is not None:
            now = replace(now, uuid=before.uuid)
        original = self._original(self._store.get(OWNER))
        steps = [] if now == before and not original else ["rebind"]
        refused = ""
        try:
            self.check(now, own=False)
        except Refused as e:
            refused = str(e)
        count = sum(self._hosts().values())
        return Ownership(before, now, count, steps, original, refused)

    def rename(self, name: str, now: Identity, *, dry_run: bool) -> Ownership:
        """Move all records to the host *name*. Raises Refused (there are records of both).

        If it is interrupted, :meth:`check` refuses the state until it is repeated.
        """
        if not name or any(not c.isprintable() or c.isspace() for c in name):
            raise Refused(f"{name!r} is no name for a host")
        entry = self._store.get(OWNER)
        before = _identity(entry) if entry else None
        interrupted = _renaming(entry) != ""
        others = [each for each in self._entries() if _host_of(each.key) != name]
        hosts = self._hosts()
        if name in hosts and len(hosts) > 1 and not interrupted:
            raise Refused(
                f"the state has attachments of {name} and of others: which are to be kept?"
            )
        done = before is not None and before.host == name and not others and not interrupted
        told = Ownership(before, replace(before or now, host=name), sum(hosts.values()), [])
        if done or dry_run:
            return replace(told, steps=[] if done else ["rename"])
        self._put(entry, before or now, renaming=name)
        for start in range(0, len(others), _ENTRIES_PER_COMMIT):
            self._move(others[start : start + _ENTRIES_PER_COMMIT], name)
        self._put(self._store.get(OWNER), replace(before or now, host=name))
        return replace(told, steps=["rename"])

    def rebind(self, now: Identity, *, dry_run: bool) -> Ownership:
        """Make this machine and hypervisor the owner; the host's name stays.

        It is a state of its own then, if it was a copy of another. The hypervisor's own id is
        recorded when it is next asked something.
        """
        entry = self._store.get(OWNER)
        before = _identity(entry) if entry else None
        if before is not None:
            now = replace(now, host=before.host)
        original = self._original(entry)
        steps = [] if now == before and not original else ["rebind"]
        if steps and not dry_run:
            self._put(entry, now, here=True, anew=original != "")
        return Ownership(before, now, sum(self._hosts().values()), steps, original)

    def host(self) -> str:
        """The name of the host that the state belongs to; '' if it does not say."""
        known = self.recorded()
        return known.host if known else next(iter(self._hosts()), "")

    def _original(self, entry: Entry | None) -> str:
        """The directory of the state that this one is a copy of, if that may be there; else ''.

        One that was moved here, or restored in its place, is no copy: there is no other.
        """
        fields = _fields(entry)
        directory, id = str(fields.get("directory", "")), fields.get("id")
        if not directory or self._directory in ("", directory):
            return ""
        return directory if self._id_in(directory) in (id, None) else ""

    def _of_before(self, now: Identity) -> Identity:
        others = sorted({*self._hosts()} - {now.host})
        return replace(now, host=others[0]) if others else now

    def _hosts(self) -> Counter[str]:
        """How many attachments there are of each host."""
        kept = (each.key for each in self._entries())
        return Counter(_host_of(key) for key in kept if _kind_of(key) == _DESIRED)

    def _entries(self) -> list[Entry]:
        found, _ = self._store.list(_ROOT)
        return [each for each in found if each.key != OWNER]

    def _move(self, entries: list[Entry], host: str) -> None:
        self._store.commit(
            [At(each.key, each.revision) for each in entries],
            [operation for each in entries for operation in self._moved(each, host)],
        )

    def _moved(self, entry: Entry, host: str) -> Iterator[Put | Delete]:
        kind, _, rest = entry.key.removeprefix(_ROOT).partition("/")
        at = f"{_ROOT}{kind}/{quote(host, safe='')}/{rest.partition('/')[2]}"
        value = entry.value
        if kind == _DESIRED:  # its connection is sealed with the key of the entry
            row = self._codec.decode(entry)
            value = self._codec.encode(at, replace(row, key=Key(host, *row.key[1:])))
        yield Put(at, value)
        yield Delete(entry.key)

    def _put(
        self,
        entry: Entry | None,
        identity: Identity,
        *,
        renaming: str = "",
        here: bool = False,
        anew: bool = False,
    ) -> None:
        """Record the owner in the place of *entry*. *here*: and where the state lies now.
        *anew*: and another id of it.
        """
        before = _fields(entry)
        value = {**asdict(identity), "id": before.get("id"), "directory": before.get("directory")}
        if here and self._directory:
            value["directory"] = self._directory
        if anew or not value["id"]:
            value["id"] = str(uuid4())
        if renaming:
            value["renaming"] = renaming
        at = At(OWNER, entry.revision if entry else 0)
        self._store.commit([at], [Put(OWNER, json.dumps(value).encode())])


def state_id(store: Store) -> str:
    """The id of the state in *store*, which its copies have as well; '': it has none yet."""
    return str(_fields(store.get(OWNER)).get("id") or "")


def _fields(entry: Entry | None) -> dict[str, Any]:
    return dict(json.loads(entry.value)) if entry else {}


def _identity(entry: Entry) -> Identity:
    fields = _fields(entry)
    return Identity(fields["host"], fields["machine"], fields["hypervisor"], fields.get("uuid", ""))


def _renaming(entry: Entry | None) -> str:
    """The new name, if a rename was interrupted; else ''."""
    return str(_fields(entry).get("renaming", ""))


def _kind_of(key: str) -> str:
    return key.removeprefix(_ROOT).partition("/")[0]


def _host_of(key: str) -> str:
    return unquote(key.removeprefix(_ROOT).split("/")[1])


def _refuse_other(known: Identity, now: Identity) -> None:
    if known.host != now.host:
        raise Refused(
            f"the state belongs to host {known.host}, not {now.host}:"
            " its attachments would not be seen",
            hint=f"give [DEFAULT] host = {known.host}, or `moorline state rename"
            f" {shlex.quote(now.host)}` if it is this host",
        )
    if known.hypervisor != now.hypervisor:
        raise Refused(
            f"the state belongs to the hypervisor {known.hypervisor}, not {now.hypervisor}",
            hint="name that one, or another --state-dir; `moorline state rebind` if the guests of"
            " its attachments are on this one now",
        )
    if known.machine and now.machine and known.machine != now.machine:
        raise Refused(
            "the state was made on another machine, and was moved or cloned here",
            hint="`moorline state rebind` if that machine uses it no more; else remove it from"
            " the clone, or give another --state-dir",
        )
