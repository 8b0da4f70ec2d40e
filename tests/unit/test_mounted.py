"""Shares, options and mounts of the mounted family, without any host."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from moorline.backends.mounted import GlusterFs, Gpfs, Mounted, MountedFile, Nfs, Smbfs
from moorline.backends.mounter import Mounter
from moorline.errors import Refused
from moorline.model import Caching, ImageFile
from moorline.ports import Mount
from moorline.testing.toy_host import ToyHost

MNT = Path("/mnt")


def make(backend: type[Mounted], **values: str) -> Mounter[MountedFile]:
    defaults = {option.name: option.default for option in backend.options}
    base = {f"{backend.kind}_mount_point_base": "/mnt"}
    return backend.from_options(ToyHost(), {**defaults, **base, **values})


def parse(backend: Mounter[MountedFile], export: str, **more: Any) -> Any:
    data = {"export": export, "name": "volume-1", "format": "raw", **more}
    return backend.parse({"driver_volume_type": backend.kind, "data": data})


@pytest.mark.parametrize(
    ("backend", "export", "share"),
    [
        (Nfs, "filer:/", "filer:/"),
        (Nfs, "192.0.2.1:/a/b/", "192.0.2.1:/a/b"),
        (Nfs, "[fe80::1]:/a", "[fe80::1]:/a"),
        (Smbfs, "//Filer/Share/Dir/Sub", "//filer/share/Dir/Sub"),
        (GlusterFs, "g1:vol-1", "g1:/vol-1"),
        (GlusterFs, "g1:/vol-1/dir", "g1:/vol-1/dir"),
    ],
)
def test_shares_are_spelled_the_same_however_they_are_given(
    backend: type[Mounted], export: str, share: str
) -> None:
    assert parse(make(backend), export).share == share


@pytest.mark.parametrize(
    ("backend", "fstype", "source", "expected"),
    [
        (Nfs, "nfs", "FILER:/a/b/", True),
        (Nfs, "nfs4", "filer:/a/b", True),
        (Nfs, "nfs4", "filer:/a", False),
        (Nfs, "nfsd", "filer:/a/b", False),
        (Nfs, "fuse.nfs4", "filer:/a/b", False),
        (Smbfs, "cifs", "//FILER/a/b", True),
        (Smbfs, "smb3", "//filer/A/b", True),
        (Smbfs, "cifs", "//filer/a/B", False),
        (GlusterFs, "fuse.glusterfs", "filer:a/b", True),
        (GlusterFs, "fuse.glusterfs", "filer:/b", False),
        (GlusterFs, "fuse", "filer:/a/b", False),
        (GlusterFs, "fuse.glusterfs", "what?", False),
    ],
)
def test_mounts_are_told_by_type_and_source(
    backend: type[Mounted], fstype: str, source: str, expected: bool
) -> None:
    made = make(backend)
    c = parse(made, "//filer/a/b" if backend is Smbfs else "filer:/a/b")
    mount = Mount(1, source, "/mnt/x", fstype, "0:1", True)
    assert made.file_system.is_mount_of(c, mount) is expected


def test_connections_add_the_options_that_are_harmless() -> None:
    nfs = make(Nfs, nfs_mount_options="nosuid,timeo=600")
    c = parse(nfs, "filer:/a", options="-o vers=4.1,nconnect=4,ro")
    assert nfs.file_system.mount_command(c, MNT)[3:] == (
        "-o",
        "nosuid,timeo=600,vers=4.1,nconnect=4,ro",
    )


@pytest.mark.parametrize(
    "options", ["suid", "-o dev", "vers=4,exec", "-o vers=4 -o ro", "vers=4,", "x-systemd.x", "-v"]
)
def test_other_options_of_connections_are_refused_and_not_quoted(options: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse(make(Nfs), "filer:/a", options=options)
    assert options not in str(refusal.value).partition("known:")[0]


def test_smb_qemu_s_locks_stay_on_this_host_unless_the_operator_says_otherwise() -> None:
    """Mandatory at the server, they fail a guest's writes to its first sector (seen on Samba)."""
    c = parse(make(Smbfs), "//filer/a")
    assert make(Smbfs).file_system.mount_command(c, MNT)[3:] == ("-o", "nobrl")
    smb = make(Smbfs, smbfs_mount_options="brl")
    assert smb.file_system.mount_command(c, MNT)[3:] == ("-o", "nobrl,brl")


def test_smb_a_password_with_a_comma_is_refused_not_cut() -> None:
    with pytest.raises(Refused) as refusal:
        parse(make(Smbfs), "//filer/a", options="username=eve,password=ge,heim")
    assert "heim" not in str(refusal.value)


def test_smb_every_spelling_of_a_credential_is_kept_out_of_the_command() -> None:
    smb = make(Smbfs)
    c = parse(smb, "//filer/a", options="user=eve,PASS=geheim,workgroup=lab,seal")
    assert c.credentials.reveal() == {"username": "eve", "password": "geheim", "domain": "lab"}
    assert smb.file_system.mount_command(c, MNT)[3:] == (
        *("-o", "nobrl,seal,credentials=/mnt.credentials"),
    )


