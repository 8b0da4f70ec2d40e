"""Checks an image file with all its backing files, before a guest gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from moorline.errors import Failed, Refused
from moorline.model import BackingFile, CheckedAs, ImageFile
from moorline.ports import CheckedFile, CheckedImage, Host


def any_file(file: CheckedFile) -> None:
    """Accept each file that the host found sound."""


def checked(
    host: Host,
    share: Path,
    source: ImageFile,
    demand: Callable[[CheckedFile], None] = any_file,
) -> ImageFile:
    """Return *source*, which lies beneath *share*, with its backing files as they were checked.

    *demand* raises Refused if a file is not to be opened, the image or one beneath it.
    Raises Refused, Failed, Uncertain. Blocks for a look's deadline at most.
    """
    try:
        image = host.image(share, str(source.path.relative_to(share)), source.format)
    except OSError as e:
        raise Failed(f"{source.path} cannot be looked at: {e.strerror}") from e
    return as_checked(source, image, demand)


def as_checked(
    source: ImageFile, image: CheckedImage, demand: Callable[[CheckedFile], None] = any_file
) -> ImageFile:
    """As :func:`checked`, for an *image* that the host has looked at. Raises Refused."""
    files = image.files
    demand(files[0])
    for above, file in pairwise(files):
        try:
            demand(file)
        except Refused as e:
            raise Refused(f"the backing file of {above.path}: {e.message}", hint=e.hint) from e
    backing = tuple(BackingFile(file.path, file.format) for file in files[1:])
    checked = tuple(CheckedAs(file.path, file.device, file.inode, file.changed) for file in files)
    return replace(source, backing=backing, checked=checked)
