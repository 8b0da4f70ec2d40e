"""The import lease, where the stand-in is always ready and asks for one disk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pyVmomi import vim
from rows import Rows

from moorline.errors import Failed, Uncertain
from moorline.hypervisors.vsphere.client.tasks import no_progress
from moorline.hypervisors.vsphere.provision.image_import import Lease

State = vim.HttpNfcLease.State


def lease(**values: Any) -> Lease:
    session: Any = Rows(values)
    return Lease(session, "box is not made", vim.HttpNfcLease("lease-1"))


def test_what_speaks_against_an_import_is_told_in_vcenters_words() -> None:
    full = vim.fault.NoDiskSpace(msg="the datastore is full", file="x", datastore="y")
    with pytest.raises(Failed) as told:
        lease(state=State.error, error=full).wait(9)
    assert told.value.message == "box is not made: vCenter says: the datastore is full"


def test_a_lease_is_not_waited_for_without_end() -> None:
    with pytest.raises(Uncertain, match="has not let us begin"):
        lease(state=State.initializing).wait(0)


@pytest.mark.parametrize("disks", [0, 2])
def test_a_stream_is_for_one_disk(disks: int) -> None:
    url = SimpleNamespace(disk=True, url="https://host/disk.vmdk", sslThumbprint=None)
    other = SimpleNamespace(disk=False, url="https://host/machine.nvram", sslThumbprint=None)
    asked = lease(info=SimpleNamespace(deviceUrl=[other] + [url] * disks))
    with pytest.raises(Uncertain, match=f"asks for {disks} disks"):
        asked.upload([], 0, no_progress)
