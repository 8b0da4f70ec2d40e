"""The session with NovaLink: what is verified, what the environment may say, what is lost."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from pypowervm import adapter

from lab.novalink import NovaLink as Lab
from lab.novalink.rig import image, logon, look, measure, powervm
from moorline.errors import Denied, Refused, Unavailable
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.remembered_slots import MemorySlots
from moorline.hypervisors.powervm.session import Logon, NovaLink
from moorline.hypervisors.powervm.transport import Transport, session_class
from moorline.model import DiskOptions, GuestId, ImageFile, VolumeId
from moorline.secret import Secret


def test_a_server_that_nobody_vouches_for_is_not_talked_to(lab: Lab, tmp_path: Path) -> None:
    with Lab() as other:
        stranger = NovaLink(replace(logon(lab), ca=other.ca))
        with pytest.raises(Unavailable) as told:
            stranger.management()
        assert told.value.message.startswith(
            "NovaLink at localhost cannot be logged on to: [SSL: CERTIFICATE_VERIFY_FAILED]"
        )
        assert "novalink_ca" in told.value.hint
        assert lab.trace == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read(lab: Lab, tmp_path: Path, content: str | None) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)
    with pytest.raises(Denied, match=r"ca\.pem cannot be read"):
        NovaLink(replace(logon(lab), ca=ca))


def test_a_server_that_is_not_there(lab: Lab) -> None:
    with Lab() as gone:
        given = replace(logon(lab), port=gone.port)
    with pytest.raises(Unavailable) as told:
        NovaLink(given).management()
    assert told.value.message == "NovaLink at localhost cannot be logged on to: Connection refused"


def test_every_call_is_verified_not_only_the_logon() -> None:
    """The server is swapped behind a session that is logged on already."""
    with Lab() as lab:
        novalink = NovaLink(logon(lab), deadline=5)
        server = novalink.management().uuid
    with Lab(port=lab.port) as impostor:  # same address, another authority
        with pytest.raises(Unavailable):
            novalink.storage(server)
        novalink.close()
        assert impostor.trace == []


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_cannot_choose_whom_to_trust(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Lab() as other:
        monkeypatch.setenv(name, str(other.ca))
        stranger = NovaLink(replace(logon(lab), ca=other.ca))
        with pytest.raises(Unavailable):
            stranger.management()
        novalink = NovaLink(logon(lab))
        assert novalink.management().name == "novalink"
        novalink.close()
        monkeypatch.setenv(name, str(lab.ca))
        untrusting = NovaLink(replace(logon(lab), ca=None))  # the system's authorities only
        with pytest.raises(Unavailable):
            untrusting.management()


def test_the_environment_cannot_send_us_to_a_proxy(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    novalink = NovaLink(logon(lab), deadline=5)
    assert novalink.management().serves
    novalink.close()


def test_nobody_can_send_us_elsewhere(lab: Lab) -> None:
    vm = powervm(lab)
    vm.find("web01")
    with Lab(tls=False) as other:
        lab.service.redirect = f"http://127.0.0.1:{other.port}"
        with pytest.raises(Unavailable):
            vm.find("web01")
        assert other.trace == []
    vm.close()


def test_connections_are_kept(lab: Lab) -> None:
    vm = powervm(lab)
    for _ in range(10):
        vm.find("web01")
    assert lab.service.connections == 1
    vm.close()


def test_a_connection_that_the_server_closed_is_made_anew(lab: Lab, disk: ImageFile) -> None:
    lab.service.idle = 0.1
    vm = powervm(lab)
    guest = vm.find("web01").id
    time.sleep(0.3)
    before = lab.service.connections
    vm.attach(guest, VolumeId("v1"), disk, DiskOptions())
    assert lab.service.connections > before
    vm.close()


def test_cookies_are_not_kept_as_pypowervm_does_not(lab: Lab) -> None:
    vm = powervm(lab)
    vm.find("web01")
    vm.find("web01")
    assert lab.service.cookies == 0
    vm.close()


def test_an_answer_to_the_logon_that_is_no_answer(lab: Lab) -> None:
    vm = powervm(lab)
    lab.faults.set(garbage=1)
    with pytest.raises(Unavailable, match="cannot be logged on to"):
        vm.find("web01")
    assert vm.find("web01").name == "web01"
    vm.close()


def test_closing_does_not_wait_for_a_server_that_is_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as others would: the test would not end."""
    monkeypatch.setattr("moorline.hypervisors.powervm.session._LOGOFF_TIMEOUT_SECONDS", 0.5)
    vm = powervm(lab, deadline=3600)
    vm.find("web01")
    lab.faults.set(slow=3600)
    vm.close()


def values(**given: str) -> dict[str, str]:
    names = ("novalink_user", "novalink_password_file", "novalink_ca")
    return {**dict.fromkeys(names, ""), **given}


def test_a_logon_is_read_from_the_settings(tmp_path: Path) -> None:
    assert Logon.from_uri("powervm:///", values()) == Logon()
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text("p w\r\n")
    given = values(novalink_user="u", novalink_password_file=str(file), novalink_ca="/ca")
    assert Logon.from_uri("powervm://nl:12", given) == Logon(
        "nl", 12, "u", Secret("p w"), Path("/ca")
    )
    assert Logon.from_uri("powervm://[fd00::1]", given).host == "fd00::1"
    for nothing in (b"", b"\r\n", b"\xff secret"):
        file.write_bytes(nothing)
        with pytest.raises(Denied, match="there is no password in") as told:
            Logon.from_uri("powervm://nl", given)
        assert told.value.__cause__ is told.value.__context__ is None
    file.chmod(0o640)
    with pytest.raises(Denied, match="read by others"):
        Logon.from_uri("powervm://nl", given)
    file.unlink()
    with pytest.raises(Denied, match="cannot be read"):
        Logon.from_uri("powervm://nl", given)


