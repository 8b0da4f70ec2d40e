"""The mount table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.host.mount.table import mount_at, read
from moorline.ports.mount import Mount, by_target, covering, innermost, mounts_in

TABLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:40 / /mnt/a\\040b\\134c rw,nosuid shared:7 master:1 - fuse.quobyte quobyte@r\\0401/vol rw
41 40 0:41 / /mnt/a\\040b\\134c rw master:3 propagate_from:2 - tmpfs  rw
42 27 0:42 / /mnt/gone//deleted rw - tmpfs none rw
"""


def test_lines_become_values() -> None:
    mounts = mounts_in(TABLE)
    assert mounts[2] == Mount(
        40, "quobyte@r 1/vol", "/mnt/a b\\c", "fuse.quobyte", "0:40", shared=True
    )
    assert [m.shared for m in mounts] == [False, True, True, False, False]
    assert mounts[3].source == "", "an empty source moves no field"


def test_the_topmost_mount_at_a_path_is_the_last() -> None:
    mounts = mounts_in(TABLE)
    assert mount_at(mounts, "/mnt/a b\\c") == mounts[3]
    assert mount_at(mounts, Path("/proc")) == mounts[0]
    assert mount_at(mounts, "/mnt") is None
    assert mount_at(mounts, "/mnt/gone") is None, "a deleted mount point is no mount at its path"


def test_the_kernels_own_table_agrees_with_findmnt() -> None:
    shown = subprocess.run(
        ["findmnt", "-rnuo", "ID,FSTYPE,MAJ:MIN"], capture_output=True, text=True, check=True
    )
    found = {tuple(line.split()) for line in shown.stdout.splitlines()}
    assert {(str(m.id), m.fstype, m.device) for m in read()} == found


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_path_survives_the_kernels_escapes(path: str) -> None:
    escaped = "".join(rf"\{ord(c):03o}" if c in " \t\n\\#" else c for c in path)
    (mount,) = mounts_in(f"1 2 0:3 / {escaped} rw - fuse {escaped} rw\n")
    assert (mount.target, mount.source) == (path, path)


def test_a_path_that_is_no_text_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(b"1 2 0:3 / /\xff\xfe rw - tmpfs none rw\n")
    assert read(tmp_path / "mountinfo")[0].device == "0:3"


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_table_has_no_mounts(text: str) -> None:
    assert not mounts_in(text)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/mnt/a/deep/file", 4),
        ("/mnt/a", 4),
        ("/mnt/ab", 1),
        ("/mnt", 1),
        ("/", 1),
        ("/mnt/a/b", 3),
        ("", None),
        ("pool/image", None),
    ],
)
def test_a_path_lies_on_the_innermost_mount_and_on_the_last_one_there(
    path: str, number: int | None
) -> None:
    places = ("/", "/mnt/a", "/mnt/a/b", "/mnt/a")
    mounts = [Mount(n, "s", at, "ext4", f"0:{n}", True) for n, at in enumerate(places, 1)]
    found = covering(path, by_target(mounts))
    assert (found.id if found else None) == number


def test_where_there_is_no_root_a_path_may_lie_on_nothing() -> None:
    assert innermost("/srv/x", {"/mnt"}) == ""
    assert innermost("/mnt/x", {"/mnt"}) == "/mnt"
