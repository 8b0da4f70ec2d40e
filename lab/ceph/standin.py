"""Stands in for ``rbd`` and ``ceph``, as far as they are asked before a guest gets an image.

Known, captured from Ceph 16.2.15 of Debian 12: what is answered in JSON; an errno as the exit
code; warnings on standard error where there is no ceph.conf, without which ``ceph`` does nothing;
a keyfile is read as long as stat(2) says, so that a pipe is empty; a monitor that is away, or
hangs, is waited for, and nothing is said. Assumed: a cluster has one user of a key, and no pools
but those of its images.

``StandIn`` is that cluster, with one file for all that it has; it is the tests' to change.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

MONITOR = "127.0.0.5:6789"
FSID = "11111111-2222-3333-4444-555555555555"
USER, KEY = "moor", "AQDwIQ5rXyuPIhAApzHAy4mNDa+3vys+cgvrQw=="
_PROGRAM = """\
#!/usr/bin/python3 -SE
import sys
sys.path[0] = {checkout!r}
from lab.ceph import standin
standin.command({file!r})
"""


class StandIn:
    """A cluster, and the commands that ask it, in *directory*: for the beginning of PATH."""

    def __init__(self, directory: Path) -> None:
        self.commands = directory / "commands"
        self._file = directory / "cluster.json"
        self.commands.mkdir()
        self.images: dict[str, dict[str, Any]] = {}
        self.hangs = False
        self.keyless = False
        self.save()
        checkout = str(Path(__file__).resolve().parents[2])
        for name in ("rbd", "ceph"):
            program = self.commands / name
            program.write_text(_PROGRAM.format(checkout=checkout, file=str(self._file)))
            program.chmod(0o755)

    def image(self, name: str, size: int = 64 << 20, **more: Any) -> None:
        """Have one. *more*: ``watchers`` and ``locks`` as they are printed, ``snapshots``,
        ``forbidden``, and what else its information has."""
        number = f"{0x100B49E59BEC + len(self.images):x}"
        self.images[name] = {"id": number, "size": size, **more}
        self.save()

    def hang(self, hangs: bool = True) -> None:
        self.hangs = hangs
        self.save()

    def save(self) -> None:
        world = {"images": self.images, "hangs": self.hangs, "keyless": self.keyless}
        self._file.write_text(json.dumps(world))


def command(file: str) -> NoReturn:
    """What the command does. It ends with an errno."""
    program = Path(sys.argv[0]).name
    configured = "-c" in sys.argv or Path("/etc/ceph/ceph.conf").exists()
    if program == "ceph" and not configured:
        _end(1, "Error initializing cluster client: ObjectNotFound(... calling conf_read_file)")
    sys.stderr.write("did not load config file, using default settings.\n")
    words, options = _split(sys.argv[1:])
    world = json.loads(Path(file).read_text())
    while world["hangs"] or MONITOR not in options["-m"].split(","):
        time.sleep(60)
    _log_in(world, options)
    if program == "ceph":
        assert words == ["fsid"]
        _answer({"fsid": FSID})
    *asked, spec = words
    name, at, snapshot = spec.partition("@")
    image = world["images"].get(name)
    if image is None:
        _end(2, f"rbd: error opening image {name}: (2) No such file or directory")
    if image.get("forbidden"):
        _end(1, f"rbd: error opening image {name}: (1) Operation not permitted")
    if at and snapshot not in image.get("snapshots", []):
        _end(2, "error setting snapshot context: (2) No such file or directory")
    if at and asked != ["info"]:
        _end(22, "rbd: snapshot name specified for a command that doesn't use it")
    _answer(_told(name, image, asked))


def _told(name: str, image: dict[str, Any], asked: list[str]) -> Any:
    if asked == ["status"]:
        return {"watchers": image.get("watchers", [])}
    if asked == ["lock", "ls"]:
        return image.get("locks", [])
    assert asked == ["info"], asked
    ours = ("watchers", "locks", "snapshots")
    return {"name": name, "format": 2, **{k: v for k, v in image.items() if k not in ours}}


def _split(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words of a command, and its options; each of ours has a value."""
    words, options, rest = [], {}, list(argv)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            options[word] = rest.pop(0)
        else:
            words.append(word)
    assert options.pop("--format") == "json"
    return words, options


def _log_in(world: dict[str, Any], options: dict[str, str]) -> None:
    if options.get("--auth-client-required") == "none":
        if not world["keyless"]:
            _end(95, "rbd: couldn't connect to the cluster!")
        return
    path = Path(options["--keyfile"])
    with path.open("rb") as file:
        key = os.read(file.fileno(), path.stat().st_size).decode()
    if (options["--id"], key) != (USER, KEY):
        _end(13, "rbd: couldn't connect to the cluster!")


def _answer(what: Any) -> NoReturn:
    print(json.dumps(what, separators=(",", ":")))
    sys.exit(0)


def _end(code: int, said: str) -> NoReturn:
    print(said, file=sys.stderr)
    sys.exit(code)
