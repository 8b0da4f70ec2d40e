"""support-bundle: what somebody else needs to see, and no secret."""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click

from moorline.cli.common import Common, common
from moorline.cli.name_completion import FilePath
from moorline.cli.output import dump
from moorline.errors import MoorlineError, Refused
from moorline.ports.api import Api
from moorline.redaction import anonymous, names_user


@click.command("support-bundle")
@click.argument("file", required=False, type=FilePath(dir_okay=False))
@common
def support_bundle(given: Common, file: Path | None) -> None:
    """Write to FILE (*.tar.gz) what helps others to see what is wrong here.

    Versions, configuration, attachments, disks, doctor's findings, events and
    the mount table; no connection, no key, no password and no name of a user
    who has one. Names of guests, volumes and shares are in it: look before you
    give it away. The agent's log is systemd's: journalctl -u moorline-agent.

    \b
    Example:
      moorline support-bundle
    """
    to = file or Path(time.strftime("moorline-support-%Y%m%d-%H%M%S.tar.gz"))
    parts: dict[str, str] = {}
    _add(parts, "versions.json", _versions)
    _add(parts, "config.json", lambda: _configuration(given))
    _add(parts, "mounts.txt", lambda: Path("/proc/self/mountinfo").read_text(errors="replace"))
    try:
        with given.open(own=False) as moorline:
            for name, look in _looks(moorline).items():
                _add(parts, name, look)
    except MoorlineError as e:
        parts["opening.error.txt"] = str(e)
    _write(to, {name: anonymous(text) for name, text in parts.items()})
    told = {"file": str(to), "parts": sorted(parts)}
    given.tell(told, f"written: {to} ({', '.join(sorted(parts))})")


def _looks(moorline: Api) -> Mapping[str, Callable[[], Any]]:
    return {
        "attachments.json": moorline.attachments.list,
        "guests.json": moorline.guests.all,
        "disks.json": moorline.maintenance.disks,
        "doctor.json": moorline.maintenance.doctor,
        "events.json": moorline.maintenance.events,
    }


def _add(parts: dict[str, str], name: str, look: Callable[[], Any]) -> None:
    """Add what *look* tells as *name*, or why it does not tell it."""
    try:
        told = look()
        parts[name] = told if isinstance(told, str) else dump(told, "json")
    except (MoorlineError, OSError) as e:
        parts[f"{name}.error.txt"] = str(e)


def _versions() -> str:
    names = sorted({(d.metadata["Name"] or "", d.version) for d in distributions()})
    facts = {"python": platform.python_version(), "kernel": platform.release()}
    return json.dumps({**facts, "packages": dict(names)}, indent=2)


def _configuration(given: Common) -> Any:
    from moorline.cli.configuration import effective

    return [
        replace(option, value="***") if option.value and names_user(option.name) else option
        for option in effective(given)
    ]


def _write(to: Path, parts: Mapping[str, str]) -> None:
    """Write a new file, for its owner alone. Raises Refused."""
    try:
        file = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name, text in sorted(parts.items()):
                content = text.encode(errors="replace")
                member = tarfile.TarInfo(f"moorline-support/{name}")
                member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
                tar.addfile(member, io.BytesIO(content))
    except OSError as e:
        raise Refused(f"{to} cannot be written: {e.strerror}") from e
