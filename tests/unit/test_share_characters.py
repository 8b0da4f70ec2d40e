"""A share whose name cannot be taken is refused with the characters that it may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moorline.backends.filesystem import FileSystem
from moorline.backends.mounted import GlusterFs, Nfs, Smbfs
from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte
from moorline.backends.virtuozzo import Virtuozzo
from moorline.errors import Refused
from moorline.testing.toy_host import ToyHost

BASE = Path("/mnt")


@pytest.mark.parametrize(
    ("backend", "share", "allowed"),
    [
        (Quobyte(), "reg1/{}", "A-Z a-z 0-9 _ . + - (no blanks)"),
        (Virtuozzo(has_command=bool), "mds1:/{}", "A-Z a-z 0-9 _ - (no blanks)"),
        (GlusterFs(), "filer:/{}", "A-Z a-z 0-9 _ - alone"),
        (Nfs(), "filer:/{}", "all characters but blanks, commas and backslashes"),
        (Smbfs(), "//filer/{}", "all characters but blanks, commas and backslashes"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, FileSystem) else "",
)
@pytest.mark.parametrize("name", ["vm disks", "a,b c", "vm "])
def test_it_says_which(backend: FileSystem[Any], share: str, allowed: str, name: str) -> None:
    data = {"export": share.format(name), "name": "volume-1", "format": "raw"}
    connection = {"driver_volume_type": backend.kind, "data": data}
    with pytest.raises(Refused) as refused:
        Mounter(ToyHost(), backend, BASE).parse(connection)
    assert allowed in refused.value.hint
