"""The session: whom it trusts, when it logs in again, and that no call lasts for ever."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import DISK, order, saved
from pyVmomi import vim

from lab.vcenter import VCenter
from lab.vcenter.rig import Makes, Operator, logon, vsphere
from moorline.errors import Denied, Refused, Unavailable, Uncertain
from moorline.hypervisors.vsphere.client.session import Logon, Session
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision.image_import import Lease
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.model import DiskOptions, GuestId, VolumeId
from moorline.secret import Secret
from tests.support.missing import vcenter_lab


def thumbprint(lab: VCenter) -> str:
    der = ssl.PEM_cert_to_DER_cert(lab.certificate.read_text())
    return hashlib.sha256(der).hexdigest()


def looks(session: Session) -> bool:
    try:
        return session.content is not None
    finally:
        session.close()


# --- trust -----------------------------------------------------------------------


def test_the_authority_vouches_for_the_server(lab: VCenter) -> None:
    assert looks(Session(logon(lab)))


def test_an_unknown_authority_is_refused_before_anything_is_said(lab: VCenter) -> None:
    with pytest.raises(Unavailable, match="certificate") as told:
        looks(Session(logon(lab, ca=None)))
    assert "thumbprint" in told.value.hint
    assert lab.calls() == {}


def test_a_certificate_for_another_name_is_refused(lab: VCenter) -> None:
    given = Logon("127.1", lab.user, Secret(lab.password), lab.port, ca=lab.ca)
    with pytest.raises(Unavailable, match="certificate"):  # it is 127.0.0.1 all the same
        looks(Session(given))
    assert lab.calls() == {}


def test_a_thumbprint_vouches_for_the_server_alone(lab: VCenter) -> None:
    print = thumbprint(lab)
    assert looks(Session(logon(lab, ca=None, thumbprint=print)))
    spelled = ":".join(print.upper()[n : n + 2] for n in range(0, 64, 2))
    assert looks(Session(logon(lab, ca=None, thumbprint=spelled)))


def test_another_thumbprint_is_refused_on_every_connection(lab: VCenter) -> None:
    session = Session(logon(lab, ca=None, thumbprint="00" * 32))
    for _ in range(3):  # pyVmomi itself lets the second one pass
        with pytest.raises(Unavailable) as told:
            _ = session.content
        assert told.value.message.endswith(f": the certificate's thumbprint is {thumbprint(lab)}")
    assert lab.calls() == {}


@pytest.mark.parametrize("print", ["00", "zz" * 32, "00" * 20])
def test_what_is_no_sha256_is_refused(lab: VCenter, print: str) -> None:
    with pytest.raises(Refused, match="SHA-256"):
        Session(logon(lab, thumbprint=print))


def test_authorities_that_cannot_be_read(lab: VCenter) -> None:
    with pytest.raises(Denied):
        Session(logon(lab, ca=Path("/nowhere/ca.pem")))


# --- logins ----------------------------------------------------------------------


def test_nothing_is_said_before_something_is_asked(lab: VCenter) -> None:
    vsphere(lab).close()
    assert lab.calls() == {}


def test_a_wrong_password_is_not_tried_again(lab: VCenter) -> None:
    session = Session(logon(lab, password="wrong"))
    for _ in range(3):
        with pytest.raises(Denied) as told:
            _ = session.content
        assert "wrong" not in str(told.value)
    assert lab.calls()["Login"] == 1


def test_a_session_that_ended_is_renewed(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    vm.disks(web)
    for _ in range(3):
        operator.log_everybody_out()
        assert vm.disks(web) == {}
        assert vm.survey()
    assert lab.calls()["Login"] == 4


def test_a_session_that_ends_while_all_are_looked_at_is_renewed(
    lab: VCenter, vm: VSphere, web: GuestId
) -> None:
    for look in (vm.survey, lambda: vm.find(web)):
        lab.fault("RetrievePropertiesEx", Fault="NotAuthenticated")
        assert look()
    assert lab.calls()["Login"] == 3
    lab.fault("RetrievePropertiesEx", count=0, Fault="ManagedObjectNotFound")
    with pytest.raises(Unavailable):  # not: there is no such guest
        vm.find(web)


def test_a_session_that_ended_is_renewed_for_policies(lab: VCenter, operator: Operator) -> None:
    session = Session(logon(lab))
    made = Makes(session)
    wanted = MachineRequest("box", empty=1 << 20, policy="VVol No Requirements Policy")
    for _ in range(2):
        assert made.choose(wanted).best().datastore.name == "vvol1"
        operator.log_everybody_out()
    session.close()


def test_many_threads_renew_it_once(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    vm.disks(web)
    operator.log_everybody_out()
    failed: list[BaseException] = []

    def look() -> None:
        try:
            vm.disks(web)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert lab.calls()["Login"] == 2


def test_who_is_never_authenticated_is_told_so(lab: VCenter, vm: VSphere, web: GuestId) -> None:
    lab.fault("RetrievePropertiesEx", count=0, Fault="NotAuthenticated")
    with pytest.raises(Denied, match="injected"):
        vm.disks(web)


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    for uri in ("vsphere://me:hunter2@host", "vsphere://host/hunter2", "vsphere://host:hunter2"):
        with pytest.raises(Refused) as told:
            Logon.from_uri(uri, {})
        assert "hunter2" not in str(told.value)


def test_what_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    file.chmod(0o600)
    values = {
        "vcenter_user": "moorline@vsphere.local",
        "vcenter_password_file": str(file),
        "vcenter_ca": "/etc/ca.pem",
        "vcenter_thumbprint": "",
    }
    found = Logon.from_uri("vsphere://vc.example.org:8443", values)
    assert (found.host, found.port, found.user) == ("vc.example.org", 8443, values["vcenter_user"])
    assert found.password.reveal() == "secret"
    assert "secret" not in repr(found)
    file.chmod(0o644)
    with pytest.raises(Denied, match="read by others"):
        Logon.from_uri("vsphere://vc.example.org", values)
    file.chmod(0o600)
    for nothing in (b"", b"\r\n", b"\xff secret"):
        file.write_bytes(nothing)
        with pytest.raises(Denied, match="there is no password in") as told:
            Logon.from_uri("vsphere://vc.example.org", values)
        assert told.value.__cause__ is told.value.__context__ is None
    with pytest.raises(Refused, match="vcenter_user"):
        Logon.from_uri("vsphere://vc.example.org", {**values, "vcenter_user": ""})


# --- deadlines and lost connections ----------------------------------------------


def test_a_question_that_is_not_answered_ends(lab: VCenter, web: GuestId) -> None:
    vm = vsphere(lab, deadline=1.5)
    vm.disks(web)
    lab.fault("RetrievePropertiesEx", DelayMs=6000)
    with pytest.raises(Unavailable, match="no answer"):
        vm.disks(web)
    assert vm.disks(web) == {}
    vm.close()


@pytest.fixture
def dribbler(lab: VCenter) -> Iterator[int]:
    """A server that sends a byte now and then, so that no time-out of a socket ends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(lab.certificate, lab.directory / "server.key")
    stop = threading.Event()
    with socket.create_server(("localhost", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with context.wrap_socket(connection, server_side=True) as peer:
                peer.recv(1 << 16)
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n<a")
                while not stop.wait(0.05):
                    try:
                        peer.send(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        stop.set()
        thread.join()


def test_a_server_that_dribbles_is_left(lab: VCenter, dribbler: int) -> None:
    session = Session(Logon("localhost", lab.user, Secret("x"), dribbler, ca=lab.ca), deadline=0.5)
    with pytest.raises(Unavailable, match="no answer"):
        _ = session.content  # the server would go on for hours


def test_a_question_is_asked_again_after_a_cut_connection(
    lab: VCenter, vm: VSphere, web: GuestId
) -> None:
    vm.disks(web)
    lab.fault("RetrievePropertiesEx", Drop=True)
    assert vm.disks(web) == {}


def test_a_server_that_is_not_there(lab: VCenter) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    given = Logon("localhost", lab.user, Secret("x"), port, ca=lab.ca)
    with pytest.raises(Unavailable) as told:
        _ = Session(given).content
    assert told.value.message == "localhost cannot be logged in to: Connection refused"


def test_a_change_is_never_made_twice(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    for fault in ({"Drop": True}, {"DropAfter": True}, {"Status": 503}):
        lab.heal()
        lab.fault("ReconfigVM_Task", **fault)
        with pytest.raises(Uncertain):
            vm.attach(web, VolumeId("v1"), source, DiskOptions())
        assert lab.calls()["ReconfigVM_Task"] == 1
        vm.detach(web, VolumeId("v1"))


# --- a host of the cluster, where images are uploaded to -------------------------


def url(lab: VCenter, host: str = "127.1", **more: str) -> Any:
    """What a lease says of a disk that is to be uploaded."""
    return vim.HttpNfcLease.DeviceUrl(url=f"https://{host}:{lab.port}/nfc/1/disk.vmdk", **more)


def test_a_host_is_believed_by_what_vcenter_tells_of_it(lab: VCenter) -> None:
    """By the thumbprint, or since 9.0 by the certificate; 127.1 is no name in it."""
    pem = lab.certificate.read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    sha1 = hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()
    other = ssl.DER_cert_to_PEM_cert(b"another")
    lease = Lease(Session(logon(lab)), "no upload", None)
    lease._connection(url(lab, sslThumbprint=sha1)).connect()
    lease._connection(url(lab, sslCertificate=pem)).connect()
    lease._connection(url(lab, sslCertificate=pem, sslThumbprint="00" * 20)).connect()
    for wrong in ({"sslThumbprint": "00" * 20}, {"sslCertificate": other}):
        with pytest.raises(ssl.SSLError, match="thumbprint"):
            lease._connection(url(lab, **wrong)).connect()
    with pytest.raises(Refused, match=r"certificate of 127\.1"):
        lease._connection(url(lab, sslCertificate="none"))


def test_a_host_of_which_vcenter_tells_nothing_is_believed_if_the_authority_vouches(
    lab: VCenter,
) -> None:
    lease = Lease(Session(logon(lab)), "no upload", None)
    lease._connection(url(lab, "127.0.0.1")).connect()
    with pytest.raises(ssl.SSLError, match="verify failed"):
        lease._connection(url(lab)).connect()
    stranger = Lease(Session(logon(lab, ca=None)), "no upload", None)
    with pytest.raises(ssl.SSLError, match="verify failed"):
        stranger._connection(url(lab, "127.0.0.1")).connect()


def test_vcenters_own_thumbprint_says_nothing_of_its_hosts(lab: VCenter) -> None:
    der = ssl.PEM_cert_to_DER_cert(lab.certificate.read_text())
    by_thumbprint = logon(lab, ca=None, thumbprint=hashlib.sha256(der).hexdigest())
    lease = Lease(Session(by_thumbprint), "no upload", None)
    with pytest.raises(Refused, match=r"whose certificate 127\.0\.0\.1 has") as told:
        lease._connection(url(lab, "127.0.0.1"))
    assert "vcenter_ca" in told.value.hint


def test_an_image_goes_to_a_host_that_the_authority_vouches_for(
    lab: VCenter, makes: Makes, tmp_path: Path
) -> None:
    host = f"127.0.0.1:{lab.port}"
    lab.fault("RetrievePropertiesEx", 0, Match="HttpNfcLease", LeaseHost=host)
    makes.launch(order(saved(tmp_path, DISK)))
    assert [upload["Bytes"] for upload in lab.uploads().values()] == [len(DISK)]


def test_vcenter_itself_is_believed_as_ever(lab: VCenter) -> None:
    for host in ("*", "localhost"):
        told = url(lab, host, sslThumbprint="00" * 20)
        Lease(Session(logon(lab)), "x", None)._connection(told).connect()
        stranger = Lease(Session(logon(lab, ca=None)), "x", None)
        with pytest.raises(ssl.SSLError, match="verify failed"):
            stranger._connection(url(lab, host)).connect()


def test_a_silent_session_is_kept_alive() -> None:
    with vcenter_lab(idle=1.5) as lab:
        for every, logins in ((60.0, 2), (0.3, 1)):
            lab.heal()
            session = Session(logon(lab), keep_alive=every)
            VSphere(session).survey()
            time.sleep(3.4)  # it looks once in that time
            VSphere(session).survey()
            session.close()
            assert lab.calls()["Login"] == logins


def test_vcenter_is_told_at_each_logon_and_left_alone_if_it_is_another(lab: VCenter) -> None:
    met: list[str] = []

    def any_identity(uuid: str) -> None:
        met.append(uuid)
        if len(met) > 1:
            raise Refused("another vCenter")

    first = Session(logon(lab), on_identity=any_identity)
    its = first.content.about.instanceUuid
    first.close()
    second = Session(logon(lab), on_identity=any_identity)
    with pytest.raises(Refused, match="another vCenter"):
        second.ask("the time", lambda: None)
    second.close()
    assert met == [its, its]
    assert its
