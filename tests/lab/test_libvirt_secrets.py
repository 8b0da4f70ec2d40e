"""Secrets in a real libvirtd: who made them, who sees them, and what becomes of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorline.errors import NotOurs
from moorline.hypervisors.libvirt.connection import Connection
from moorline.hypervisors.libvirt.secrets import Kind, Purpose, Secrets
from moorline.model import GuestId, VolumeId
from moorline.secret import Secret

GUEST = GuestId("6f1d7c1a-0000-4000-8000-000000000001")
PLANTED = b"hunter2-\x00planted"


@pytest.fixture
def secrets(lab: Path) -> Iterator[Secrets]:
    connection = Connection("qemu:///system", 20.0)
    yield Secrets(connection)
    connection.close()


@pytest.mark.parametrize("kind", ["volume", "ceph", "iscsi"])
def test_a_secret_is_kept_in_memory_alone_and_dropped(
    secrets: Secrets, libvirt_conn: Any, kind: Kind
) -> None:
    purpose = Purpose(GUEST, VolumeId("kept"), kind)
    assert not secrets.has(purpose)
    secrets.keep(purpose, Secret(PLANTED))
    secrets.keep(purpose, Secret(PLANTED))  # again is success
    assert secrets.has(purpose)
    virsh = subprocess.run(
        ["virsh", "secret-get-value", purpose.uuid], capture_output=True, text=True, check=False
    )
    assert virsh.returncode
    assert "private" in virsh.stderr
    for directory in ("/etc/libvirt", "/var/lib/libvirt", "/run/libvirt"):
        found = subprocess.run(["grep", "-rl", purpose.uuid, directory], capture_output=True)
        assert not found.stdout, directory
    secrets.drop(purpose)
    secrets.drop(purpose)
    assert not secrets.has(purpose)
    assert not [each for each in libvirt_conn.listAllSecrets() if "moorline" in each.usageID()]


def test_each_disk_has_a_secret_of_its_own(secrets: Secrets) -> None:
    one, other = (Purpose(GUEST, VolumeId(each)) for each in ("one", "other"))
    secrets.keep(one, Secret(b"1"))
    secrets.keep(other, Secret(b"2"))
    secrets.drop(one)
    assert secrets.has(other)
    assert not secrets.has(one)
    secrets.drop(other)


def test_what_was_killed_before_it_had_a_value_has_none(
    secrets: Secrets, libvirt_conn: Any
) -> None:
    purpose = Purpose(GUEST, VolumeId("killed"))
    secrets.keep(purpose, Secret(b"1"))
    whole = libvirt_conn.secretLookupByUUIDString(purpose.uuid)
    xml = whole.XMLDesc()
    whole.undefine()
    there = "<description>its value is to come</description>"
    libvirt_conn.secretDefineXML(xml.replace("<usage", f"{there}<usage"))
    assert not secrets.has(purpose)
    secrets.keep(purpose, Secret(b"1"))
    assert secrets.has(purpose)
    secrets.drop(purpose)


def test_a_secret_of_somebody_elses_is_left_alone(secrets: Secrets, libvirt_conn: Any) -> None:
    purpose = Purpose(GUEST, VolumeId("theirs"))
    theirs = libvirt_conn.secretDefineXML(
        f"<secret ephemeral='yes'><uuid>{purpose.uuid}</uuid>"
        "<usage type='volume'><volume>/theirs</volume></usage></secret>"
    )
    theirs.setValue(b"theirs")
    for call in (
        lambda: secrets.keep(purpose, Secret(b"ours")),
        lambda: secrets.drop(purpose),
        lambda: secrets.has(purpose),
    ):
        with pytest.raises(NotOurs):
            call()
    assert theirs.value() == b"theirs"
    theirs.undefine()
