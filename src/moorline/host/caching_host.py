"""A host that remembers each answer, for one look at very many links."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from moorline.errors import Uncertain
from moorline.model import Format
from moorline.ports import (
    Call,
    CheckedImage,
    Command,
    FilesOf,
    Host,
    Images,
    IsIts,
    Mount,
    OpenAs,
    Output,
    Root,
)

T = TypeVar("T")


class Snapshot:
    """A :class:`moorline.ports.Host` that remembers what it saw.

    It is for looking only. Its answers may be out of date, so code that acts asks the host
    itself. Of several threads that share it, each may ask the host the first time.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen: dict[object, Any] = {}

    def run(self, command: Command) -> Output:
        return self._host.run(command)

    def held(self, hold: Path) -> bool:
        return bool(self.once(("held", hold), lambda: self._host.held(hold)))

    def only_serves(self, hold: Path, at: Path, is_its: IsIts) -> bool:
        return self._host.only_serves(hold, at, is_its)

    def elsewhere(self, at: Path) -> Sequence[str]:
        return self._host.elsewhere(at)

    def call(self, call: Call) -> Mapping[str, Any]:
        return self._host.call(call)

    def mounts(self) -> Sequence[Mount]:
        return self.once("mounts", self._host.mounts)

    def clients(self, mount: Mount) -> Sequence[str] | None:
        return self.once(("clients", mount), lambda: self._host.clients(mount))

    def has_ended(self, mount: Mount) -> bool:
        return self._host.has_ended(mount)

    def root(self, path: Path, *, list: bool = False) -> Root:
        return self.once((path, list), lambda: self._host.root(path, list=list))

    def size(self, path: Path, format: str = "raw") -> int:
        return self._host.size(path, format)

    def places(self, paths: Iterable[str]) -> Mapping[str, frozenset[str] | None]:
        return self._host.places(paths)

    def readable(self, path: Path, user: int, group: int) -> bool:
        return self._host.readable(path, user, group)

    def openable(self, path: Path, use: OpenAs) -> None:
        self._host.openable(path, use)

    def files(
        self,
        share: Path,
        images: Images,
        like: Collection[int] | None = None,
        *,
        first: bool = False,
    ) -> Sequence[FilesOf]:
        return self._host.files(share, images, like, first=first)

    def users_of(self, path: Path) -> Sequence[str]:
        return self._host.users_of(path)

    def image(self, share: Path, name: str, format: Format) -> CheckedImage:
        return self._host.image(share, name, format)

    def once(self, what: Hashable, ask: Callable[[], T]) -> T:
        """See :class:`moorline.ports.host.Remembering`."""
        if what not in self._seen:
            try:
                self._seen[what] = ask()
            except (Uncertain, OSError) as e:
                self._seen[what] = e
        if isinstance(found := self._seen[what], Exception):
            raise found
        return found  # type: ignore[no-any-return]