@pytest.mark.parametrize("uri", ["powervm://u:p@nl", "powervm://nl:port", "powervm://nl/x?y"])
def test_an_address_that_is_none_is_refused_and_its_password_not_repeated(
    tmp_path: Path, uri: str
) -> None:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    with pytest.raises(Refused, match="neither powervm:/// nor") as refused:
        Logon.from_uri(uri, values(novalink_user="u", novalink_password_file=str(file)))
    assert "u:p" not in str(refused.value)


def test_pypowervm_itself_is_left_as_it_is() -> None:
    before = adapter.Session.request
    ours = session_class(Transport(None))
    assert issubclass(ours, adapter.Session)
    assert adapter.Session.request is before
    assert adapter.requests is requests
    assert ours.request.__code__ is before.__code__


def test_a_wrong_password_is_denied_and_not_tried_again_at_once(lab: Lab) -> None:
    vm = PowerVM(NovaLink(logon(lab, password="wrong")), MemorySlots(), look, measure)
    for _ in range(3):
        with pytest.raises(Denied, match="cannot be logged on to: NovaLink says") as told:
            vm.find("web01")
        assert "novalink_password_file" in told.value.hint
    assert lab.service.logons == 1
    vm.close()


def test_a_session_that_is_lost_is_renewed(lab: Lab, tmp_path: Path) -> None:
    vm = powervm(lab)
    guest = vm.find("web01").id
    file = ImageFile(image(tmp_path, "f"), "raw")
    lab.service.tokens.clear()
    vm.attach(guest, VolumeId("v1"), file, DiskOptions())
    for _ in range(3):
        lab.faults.set(unauthorized=1)
        assert vm.disks(guest).keys() == {"v1"}
    vm.close()


def test_a_session_that_is_lost_between_read_and_post_is_renewed(lab: Lab, tmp_path: Path) -> None:
    vm = powervm(lab)
    guest = vm.find("web01").id
    file = ImageFile(image(tmp_path, "f"), "raw")

    def loses(path: Path) -> None:
        look(path)
        lab.faults.set(unauthorized=1)

    losing = PowerVM(vm._novalink, MemorySlots(), loses, measure)
    losing.attach(guest, VolumeId("v1"), file, DiskOptions())
    assert lab.service.updates() == 1
    vm.close()


def test_where_even_the_new_token_is_refused_the_next_call_begins_anew(lab: Lab) -> None:
    vm = powervm(lab)
    vm.find("web01")
    lab.faults.set(unauthorized=2)
    with pytest.raises((Denied, Unavailable)):
        vm.find("web01")
    assert vm.find("web01").name == "web01"
    vm.close()


def test_a_password_that_is_right_again_is_tried_in_a_new_session(lab: Lab) -> None:
    """pypowervm gives a session up for good when its new logon is refused."""
    vm = powervm(lab)
    vm.find("web01")
    lab.service.tokens.clear()
    lab.service.password = "changed"
    with pytest.raises(Denied):
        vm.find("web01")
    lab.service.password = lab.password
    assert vm.find("web01").name == "web01"
    vm.close()


def test_closing_logs_off(lab: Lab) -> None:
    vm = powervm(lab)
    vm.find("web01")
    assert len(lab.service.tokens) == 1
    vm.close()
    assert not lab.service.tokens
    vm.close()


def test_the_logon_by_file() -> None:
    with Lab(tls=False) as lab:
        vm = PowerVM(NovaLink(Logon(port=lab.port)), MemorySlots(), look, measure)
        assert vm.find("web01").name == "web01"
        assert vm.disks(GuestId("x")) == {}
        vm.close()


@pytest.mark.parametrize(
    "given",
    [
        {"host": "novalink.example"},
        {"host": "novalink.example", "password": Secret("x")},
        {"user": "a<b", "password": Secret("x")},
    ],
)
def test_a_logon_that_cannot_work_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(Refused):
        Logon(**given)  # type: ignore[arg-type]


def test_the_password_is_told_to_nobody(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    secret = "s3cret-&-<quoted>"
    given = Logon("localhost", lab.port, lab.user, Secret(secret), lab.ca)
    lab.service.password = secret
    vm = PowerVM(NovaLink(given), MemorySlots(), look, measure)
    vm.find("web01")
    lab.service.tokens.clear()
    lab.service.password = "changed"
    with pytest.raises(Denied) as denied:
        vm.find("web01")
    told = caplog.text + repr(given) + str(denied.value) + repr(denied.value)
    assert "s3cret" not in told
    vm.close()


def test_failures_print_nothing_where_no_logging_is_set_up(lab: Lab) -> None:
    code = (
        "from moorline.hypervisors.powervm.session import *\n"
        "from moorline.secret import Secret\n"
        f"n = NovaLink(Logon('localhost', {lab.port}, 'neo', Secret('wrong')))\n"
        "try:\n    n.management()\n"
        "except Exception as e:\n    print(type(e).__name__)\n"
        "n.close()\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert (run.stdout, run.stderr) == ("Unavailable\n", "")


def test_the_system_is_told_at_each_logon_and_left_alone_if_it_is_another(lab: Lab) -> None:
    met: list[str] = []

    def any_identity(uuid: str) -> None:
        met.append(uuid)
        if len(met) > 1:
            raise Refused("another system")

    first = NovaLink(logon(lab), on_identity=any_identity)
    first.management()
    first.management()
    first.close()
    second = NovaLink(logon(lab), on_identity=any_identity)
    with pytest.raises(Refused, match="another system"):
        second.management()
    second.close()
    assert met == [lab.system.uuid.lower()] * 2
