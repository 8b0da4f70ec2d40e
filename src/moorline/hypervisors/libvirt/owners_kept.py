"""Keeps the owner of disks' files where a copy of a guest is destroyed that may run elsewhere.

Of a guest that ends libvirt gives the files back, to root where it has noted nobody
(virSecurityDACRestoreAllLabel in src/security/security_dac.c): on storage that other hosts have,
too. It spares what is shared of a guest alone that it has sent away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET

from moorline.deadline import Deadline
from moorline.errors import Failed, MoorlineError
from moorline.ports import Command, Output

LOOK_SECONDS = 4.0
"""For all files of a guest. A share that hangs must not hold up the end of the copy."""
_ONE_LOOK_SECONDS = 2.0
_ROOT = "0:0"
Run = Callable[[Command], Output]


@dataclass(frozen=True, slots=True)
class _File:
    number: str
    """Of its device and inode: under its name may be another one by now."""
    owner: str


def given_back(xml: str) -> list[str]:
    """The paths of the files that libvirt gives back when the guest of *xml* ends. Pure."""
    paths = []
    for disk in ET.fromstring(xml).iterfind("devices/disk"):  # noqa: S314 - libvirtd's own
        source = disk.find("source")
        kept = disk.find("readonly") is not None or disk.find("shareable") is not None
        if source is None or kept or not source.get("file"):
            continue
        label = source.find("seclabel[@model='dac']")
        if label is None or label.get("relabel") != "no":
            paths.append(source.get("file", ""))
    return paths


@contextmanager
def owners_kept(run: Run, paths: Sequence[str]) -> Iterator[None]:
    """Give files that are root's at the end back to whom they were of. Raises nothing itself.

    For a moment they are root's. What cannot be told in a few seconds is left as libvirt has it.
    """
    before = _files(run, paths)
    try:
        yield
    finally:
        taken = [path for path, file in before.items() if file.owner != _ROOT]
        for path, file in _files(run, taken).items():
            was = before[path]
            if file.owner == _ROOT and file.number == was.number:
                with suppress(MoorlineError):  # its storage lets root do nothing: libvirt neither
                    words = ("chown", "--no-dereference", was.owner, "--", path)
                    run(Command(words, _ONE_LOOK_SECONDS))


def _files(run: Run, paths: Sequence[str]) -> dict[str, _File]:
    """Each is asked for by a process that is killed if its share hangs; that is asked once."""
    found: dict[str, _File] = {}
    hang: set[PurePosixPath] = set()
    deadline = Deadline(LOOK_SECONDS)
    for path in paths:
        directory, left = PurePosixPath(path).parent, min(_ONE_LOOK_SECONDS, deadline.left())
        if directory in hang or not left:
            continue
        try:
            told = run(Command(("stat", "--format=%d:%i %u:%g", "--", path), left)).stdout
            found[path] = _File(*told.split())
        except Failed:
            continue  # nothing is there
        except MoorlineError:
            hang.add(directory)
    return found
