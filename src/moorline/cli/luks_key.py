"""--luks-key-file: reads the key of a LUKS volume, which is in no argument and no environment."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from moorline.cli import typed_files
from moorline.cli.common import F
from moorline.cli.connection import read_bytes
from moorline.cli.name_completion import FilePath
from moorline.core.luks import FORMAT, MAX_KEY_BYTES
from moorline.errors import Denied, Refused

_HELP = (
    "The key of a LUKS volume, - for standard input: every byte of it, as `qemu-img --object"
    " secret,file=` reads it."
)


def key_options() -> list[click.Option]:
    """The options, for commands that list theirs."""
    type_ = FilePath(allow_dash=True)
    return [click.Option(["--luks-key-file"], type=type_, metavar="FILE", help=_HELP)]


def key_option(command: F) -> F:
    """Give *command* the option."""
    option: Callable[[F], F] = click.option(
        "--luks-key-file", type=FilePath(allow_dash=True), metavar="FILE", help=_HELP
    )
    return option(command)


def with_key(
    volume: Mapping[str, Any] | str, file: Path | None, *, on_stdin: bool = False
) -> Mapping[str, Any] | str:
    """*volume*, a connection or what was typed for one, with the key in *file*, if one is given.

    *on_stdin*: the connection came on standard input. Raises UsageError, Refused, Denied.
    """
    if file is None:
        return volume
    if isinstance(volume, str) and volume.startswith("cinder:"):
        raise click.UsageError("the key of a volume of Cinder's is for --connection FILE")
    if str(file) == "-" and on_stdin:
        raise click.UsageError("the connection and the key cannot both come on standard input")
    key = base64.b64encode(_read(str(file))).decode()
    if isinstance(volume, str):
        return {"url": volume, "encryption": {"provider": FORMAT, "key": key}}
    told = volume.get("encryption")
    return {**volume, "encryption": {**(told if isinstance(told, Mapping) else {}), "key": key}}


def _read(file: str) -> bytes:
    what = "the LUKS key"
    try:
        if file != "-" and typed_files.answered(file, lambda: Path(file).stat().st_mode) & 0o077:
            raise Denied(f"{file} can be read by others", hint=f"chmod 600 {file}")
    except OSError as e:
        raise Refused(f"{what} {file} cannot be read: {os.strerror(e.errno or 0)}") from e
    key = read_bytes(file, what, MAX_KEY_BYTES)
    if not key:
        raise Refused(f"there is no key in {file}")
    return key
