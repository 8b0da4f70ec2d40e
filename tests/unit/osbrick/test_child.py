"""What runs os-brick in a process of its own: names that last, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from os_brick import exception
from oslo_concurrency.processutils import ProcessExecutionError

from moorline.backends.osbrick import hyperscale_connector
from moorline.backends.osbrick.child import lasting_names, told_apart
from moorline.backends.osbrick.hyperscale import HyperScale
from moorline.errors import Busy, Failed, Refused, Uncertain
from moorline.host.linux import Linux

GUID = "8ee71c33-dcd0-4267-8f2b-e0742ecabe9f"


def started(error: OSError | None = None) -> ProcessExecutionError:
    wrapped = ProcessExecutionError(cmd="iscsiadm", description="d")
    wrapped.__context__ = error
    return wrapped


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (hyperscale_connector.BadVolume("x"), Refused),
        (hyperscale_connector.Collision("x"), Refused),
        (hyperscale_connector.Rejected("connect_volume", 10, "x"), Refused),
        (hyperscale_connector.Rejected("connect_volume", 106, "x"), Refused),
        (hyperscale_connector.Rejected("connect_volume", 1, "x"), Failed),
        (hyperscale_connector.CannotRun("x"), Failed),
        (hyperscale_connector.CommandFailed("x"), Failed),
        (hyperscale_connector.Complained("x"), Uncertain),
        (hyperscale_connector.NoAnswer("x"), Uncertain),
        (hyperscale_connector.BadAnswer("x"), Uncertain),
        (hyperscale_connector.Incomplete("x"), Uncertain),
        (hyperscale_connector.TimedOut("x"), Uncertain),
        (hyperscale_connector.Lost("x"), Uncertain),
        (exception.InvalidConnectorProtocol("x"), Refused),
        (exception.InvalidParameterValue("an addressing mode, after a login"), Uncertain),
        (exception.NoFibreChannelHostsFound(), Failed),
        (exception.VolumeDeviceNotFound(device="x"), Uncertain),
        (exception.ExecutionTimeout(stderr="x"), Uncertain),
        (started(FileNotFoundError("iscsiadm")), Failed),
        (started(OSError("Premature eof")), Uncertain),
        (ProcessExecutionError(exit_code=5), Uncertain),
        (KeyError("target_iqn"), Uncertain),
        (Busy("x"), Busy),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_each_error_says_whether_it_may_have_happened(error: Exception, family: Any) -> None:
    with pytest.raises(family) as raised, told_apart({}):
        raise error
    assert type(raised.value) is family


def test_secrets_of_the_connection_are_in_no_error() -> None:
    properties = {"auth_password": "sesame-1", "secrets": ["sesame-2"], "dhchap_key": "sesame-3"}
    with pytest.raises(Uncertain) as raised, told_apart(properties):
        raise ProcessExecutionError(
            cmd="iscsiadm -v sesame-1", stderr="sesame-2? sesame-3", exit_code=1
        )
    assert "sesame" not in str(raised.value)
    assert "iscsiadm" in str(raised.value)


def test_a_device_is_named_by_its_identity(tmp_path: Path) -> None:
    device, other, by_id = tmp_path / "sdb", tmp_path / "sdc", tmp_path / "by-id"
    device.touch()
    other.touch()
    by_id.mkdir()
    assert lasting_names(device, by_id) == []
    (by_id / "lvm-pv-x").symlink_to(device)
    (by_id / "wwn-0x2").symlink_to(other)
    assert lasting_names(device, by_id) == []
    for name in ("wwn-0x1", "scsi-31", "dm-uuid-mpath-31"):
        (by_id / name).symlink_to(device)
    names = [path.name for path in lasting_names(device, by_id)]
    assert names == ["dm-uuid-mpath-31", "wwn-0x1", "scsi-31"]


@pytest.mark.parametrize(
    ("given_again", "identity"),
    [
        ("dm-name-mpatha", "dm-uuid-mpath-31"),
        # udev: "might get overridden on adding a new nvme controller"
        ("nvme-Linux_0123456789abcdef", "nvme-uuid.11111111-2222-4333-8444-555555555555"),
        ("nvme-Linux_0123456789abcdef_1", "nvme-eui.0123456789abcdef"),
        ("nvme-SAMSUNG_1", "nvme-nvme.144d-31-5341-00000001"),
    ],
)
def test_a_name_that_another_volume_may_be_given_is_none_of_its(
    tmp_path: Path, given_again: str, identity: str
) -> None:
    (tmp_path / given_again).symlink_to(tmp_path / "device")
    assert lasting_names(tmp_path / "device", tmp_path) == []
    (tmp_path / identity).symlink_to(tmp_path / "device")
    assert [path.name for path in lasting_names(tmp_path / "device", tmp_path)] == [identity]


def test_without_os_brick_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "os_brick.py"
    missing.write_text("raise ModuleNotFoundError(\"No module named 'os_brick'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    host = Linux()
    backend = HyperScale(host, tmp_path / "locks")
    volume = backend.parse(backend.from_url(f"veritas_hyperscale://{GUID}", None))
    with pytest.raises(Refused, match=r"pip install 'moorline\[osbrick\]'"):
        backend.ask("paths", volume)
    host.close()
