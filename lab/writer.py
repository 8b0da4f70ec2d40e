"""Writes all the time in a guest, and tells whether all that was stored is there."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lab.guest import Guest, digest, pattern

BLOCK, SLOTS = 65536, 16
READ = "reading"
"""With its end of line it fills a block evenly."""


class Volume(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def file(self) -> Path:
        """Behind the back of every mount."""
        ...


class Writer:
    """Writes numbered blocks in a guest, one after the other, and notes those that were stored.

    *first*, *slots*: where, in blocks. *flushes*: by the guest's cache, which it flushes each time.
    """

    def __init__(
        self,
        guest: Guest,
        volume: Volume,
        first: int = 0,
        slots: int = SLOTS,
        *,
        flushes: bool = False,
    ) -> None:
        self.guest = guest
        self.volume = volume
        self.log = f"/tmp/{volume.id[:8]}-{first}"
        self._first = first
        self._slots = slots
        self._how = "conv=notrunc,fsync" if flushes else "oflag=direct conv=notrunc"

    def start(self) -> None:
        device = self.guest.wait_for(self.volume.id)
        one = (
            f"yes $i | head -c {BLOCK} | dd of={device} bs=64k"
            f" seek=$((i % {self._slots} + {self._first})) iflag=fullblock {self._how} status=none"
        )
        self._loop(f"{one} 2>>$L.err && {{ echo $i >>$L || echo $i >>$L.err; }}")

    def _loop(self, do: str) -> None:
        """Do it all the time; *do* knows how often it did as ``$i``, and its log as ``$L``."""
        loop = f"while [ ! -e $L.stop ]; do {do}; i=$((i+1)); done"
        self.guest.agent.check(
            f"mkdir -p /tmp; L={self.log}; : >>$L; i=0; ({loop}; touch $L.over) >/dev/null 2>&1 &"
        )

    def written(self) -> int:
        """How many blocks the guest was told to be stored."""
        return int(self.guest.agent.check(f"wc -l <{self.log}")[0])

    def errors(self) -> list[str]:
        """What went wrong in the guest."""
        return [line for line in self.guest.agent.run(f"cat {self.log}.err").lines if line]

    def stop(self) -> None:
        """Let the block in hand be the last."""
        self.guest.agent.check(
            f"touch {self.log}.stop; while [ ! -e {self.log}.over ]; do sleep 0.1; done"
        )

    def lost(self, content: Path | None = None) -> list[int]:
        """Stop; the blocks that do not hold what was written there last.

        *content*: what is on the disk, if its file is no raw image.
        """
        self.stop()
        numbers = [int(n) for n in self.guest.agent.check(f"tail -n {self._slots} {self.log}")]
        path = content or self.volume.file
        return [
            n for n in numbers if _block(path, n % self._slots + self._first) != pattern(str(n))
        ]


class Reader(Writer):
    """Reads what it wrote once, all the time, past the guest's cache, and notes what was right."""

    def start(self) -> None:
        device = self.guest.wait_for(self.volume.id)
        made = f"yes {READ} | head -c {self._slots * BLOCK}"
        self.guest.agent.check(
            f"{made} | dd of={device} bs=64k seek={self._first} iflag=fullblock {self._how}"
            " status=none"
        )
        read = f"dd if={device} bs=64k skip={self._first} count={self._slots} iflag=direct"
        right = digest(pattern(READ, self._slots * BLOCK))
        seen = f"$({read} status=none 2>>$L.err | md5sum)"
        self._loop(f'case "{seen}" in {right}*) echo $i >>$L;; *) echo $i wrong >>$L.err;; esac')

    def lost(self, content: Path | None = None) -> list[int]:
        self.stop()
        path, slots = content or self.volume.file, range(self._slots)
        return [n for n in slots if _block(path, self._first + n) != pattern(READ)]


def _block(path: Path, slot: int) -> bytes:
    with path.open("rb") as file:
        file.seek(slot * BLOCK)
        return file.read(BLOCK)
