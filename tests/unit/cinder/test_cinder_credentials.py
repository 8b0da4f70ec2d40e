"""Who asks Cinder, with which credentials, and what it is told of the host."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import pytest

from lab.cinder.server import Cloud, Volume, environment
from moorline.cinder import Cinder
from moorline.errors import Denied, Refused, Unavailable
from moorline.host.connector_properties import connector_properties
from tests.support.cinder_rig import toy

pytest.importorskip("openstack")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as made:
        yield made


@pytest.fixture
def volume(cloud: Cloud) -> Volume:
    cloud.volumes.clear()
    return cloud.add("data", toy())


def opened(variables: Mapping[str, str]) -> Cinder:
    with mock.patch.dict(os.environ, variables):
        return Cinder("", lambda peer: {"host": "h1"})


def test_a_wrong_password_is_denied(cloud: Cloud) -> None:
    with pytest.raises(Denied, match=r"clouds\.yaml"):
        opened(environment(cloud.url, "wrong")).find("data")


def test_an_application_credential_will_do(cloud: Cloud, volume: Volume) -> None:
    variables = {
        "OS_AUTH_TYPE": "v3applicationcredential",
        "OS_AUTH_URL": f"{cloud.url}/identity/v3",
        "OS_APPLICATION_CREDENTIAL_ID": "a1",
        "OS_APPLICATION_CREDENTIAL_SECRET": "right",
    }
    assert opened(variables).find("data") == volume.id


def test_clouds_yaml_names_a_cloud(cloud: Cloud, volume: Volume, tmp_path: Any) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_text(
        f"clouds:\n  disks:\n    auth:\n      auth_url: {cloud.url}/identity/v3\n"
        "      username: moorline\n      password: right\n      project_name: disks\n"
        "      user_domain_name: Default\n      project_domain_name: Default\n"
    )
    with mock.patch.dict(os.environ, {"OS_CLIENT_CONFIG_FILE": str(file)}):
        assert Cinder("disks", lambda peer: {}).find("data") == volume.id
        with pytest.raises(Refused, match="cloud cannot be told"):
            Cinder("others", lambda peer: {})


def test_no_credentials_at_all(tmp_path: Any) -> None:
    nothing = {"OS_CLIENT_CONFIG_FILE": str(tmp_path / "none.yaml")}
    with pytest.raises((Refused, Denied), match=r"clouds\.yaml"):
        opened(nothing).find("data")


def test_nobody_listens(tmp_path: Any) -> None:
    with pytest.raises(Unavailable):
        opened(environment("http://127.0.0.1:9")).find("data")


def test_what_the_host_is(tmp_path: Any) -> None:
    for path, text in {
        "etc/iscsi/initiatorname.iscsi": "# one\nInitiatorName=iqn.1993-08.org.debian:01:a1\n",
        "etc/nvme/hostnqn": "nqn.2014-08.org.nvmexpress:uuid:a1\n",
        "sys/class/fc_host/host3/port_name": "0x5001438001534a10\n",
        "sys/class/fc_host/host3/node_name": "0x5001438001534a11\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = connector_properties("h1", "127.0.0.1", multipath=True, root=tmp_path)
    assert found["initiator"] == "iqn.1993-08.org.debian:01:a1"
    assert found["nqn"] == "nqn.2014-08.org.nvmexpress:uuid:a1"
    assert (found["wwpns"], found["wwnns"]) == (["5001438001534a10"], ["5001438001534a11"])
    assert (found["host"], found["ip"], found["multipath"]) == ("h1", "127.0.0.1", True)
    bare = connector_properties("h1", "", multipath=False, root=tmp_path / "none")
    assert not {"initiator", "nqn", "wwpns"} & set(bare)
