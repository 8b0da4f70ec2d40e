"""Whether two paths on two mounts lead to one file, by what this host can see of both."""

from __future__ import annotations

import os

import pytest

from moorline.core.same_file import same_file
from moorline.ports import FileId, Mount
from moorline.ports.mount import MountsByPath

QUOBYTE = "fuse.quobyte"
GLUSTER, NFS, SMB = "fuse.glusterfs", "nfs", "cifs"


@pytest.mark.parametrize(
    ("first", "mine", "second", "theirs", "same"),
    [
        ((QUOBYTE, "quobyte@a/vol"), "disk", (QUOBYTE, "quobyte@b/vol"), "hard-link", True),
        ((GLUSTER, "a:/vol"), "a/disk", (GLUSTER, "a:/vol/a"), "disk", True),
        ((GLUSTER, "a:/vol"), "b/disk", (GLUSTER, "a:/vol/a"), "disk", True),  # what else is known?
        ((GLUSTER, "a:/vol"), "disk", (GLUSTER, "a:/other"), "disk", False),
        ((NFS, "nas:/vol"), "a/disk", (NFS, "192.0.2.1:/vol/a"), "disk", True),
        ((NFS, "nas:/"), "vol/a/disk", (NFS, "nas:/vol/a/"), "disk", True),
        ((NFS, "nas:/vol/a"), "disk-1", (NFS, "nas:/vol/b"), "disk-2", False),
        ((SMB, "//nas/v"), "a/disk", (SMB, "//192.0.2.1/v/a"), "disk", True),
        ((SMB, "//nas/v"), "b/disk-1", (SMB, "//192.0.2.1/v/a"), "disk-2", False),
    ],
)
def test_one_inode_on_two_mounts(
    first: tuple[str, str], mine: str, second: tuple[str, str], theirs: str, same: bool
) -> None:
    table = MountsByPath(
        [
            Mount(1, first[1], "/m/one", first[0], "0:51", False),
            Mount(2, second[1], "/m/two", second[0], "0:52", False),
        ]
    )
    one = FileId(f"/m/one/{mine}", os.makedev(0, 51), 4711)
    two = FileId(f"/m/two/{theirs}", os.makedev(0, 52), 4711)
    assert same_file(one, two, table) is same
    assert same_file(two, one, table) is same
    assert not same_file(one, FileId(two.path, two.device, 4712), table)
