"""Calls that hang, break and fail, on libvirt's own test driver."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from moorline.core.name_lookup import guest_called
from moorline.deadline import CLOCK
from moorline.errors import (
    Denied,
    Failed,
    MoorlineError,
    NotFound,
    Refused,
    Unavailable,
    Uncertain,
)
from moorline.hypervisors.libvirt.connection import Connection, Rejected
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import DiskOptions, GuestId, ImageFile, VolumeId
from tests.support.libvirt_calls import DEADLINE, URI, hang, until

libvirt = pytest.importorskip("libvirt")
PATIENT = 10_000
"""Times the deadline: who waited so long for what hangs would not end within the test."""


# --- calls that hang ------------------------------------------------------------


def test_an_answer_is_returned(libvirt_connection: Connection) -> None:
    assert libvirt_connection.look("a", lambda virt: virt.getType()) == "TEST"
    assert libvirt_connection.change("a", lambda virt: 7) == 7
    assert libvirt_connection.stuck() == frozenset()


def test_who_begins_a_look_goes_on_meanwhile(libvirt_connection: Connection) -> None:
    begun, went_on = threading.Event(), threading.Event()

    def look(virt: Any) -> bool:
        begun.set()
        return went_on.wait(DEADLINE)

    answer = libvirt_connection.begin_look("a", look)
    assert begun.wait(DEADLINE)
    went_on.set()
    assert answer() is True


def test_a_look_s_time_runs_from_when_it_was_begun(
    libvirt_connection: Connection,
    may_return: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient = libvirt_connection.times(PATIENT)
    answer = patient.begin_look("a", lambda virt: may_return.wait())
    now = CLOCK.now
    monkeypatch.setattr(CLOCK, "now", lambda: now() + PATIENT * DEADLINE)
    with pytest.raises(Uncertain, match="did not answer"):
        answer()
    assert patient.stuck() == {"a"}


def test_a_call_that_misses_its_deadline_is_uncertain_and_closes_its_subject(
    libvirt_connection: Connection, may_return: threading.Event
) -> None:
    hang(libvirt_connection, "a", may_return)
    assert libvirt_connection.stuck() == {"a"}
    patient = libvirt_connection.times(PATIENT)  # nor is it waited for
    for call in (patient.look, patient.change):
        with pytest.raises(Uncertain, match="still hangs"):
            call("a", lambda virt: pytest.fail("the subject is closed"))


def test_other_subjects_are_not_affected(
    libvirt_connection: Connection, may_return: threading.Event
) -> None:
    hang(libvirt_connection, "a", may_return)
    assert libvirt_connection.look("b", lambda virt: "fine") == "fine"


def test_the_subject_opens_when_the_call_returns(
    libvirt_connection: Connection, may_return: threading.Event
) -> None:
    hang(libvirt_connection, "a", may_return)
    may_return.set()
    until(lambda: not libvirt_connection.stuck())
    assert libvirt_connection.look("a", lambda virt: "again") == "again"


def test_the_subject_stays_closed_until_all_its_calls_return(
    libvirt_connection: Connection, may_return: threading.Event
) -> None:
    """Two callers may have been in it at once."""
    other = threading.Event()
    both = threading.Barrier(2)

    def ask(on: threading.Event) -> None:
        def do(virt: Any) -> None:
            both.wait()
            on.wait()

        with pytest.raises(Uncertain):
            libvirt_connection.look("a", do)

    threads = [threading.Thread(target=ask, args=[on]) for on in (may_return, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.set()
    time.sleep(0.05)
    assert libvirt_connection.stuck() == {"a"}
    may_return.set()
    until(lambda: not libvirt_connection.stuck())


def test_threads_do_not_pile_up(
    libvirt_connection: Connection, may_return: threading.Event
) -> None:
    libvirt_connection.look("a", lambda virt: None)
    hang(libvirt_connection, "a", may_return)
    before = threading.active_count()
    for _ in range(50):
        with pytest.raises(Uncertain):
            libvirt_connection.look("a", lambda virt: None)
        libvirt_connection.look("b", lambda virt: None)
    assert threading.active_count() <= before + 2


def test_a_connection_that_hangs_is_not_closed(
    libvirt_connection: Connection, may_return: threading.Event
) -> None:
    seen: list[Any] = []
    libvirt_connection.look("a", seen.append)
    hang(libvirt_connection, "a", may_return)
    libvirt_connection.close()
    assert seen[0].isAlive()


# --- families of errors -----------------------------------------------------------


def error(code: int, *, int1: int = -1) -> Exception:
    """An error as the binding raises it."""
    made: Exception = libvirt.libvirtError("it says so")
    made.err = (code, 0, "it says so", 2, None, None, None, int1, -1)  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("code", "looked", "changed"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, NotFound, NotFound),
        (libvirt.VIR_ERR_NO_SUPPORT, Refused, Refused),
        (libvirt.VIR_ERR_NO_CONNECT, Refused, Refused),
        (libvirt.VIR_ERR_INVALID_ARG, Rejected, Rejected),
        (libvirt.VIR_ERR_XML_DETAIL, Unavailable, Rejected),
        (libvirt.VIR_ERR_XML_INVALID_SCHEMA, Unavailable, Rejected),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, Unavailable, Rejected),
        (libvirt.VIR_ERR_AUTH_FAILED, Denied, Denied),
        (libvirt.VIR_ERR_AUTH_CANCELLED, Denied, Denied),
        (libvirt.VIR_ERR_AUTH_UNAVAILABLE, Denied, Denied),
        (libvirt.VIR_ERR_ACCESS_DENIED, Denied, Denied),
        (libvirt.VIR_ERR_INTERNAL_ERROR, Unavailable, Failed),
        (libvirt.VIR_ERR_SYSTEM_ERROR, Unavailable, Failed),
        (libvirt.VIR_ERR_OPERATION_INVALID, Unavailable, Failed),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, Unavailable, Failed),
        (libvirt.VIR_ERR_XML_ERROR, Unavailable, Rejected),
    ],
)
def test_the_family_follows_from_the_code(
    libvirt_connection: Connection,
    code: int,
    looked: type[MoorlineError],
    changed: type[MoorlineError],
) -> None:
    def fails(virt: Any) -> None:
        raise error(code)

    for call, family in ((libvirt_connection.look, looked), (libvirt_connection.change, changed)):
        with pytest.raises(MoorlineError, match="it says so") as raised:
            call("a", fails)
        assert type(raised.value) is family
        assert isinstance(raised.value.__cause__, libvirt.libvirtError)


def test_a_way_out_is_told_where_libvirt_tells_none(libvirt_connection: Connection) -> None:
    """As seen on a virtual machine of the lab: a LUN was removed, detached, and attached again."""
    said = (
        "Requested operation is not valid: Setting different DAC user or group on"
        " /dev/moorline/iscsi-272d6113a09255a2 which is already in use"
    )

    def fails(virt: Any) -> None:
        raise libvirt.libvirtError(said)

    with pytest.raises(Failed, match="which is already in use") as raised:
        libvirt_connection.change("a", fails)
    assert "stop the guest, and start it" in raised.value.hint


def test_what_the_driver_cannot_do_is_refused() -> None:
    hypervisor = Libvirt(URI)
    guest, source = hypervisor.find("test").id, ImageFile(Path("/a"), "raw")
    with pytest.raises(Refused, match="supported"):
        hypervisor.attach(guest, VolumeId("one"), source, DiskOptions())
    hypervisor.close()


def test_our_own_errors_and_mistakes_pass_through(libvirt_connection: Connection) -> None:
    def mistaken(virt: Any) -> None:
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError, match="a mistake of ours"):
        libvirt_connection.look("a", mistaken)


@pytest.mark.parametrize(("call", "family"), [("look", Unavailable), ("change", Uncertain)])
def test_a_broken_connection_leaves_a_change_uncertain(
    call: str, family: type[MoorlineError]
) -> None:
    """Even if another thread has renewed it before the error is judged."""
    connection = Connection(URI, DEADLINE)
    tries = []

    def breaks(virt: Any) -> None:
        tries.append(virt)
        virt.isAlive = lambda: 0
        connection.look("another thread's subject", lambda renewed: tries.append(renewed))
        raise error(libvirt.VIR_ERR_SYSTEM_ERROR)

    with pytest.raises(family, match="broke"):
        getattr(connection, call)("a", breaks)
    assert tries[0] is not tries[1]
    connection.close()


def test_a_question_is_asked_again_on_a_new_connection(libvirt_connection: Connection) -> None:
    tries = []

    def breaks_once(virt: Any) -> str:
        tries.append(virt)
        if len(tries) == 1:
            virt.isAlive = lambda: 0
            raise error(libvirt.VIR_ERR_SYSTEM_ERROR)
        return "answer"

    assert libvirt_connection.look("a", breaks_once) == "answer"
    assert tries[0] is not tries[1]


@pytest.mark.parametrize("uri", ["qemu+unix:///system?socket=/nowhere/sock", "test:///no-such.xml"])
def test_what_cannot_be_reached_is_unavailable(uri: str) -> None:
    connection = Connection(uri, 5)
    for call in (connection.look, connection.change):
        with pytest.raises(Unavailable) as raised:
            call("a", lambda virt: pytest.fail("there is no connection"))
        assert uri in str(raised.value)
    connection.close()


def test_a_socket_that_we_may_not_use_is_denied(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    connection = Connection(f"qemu+unix:///system?socket={tmp_path}/closed/sock", 5)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(Denied):
            connection.look("a", lambda virt: None)
    finally:
        if root:
            os.seteuid(0)


# --- questions --------------------------------------------------------------------


def test_a_guest_is_found_by_any_spelling_of_its_uuid() -> None:
    hypervisor = Libvirt(URI)
    found = hypervisor.find("test")
    for spelling in (found.id, found.id.upper(), found.id.replace("-", ""), f"{{{found.id}}}"):
        assert hypervisor.find(spelling) == found
    hypervisor.close()


def test_a_name_that_is_nearly_right_gets_a_hint() -> None:
    hypervisor = Libvirt(URI)
    with pytest.raises(NotFound) as raised:
        guest_called("tets", hypervisor)
    assert raised.value.hint == "did you mean test?"
    found = hypervisor.find("test")
    assert guest_called(found.id[:8].upper(), hypervisor) == found
    hypervisor.close()


def test_the_guests_of_a_driver_without_disks_have_none() -> None:
    hypervisor = Libvirt(URI)
    (guest,) = hypervisor.survey()
    assert (guest.running, guest.disks) == (True, {})
    assert hypervisor.disks(guest.id) == {}
    assert hypervisor.disks(GuestId("00000000-0000-0000-0000-000000000000")) == {}
    hypervisor.close()
