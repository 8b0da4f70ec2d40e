"""What a command is told on its standard input, and what it says on its outputs."""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

from moorline.errors import Failed
from moorline.secret import Secret

MAX_OUTPUT_BYTES = 1 << 20
"""Bytes that a command can write to each of stdout and stderr; more fails with EPERM."""


@contextmanager
def captured() -> Iterator[int]:
    """A file for a command's output, of limited size."""
    file = os.memfd_create("output", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, MAX_OUTPUT_BYTES)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield file
    finally:
        os.close(file)


def text_of(file: int, secret: Secret[str] | None) -> str:
    """What was written to *file*, without the secret."""
    written = os.lseek(file, 0, os.SEEK_CUR)  # the file position is shared with the writer
    text = os.pread(file, written, 0).decode(errors="replace")
    for line in secret.reveal().splitlines() if secret else ():
        if line:
            text = text.replace(line, "***")
    return text


@contextmanager
def told(secret: Secret[str]) -> Iterator[int]:
    """A descriptor from which the secret can be read once, followed by the end of file."""
    data = secret.reveal().encode()
    if len(data) > select.PIPE_BUF:
        raise Failed("the text for the command's standard input is too long")
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(ours, data)  # it fits into the pipe, so writing does not block
        os.close(ours)
        yield theirs
    finally:
        os.close(theirs)
