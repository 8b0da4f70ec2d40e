"""The stand-ins for Virtuozzo's commands, and for mount helpers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import host, standin
from lab.quobyte.cluster import replace
from lab.virtuozzo.cluster import Cluster, Virtuozzo


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "at"
    directory.mkdir()
    yield directory
    if standin.mounted(str(directory)):
        standin.umount(str(directory))


@pytest.fixture
def cluster(lab: Path) -> Iterator[Cluster]:
    virtuozzo = Virtuozzo(lab)
    yield virtuozzo.cluster("vault", password="secret")
    virtuozzo.clear()
    shutil.rmtree(host.VSTORAGE / "clusters", ignore_errors=True)


def call(*argv: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=20, input=stdin
    )


def authenticate(password: str) -> subprocess.CompletedProcess[str]:
    return call("vstorage", "-c", "vault", "auth-node", "-P", stdin=f"{password}\n")


def tell_servers(text: str) -> None:
    directory = host.VSTORAGE / "clusters/vault"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bs.list").write_text(text)


def test_a_node_mounts_when_it_knows_a_server_and_is_authenticated(
    cluster: Cluster, at: Path
) -> None:
    cluster.disk("a.raw", 4096)
    tell_servers("gone\nmds2.lab\n")
    assert authenticate("secret").returncode == 0
    done = call("vstorage-mount", "-c", "vault", at, "-u", "nobody", "-g", "root", "-m", "740")
    assert done.returncode == 0, done.stderr
    table = Path("/proc/self/mountinfo").read_text()
    assert f"{at} rw,nosuid,nodev" in table
    assert " - fuse.vstorage vstorage://vault rw," in table
    st = (at / "a.raw").stat()
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (65534, 0, 0o740)
    with pytest.raises(PermissionError):
        os.chown(at / "a.raw", 0, 0)
    assert call("umount", at).returncode == 0


def test_it_does_not_mount_otherwise(cluster: Cluster, at: Path) -> None:
    command = ("vstorage-mount", "-c", "vault", str(at))
    assert "no metadata server" in call(*command).stderr
    tell_servers("mds1.lab\n")
    assert "not authenticated" in call(*command).stderr
    assert authenticate("wrong").returncode == 1
    assert "not authenticated" in call(*command).stderr
    authenticate("secret")
    assert "unknown user" in call(*command, "-u", "no-such-user").stderr
    cluster.rotate("changed")
    assert "not authenticated" in call(*command).stderr
    assert not standin.mounted(str(at))


def test_of_old_it_has_other_names(lab: Path, cluster: Cluster, at: Path) -> None:
    cluster.owner.cluster("plain", servers=())
    assert call("pstorage-mount", "-c", "plain", at).returncode == 0
    assert standin.source_at(str(at)) == "pstorage://plain"


@pytest.mark.parametrize(
    ("helper", "share", "fstype"),
    [
        ("mount.nfs", "filer:/one", "fuse.nfs4"),
        ("mount.cifs", "//filer/one", "fuse.cifs"),
        ("mount.glusterfs", "g1:/one", "fuse.glusterfs"),
    ],
)
def test_helpers_mount_what_there_is(
    lab: Path, at: Path, helper: str, share: str, fstype: str
) -> None:
    directory = lab / "mounted"
    (directory / "one").mkdir(parents=True, exist_ok=True)
    (directory / "calls.jsonl").touch()
    replace(directory / "shares.json", {share: {"directory": "one"}})
    assert call(helper, f"{share}x", at).returncode == 32
    assert call(helper, share, at, "-o", "ro").returncode == 0
    assert f"{at} rw" in Path("/proc/self/mountinfo").read_text()
    assert standin.source_at(str(at)) == share
    assert f" - {fstype} {share} " in Path("/proc/self/mountinfo").read_text()
