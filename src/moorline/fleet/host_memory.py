"""What a host remembers of the fleet in its own store: what it followed, and since which boot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import quote

from moorline.model import GuestId, VolumeId
from moorline.ports import Delete, Put, Store

_NO_CLUSTER = "none: it went back"


@dataclass(frozen=True, slots=True)
class Mark:
    """That something was wanted of this host by the fleet."""

    role: str = ""
    generation: int = 0


class Marks:
    """Kept locally, so that a host knows what it had, also where the fleet says nothing of it."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = quote(host, safe="")

    def guests(self) -> Mapping[GuestId, Mark]:
        """Guests that this host was told of."""
        return {
            GuestId(at[0]): Mark(**json.loads(value)) for at, value in self._all() if len(at) == 1
        }

    def volumes(self) -> set[tuple[GuestId, VolumeId]]:
        """Attachments that the fleet wanted here."""
        return {(GuestId(at[0]), VolumeId(at[1])) for at, _ in self._all() if len(at) == 2}

    def follow(self, mark: Mark, *of: str) -> None:
        """Remember a guest, or a guest and a volume, before anything is done about it."""
        value = json.dumps(asdict(mark))
        self._put("followed", value, *of)

    def forget(self, *of: str) -> None:
        """Nothing of it is left here."""
        self._store.commit([], [Delete(self._at("followed", *of))])

    def epoch(self) -> str:
        """The epoch of the store that this host follows; ''."""
        return self._get("proven", "epoch")

    def cluster(self) -> str:
        """The servers of that store; '': not known."""
        return self._get("proven", "cluster")

    def follows(self, epoch: str, cluster: str) -> bool:
        """Whether that is the store that this host follows."""
        return self.epoch() == epoch and self.cluster() in ("", cluster)

    def accept(self, epoch: str, cluster: str = "") -> None:
        """Follow the store as it is, although it is not what it was."""
        at, servers = self._at("proven", "epoch"), self._at("proven", "cluster")
        self._store.commit([], [Put(at, epoch.encode()), Put(servers, cluster.encode())])

    def doubt(self) -> None:
        """Follow the store no more until it is accepted: it went back."""
        self._put("proven", _NO_CLUSTER, "cluster")

    def beats(self) -> int:
        """At least so many signs of life of this host were written."""
        return int(self._get("proven", "beats") or 0)

    def beat(self, count: int) -> None:
        """Remember how many there were."""
        self._put("proven", str(count), "beats")

    def proven(self) -> str:
        """The boot in which the fleet last told that this host may do what it does."""
        return self._get("proven", "boot")

    def prove(self, boot: str) -> None:
        """Remember that it did in *boot*."""
        if self.proven() != boot:
            self._put("proven", boot, "boot")

    def asked(self) -> set[GuestId]:
        """Guests that somebody wanted to start here while it could not be told whose they are."""
        entries, _ = self._store.list(self._at("asked") + "/")
        return {GuestId(each.key.rsplit("/", 1)[1]) for each in entries}

    def ask(self, guest: GuestId) -> None:
        """Remember to start a guest."""
        self._put("asked", "", guest)

    def answered(self, guest: GuestId) -> None:
        """It was started, or is another's."""
        self._store.commit([], [Delete(self._at("asked", guest))])

    def removed(self) -> set[GuestId]:
        """Guests that somebody removed here, and the fleet has yet to let go of."""
        entries, _ = self._store.list(self._at("removed") + "/")
        return {GuestId(each.key.rsplit("/", 1)[1]) for each in entries}

    def remove(self, guest: GuestId) -> None:
        """Remember that somebody removed a guest, if the fleet spoke of it or may have."""
        self._put("removed", "", guest)

    def keep(self, guest: GuestId) -> None:
        """It is there again, or the fleet has let go of it."""
        self._store.commit([], [Delete(self._at("removed", guest))])

    def vouched(self, guest: GuestId) -> str:
        """The boot for which a person said that no other host has a guest; ''."""
        return self._get("vouched", guest)

    def vouch(self, guest: GuestId, boot: str) -> None:
        """Remember that a person said so."""
        self._put("vouched", boot, guest)

    def unvouch(self, guest: GuestId) -> None:
        """A person's word counts no more: the fleet has said since that it is another's."""
        if self._get("vouched", guest):
            self._store.commit([], [Delete(self._at("vouched", guest))])

    def leave(self) -> None:
        """Forget everything; last that this host is in a fleet."""
        for kind in ("followed", "asked", "removed", "vouched", "proven"):
            for entry in self._store.list(self._at(kind) + "/")[0]:
                self._store.commit([], [Delete(entry.key)])

    def _all(self) -> list[tuple[tuple[str, ...], str]]:
        prefix = self._at("followed") + "/"
        entries, _ = self._store.list(prefix)
        return [
            (tuple(each.key.removeprefix(prefix).split("/")), each.value.decode())
            for each in entries
        ]

    def _get(self, *of: str) -> str:
        entry = self._store.get(self._at(*of))
        return entry.value.decode() if entry else ""

    def _put(self, kind: str, value: str, *of: str) -> None:
        self._store.commit([], [Put(self._at(kind, *of), value.encode())])

    def _at(self, kind: str, *of: str) -> str:
        return "/".join((f"/moorline/fleet-{kind}", self._host, *of))
