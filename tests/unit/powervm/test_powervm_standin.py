"""The stand-in for NovaLink, with stock pypowervm as its client."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pypowervm import adapter as pvm_adapter
from pypowervm import const
from pypowervm import exceptions as pvm
from pypowervm.tasks import partition, scsi_mapper, storage
from pypowervm.wrappers.event import Event
from pypowervm.wrappers.logical_partition import LPAR
from pypowervm.wrappers.storage import FileIO, VDisk
from pypowervm.wrappers.virtual_io_server import VIOS, VSCSIMapping

from lab.novalink import NovaLink
from lab.novalink.model import FOUND, System, partition_uuid, preload
from lab.novalink.rig import image

WEB, SERVER = partition_uuid(100), partition_uuid(1)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[NovaLink]:
    with NovaLink() as lab:
        # Stock pypowervm trusts whom the environment names.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(lab.ca))
        yield lab


def log_on(lab: NovaLink, **given: Any) -> Any:
    given = {"password": lab.password, "port": lab.port, "certpath": "", "timeout": 10, **given}
    return pvm_adapter.Adapter(pvm_adapter.Session("localhost", lab.user, **given))


@pytest.fixture
def api(lab: NovaLink) -> Iterator[Any]:
    api = log_on(lab)
    yield api
    api.session._logoff()


def server(api: Any) -> Any:
    return VIOS.get(api, uuid=SERVER, xag=[const.XAG.VIO_SMAP])


def attach(api: Any, path: Path, tag: str, **place: Any) -> Any:
    """Attach as nova-powervm does."""
    vios = server(api)
    disk = FileIO.bld(api, str(path), backstore_type="loop", tag=tag)
    mapping = scsi_mapper.build_vscsi_mapping(None, vios, WEB, disk, **place)
    scsi_mapper.add_map(vios, mapping)
    return vios.update()


def test_a_wrong_password_is_401(lab: NovaLink) -> None:
    with pytest.raises(pvm.HttpUnauth):
        log_on(lab, password="wrong")


def test_who_it_is(lab: NovaLink, api: Any) -> None:
    assert api.session.mc_type == "PVM"
    found = partition.get_mgmt_partition(api)
    assert isinstance(found, VIOS)
    assert (found.uuid, found.name) == (SERVER, "novalink")
    assert api.sys_uuid == lab.system.uuid


def test_lpars_are_found_by_name_and_uuid(api: Any) -> None:
    found = LPAR.search(api, name="web01", one_result=True)
    assert found.uuid == WEB
    assert found.can_modify_io() == (True, None)
    assert LPAR.get(api, uuid=WEB).name == "web01"
    assert [lpar.name for lpar in LPAR.get(api)] == ["web01", "db01"]
    assert LPAR.search(api, name="nobody") == []
    with pytest.raises(pvm.HttpNotFound):
        LPAR.get(api, uuid=partition_uuid(7))
    assert api.read("LogicalPartition", WEB, suffix_type="quick", suffix_parm="PartitionID").body


def test_a_file_is_mapped_and_unmapped(lab: NovaLink, api: Any, tmp_path: Path) -> None:
    path = image(tmp_path, "f")
    attach(api, path, "v1")
    (found,) = scsi_mapper.find_maps(server(api).scsi_mappings, client_lpar_id=WEB)
    disk = found.backing_storage
    assert isinstance(disk, VDisk)  # whatever it was, it reads back as a virtual disk
    assert (disk.name, disk.tag) == (str(path), "v1")
    assert disk.udid != str(path)
    assert found.target_dev.lua == "0x8100000000000000"
    assert found.client_adapter.lpar_slot_num == found.server_adapter.lpar_slot_num == 2
    scsi_mapper.remove_vdisk_mapping(api, SERVER, WEB, disk_names=[str(path)])
    assert lab.system.made() == ()


def test_a_file_that_is_not_there_is_400(lab: NovaLink, api: Any, tmp_path: Path) -> None:
    with pytest.raises(pvm.HttpError) as error:
        attach(api, tmp_path / "absent", "v1")
    assert error.value.response.status == 400
    assert "no backing file" in error.value.her_wrap.message
    assert lab.system.made() == ()


def test_a_pair_of_adapters_that_do_not_belong_together_is_400(api: Any, tmp_path: Path) -> None:
    """What pypowervm's builder makes of a wanted slot where there is a bus already."""
    attach(api, image(tmp_path, "f1"), "v1")
    with pytest.raises(pvm.HttpError, match="paired"):
        attach(api, image(tmp_path, "f2"), "v2", lpar_slot_num=7)


def test_a_lua_or_a_slot_in_use_is_400(api: Any, tmp_path: Path) -> None:
    attach(api, image(tmp_path, "f1"), "v1")
    with pytest.raises(pvm.HttpError, match="LUA"):
        attach(api, image(tmp_path, "f2"), "v2", lua="0x8100000000000000")
    vios = server(api)
    disk = FileIO.bld(api, str(image(tmp_path, "f3")), tag="v3")
    vios.scsi_mappings.append(VSCSIMapping.bld(api, None, WEB, disk, lpar_slot_num=2))
    with pytest.raises(pvm.HttpError, match="slot 2"):
        vios.update()


def test_an_etag_that_is_old_is_412_and_a_refresh_has_the_mappings(
    api: Any, tmp_path: Path
) -> None:
    old = server(api)
    assert old.refresh() is old  # 304
    attach(api, image(tmp_path, "f1"), "v1")
    disk = FileIO.bld(api, str(image(tmp_path, "f2")), tag="v2")
    scsi_mapper.add_map(old, scsi_mapper.build_vscsi_mapping(None, old, WEB, disk))
    with pytest.raises(pvm.HttpError) as error:
        old.update()
    assert error.value.response.status == 412
    assert len(old.refresh().scsi_mappings) == len(FOUND) + 1


