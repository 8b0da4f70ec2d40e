"""Writes all the time in a guest, and tells whether all that was stored is there."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lab.guest import Guest, pattern

BLOCK, SLOTS = 65536, 16


class Volume(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def file(self) -> Path:
        """Behind the back of every mount."""
        ...


class Writer:
    """Writes numbered blocks in a guest, one after the other, and notes those that were stored."""

    def __init__(self, guest: Guest, volume: Volume) -> None:
        self.guest = guest
        self.volume = volume
        self.log = f"/tmp/{volume.id[:8]}"

    def start(self) -> None:
        device = self.guest.wait_for(self.volume.id)
        one = (
            f"yes $i | head -c {BLOCK} | dd of={device} bs=64k seek=$((i % {SLOTS}))"
            " iflag=fullblock oflag=direct conv=notrunc status=none 2>>$L.err"
        )
        note = "echo $i >>$L || echo $i >>$L.err"
        loop = f"while [ ! -e $L.stop ]; do {one} && {note}; i=$((i+1)); done"
        self.guest.agent.check(
            f"mkdir -p /tmp; L={self.log}; i=0; ({loop}; touch $L.over) >/dev/null 2>&1 &"
        )

    def written(self) -> int:
        """How many blocks the guest was told to be stored."""
        return int(self.guest.agent.check(f"cat {self.log} 2>/dev/null | wc -l")[0])

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
        numbers = [int(n) for n in self.guest.agent.check(f"tail -n {SLOTS} {self.log}")]
        return [
            n for n in numbers if _block(content or self.volume.file, n % SLOTS) != pattern(str(n))
        ]


def _block(path: Path, slot: int) -> bytes:
    with path.open("rb") as file:
        file.seek(slot * BLOCK)
        return file.read(BLOCK)