@pytest.mark.parametrize(
    ("backend", "url", "export", "name"),
    [
        (Nfs, "nfs://filer/vol/one/disk", "filer:/vol/one", "disk"),
        (Smbfs, "smbfs://filer/one/disk", "//filer/one", "disk"),
        (GlusterFs, "glusterfs://g1/vol/disk", "g1:/vol", "disk"),
    ],
)
def test_urls(backend: type[Mounted], url: str, export: str, name: str) -> None:
    data = make(backend).from_url(url, "raw")["data"]
    assert data == {"export": export, "name": name, "format": "raw"}


@pytest.mark.parametrize(
    "url", ["nfs://filer/disk", "nfs:///vol/disk", "nfs://f/v/", "smbfs://x/y"]
)
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        make(Nfs).from_url(url, "raw")


def test_the_operator_may_spell_his_shares_as_he_likes() -> None:
    nfs = make(Nfs, nfs_mounted="FILER:/vol/=/srv/vol, other:/x=/srv/x")
    assert nfs.link_name(parse(nfs, "filer:/vol")) == "/srv/vol"
    assert nfs.link_name(parse(nfs, "filer:/else")).startswith("/mnt/")


@pytest.mark.parametrize(
    "values",
    [
        *({"nfs_mounted": text} for text in ("filer:/vol", "=/srv", "filer:/vol=srv", "x=/srv")),
        {"nfs_mounted": "filer:/vol=/srv/../etc"},
        {"nfs_mount_options": "-o ro"},
        {"nfs_mount_options": "ro\nrw"},
        {"nfs_mount_point_base": "mnt"},
    ],
)
def test_unusable_settings_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(Refused):
        make(Nfs, **values)


# --- GPFS ---


def gpfs(path: str, **more: Any) -> Any:
    made = make(Gpfs, gpfs_mount_point_base="/gpfs/fs1, /gpfs/fs1/cinder")
    data = {"name": "volume-1", "device_path": path, **more}
    return made.parse({"driver_volume_type": "gpfs", "data": data})


def test_gpfs_the_nearest_directory_is_the_share() -> None:
    c = gpfs("/gpfs/fs1/cinder/a/volume-1")
    assert (c.share, c.name, c.format) == ("/gpfs/fs1/cinder", "a/volume-1", "raw")
    assert gpfs("/gpfs/fs1/volume-1", format="qcow2").format == "qcow2"


def test_gpfs_a_path_elsewhere_is_refused() -> None:
    for path in ("/gpfs/fs12/x", "/etc/shadow", "/gpfs/fs1", "/gpfs/fs1/../x"):
        with pytest.raises(Refused):
            gpfs(path)


def test_gpfs_url() -> None:
    connection = make(Gpfs).from_url("gpfs:///gpfs/fs1/disk", "raw")
    data = {"name": "disk", "device_path": "/gpfs/fs1/disk", "format": "raw"}
    assert connection == {"driver_volume_type": "gpfs", "data": data}


# --- all ---


def test_libvirt_may_label_what_it_knows_to_be_shared() -> None:
    nfs = make(Nfs)
    assert nfs.file_system.source(parse(nfs, "filer:/a"), MNT) == ImageFile(MNT, "raw")


@pytest.mark.parametrize("kind", ["nfs", "smbfs", "glusterfs", "gpfs", "vzstorage"])
def test_the_family_is_installed(kind: str) -> None:
    (entry,) = entry_points(group="moorline.backends", name=kind)
    assert entry.load().kind == kind


def test_the_documented_diff_is_what_is_there() -> None:
    root = Path(__file__).parents[2]
    diff = (
        (root / "docs/add-a-backend.md").read_text().partition("```diff\n")[2].partition("```")[0]
    )
    files = diff.split("--- ")[1:]
    assert len(files) == 4
    for part in files:
        name, *lines = part.splitlines()
        added = "\n".join(line[1:] for line in lines)
        assert added in (root / name).read_text(), name


def test_of_the_family_libvirt_knows_each_fuse_type_as_shared() -> None:
    """Where it does not, a migration would take the image from its guest: the source must
    then say so (relabel=False), as Virtuozzo's does. virFileSharedFsFUSE in virfile.c.
    """
    known = {"fuse.glusterfs", "fuse.quobyte"}
    classes = [point.load() for point in entry_points(group="moorline.backends")]
    mounted = [each for each in classes if issubclass(each, Mounted)]
    assert {kind for each in mounted for kind in each.types if "fuse" in kind} <= known
    assert len(mounted) > 3


def test_a_disk_of_a_client_that_fails_and_heals_is_not_cached() -> None:
    gluster = make(GlusterFs)
    disk = gluster.file_system.source(parse(gluster, "g1:/vol"), MNT)
    assert isinstance(disk, ImageFile)
    assert disk.caching is Caching.DIRECT