def test_an_update_keeps_what_it_does_not_touch(lab: NovaLink, api: Any, tmp_path: Path) -> None:
    preload(lab.system, 25)
    before = lab.system.made()
    attach(api, image(tmp_path, "f1"), "v1")
    assert lab.system.made()[:25] == before
    assert lab.system.mappings[SERVER][: len(FOUND)] == FOUND


def test_only_lpars_are_named_as_clients(lab: NovaLink, api: Any, tmp_path: Path) -> None:
    attach(api, image(tmp_path, "f1"), "v1")
    lab.system.delete("web01")
    found = server(api).scsi_mappings
    assert [m.client_lpar_href for m in found] == [None] * 5
    assert [m.client_adapter is not None for m in found] == [True, True, False, False, False]
    assert found[-1].backing_storage.tag == "v1"


@pytest.mark.parametrize("udids", ["uuid", "path"])
def test_a_rescan_goes_by_the_udid(
    udids: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NovaLink(system=System(udids=udids)) as lab:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(lab.ca))
        api = log_on(lab)
        path = image(tmp_path, "f")
        attach(api, path, "v1")
        found = server(api).scsi_mappings[-1]
        storage.rescan_vstor(SERVER, found.backing_storage.udid, adapter=api)
        if udids == "uuid":  # taking the path for the id is what nova-powervm does
            with pytest.raises(pvm.VstorNotFound):
                storage.rescan_vstor(SERVER, str(path), adapter=api)
        api.session._logoff()


def test_events_tell_of_changes(lab: NovaLink, api: Any) -> None:
    first = api.read_by_path(f"{const.API_BASE_PATH}uom/Event?{QUEUE}")
    assert [event.etype for event in Event.wrap(first)] == ["NEW_CLIENT"]
    timer = threading.Timer(0.1, lab.system.alter, ["web01"], {"rmc": "none"})
    timer.start()
    second = api.read_by_path(f"{const.API_BASE_PATH}uom/Event?{QUEUE}")
    timer.join()
    assert [event.etype for event in Event.wrap(second)] == ["MODIFY_URI"]


QUEUE = "QUEUE_CLIENTKEY_METHOD=USE_APPLICATIONID&QUEUE_APPLICATIONID=x&group=None"


def test_a_session_that_is_gone_is_renewed_by_the_client(lab: NovaLink, api: Any) -> None:
    lab.faults.set(unauthorized=1)
    assert server(api).name == "novalink"
    assert lab.service.logons == 2


@pytest.mark.parametrize(
    ("fault", "status", "done"),
    [("error", 500, False), ("reject", 400, False), ("error_after", 500, True)],
)
def test_faults_strike_once(
    lab: NovaLink, api: Any, tmp_path: Path, fault: str, status: int, done: bool
) -> None:
    lab.faults.set(**{fault: 1})
    path = image(tmp_path, "f")
    with pytest.raises(pvm.HttpError) as error:
        attach(api, path, "v1")
    assert error.value.response.status == status
    assert bool(lab.system.made()) is done
    attach(api, path, "v1")
    assert len(lab.system.made()) == 1


@pytest.mark.parametrize(("fault", "done"), [("drop", False), ("drop_after", True)])
def test_a_connection_is_cut(
    lab: NovaLink, api: Any, tmp_path: Path, fault: str, done: bool
) -> None:
    lab.faults.set(**{fault: 1})
    with pytest.raises(pvm.ConnectionError):
        attach(api, image(tmp_path, "f"), "v1")
    assert bool(lab.system.made()) is done


def test_a_fault_that_does_not_exist_is_an_error(lab: NovaLink) -> None:
    with pytest.raises(ValueError, match="etag_storm"):
        lab.faults.set(etag_storm=1)


def test_a_traditional_vios(monkeypatch: pytest.MonkeyPatch) -> None:
    with NovaLink(mode="traditional") as lab:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(lab.ca))
        api = log_on(lab)
        assert isinstance(partition.get_mgmt_partition(api), LPAR)
        api.session._logoff()


def test_an_hmc(monkeypatch: pytest.MonkeyPatch) -> None:
    with NovaLink(mode="hmc") as lab:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(lab.ca))
        api = log_on(lab)
        assert api.session.mc_type == "HMC"
        with pytest.raises(pvm.ManagementPartitionNotFoundException):
            partition.get_mgmt_partition(api)
        api.session._logoff()


def test_the_logon_by_file() -> None:
    with NovaLink(tls=False) as lab:
        api = pvm_adapter.Adapter(pvm_adapter.Session(port=lab.port))
        assert api.session.mc_type == "PVM"
        api.session._logoff()


def test_as_a_program_it_says_where_it_is_and_ends_with_stdin() -> None:
    argv = [sys.executable, "-W", "ignore", "-m", "lab.novalink", "--lpars", "a,b,c"]
    with subprocess.Popen(
        argv, cwd=Path(__file__).parents[3], stdin=-1, stdout=-1, text=True
    ) as program:
        assert program.stdout is not None
        where = json.loads(program.stdout.readline())
        url = f"https://localhost:{where['port']}/lab"
        order = {"faults": {"conflict": 2}, "partitions": {"c": {"rmc": "none"}}}
        state = requests.post(url, json=order, verify=where["ca"], timeout=5).json()
        assert (len(state["mappings"]), state["updates"]) == (len(FOUND), 0)
        wrong = {"partitions": {"d": {}}}
        assert requests.post(url, json=wrong, verify=where["ca"], timeout=5).status_code == 400
        program.communicate(timeout=10)
    assert program.returncode == 0
    assert not Path(where["ca"]).exists()
