"""What hangs is known to all who ask libvirt: a hypervisor and all that it hands out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from moorline.errors import Uncertain
from moorline.hypervisors.libvirt import blocked_disks
from moorline.hypervisors.libvirt.connection import Connection, NoGuest
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.hypervisors.libvirt.lifecycle import twins
from tests.support.libvirt_calls import DEADLINE, URI, hang, until

pytest.importorskip("libvirt")
LONG = 3600.0
"""Seconds: who waited so long for what hangs would not end within the test."""


def test_a_survey_is_refused_while_a_call_hangs(may_return: threading.Event) -> None:
    hypervisor = Libvirt(URI, deadline=LONG)
    assert [guest.name for guest in hypervisor.survey()] == ["test"]
    hang(hypervisor._connection.times(DEADLINE / LONG), "web01", may_return)
    with pytest.raises(Uncertain, match="does not answer about web01"):
        hypervisor.survey()
    may_return.set()
    until(lambda: not hypervisor._connection.stuck())
    assert hypervisor.survey()
    hypervisor.close()


def test_a_guest_about_which_a_call_hangs_hides_no_other(
    may_return: threading.Event, tmp_path: Path
) -> None:
    """It may have any disk, beside those that it was last seen to have."""
    guest = (
        "<domain type='test'><name>{0}</name><uuid>6695eb01-f6a4-8304-79aa-0000000000{1}</uuid>"
        "<memory>8192</memory><os><type>hvm</type></os>"
        "<devices><disk><source file='/mnt/{0}'/><target dev='vda'/></disk></devices></domain>"
    )
    node = tmp_path / "node.xml"
    node.write_text(f"<node>{guest.format('web01', '01')}{guest.format('web02', '02')}</node>")
    hypervisor = Libvirt(f"test://{node}", deadline=LONG)
    before = {each.name: each for each in hypervisor.survey()}
    for subject in (before["web01"].id, "web01"):
        may_return.clear()
        hang(hypervisor._connection.times(DEADLINE / LONG), subject, may_return)
        for _ in range(2):
            now = {each.name: each for each in hypervisor.survey()}
            assert now["web02"] == before["web02"]
            assert "still hangs" in now["web01"].unreadable
            assert "web01" in now["web01"].remedy
            assert (now["web01"].paths, now["web01"].disks) == ({"/mnt/web01"}, {})
        may_return.set()
        until(lambda: not hypervisor._connection.stuck())
        assert {each.name: each for each in hypervisor.survey()} == before
    hypervisor.close()


@pytest.mark.parametrize("whose", ["hypervisor", "lifecycle", "inventory"])
def test_a_call_that_hangs_is_known_to_all_who_ask(may_return: threading.Event, whose: str) -> None:
    hypervisor = Libvirt(URI, deadline=LONG)
    lifecycle, inventory = hypervisor.lifecycle(), hypervisor.inventory()
    guest = hypervisor.find("test").id
    users: dict[str, Any] = {
        "hypervisor": hypervisor,
        "lifecycle": lifecycle,
        "inventory": inventory,
    }
    hang(users[whose]._connection.times(DEADLINE / LONG), guest, may_return)
    questions = (hypervisor.disks, lifecycle.look, lifecycle.start, inventory.disks)
    for ask in questions:
        with pytest.raises(Uncertain, match="still hangs"):
            ask(guest)
    (seen,) = hypervisor.survey()
    assert "still hangs" in seen.unreadable
    may_return.set()
    until(lambda: not hypervisor._connection.stuck())
    assert lifecycle.look(guest).running
    assert not hypervisor.survey()[0].unreadable
    hypervisor.close()


def test_what_hangs_and_is_no_guest_hides_none(may_return: threading.Event) -> None:
    hypervisor = Libvirt(URI, deadline=LONG)
    inventory = hypervisor.inventory()
    before = hypervisor.survey()
    hang(inventory._connection.times(DEADLINE / LONG), NoGuest("paused guests"), may_return)
    with pytest.raises(Uncertain, match="about paused guests still hangs"):
        inventory.diagnose([])
    assert hypervisor.survey() == before
    may_return.set()
    hypervisor.close()


def test_a_question_about_all_does_not_ask_who_hangs(
    libvirt_connection: Connection, may_return: threading.Event
) -> None:
    """It would hang as well, and with it the question for all others."""

    class Guest:
        def __init__(self, name: str, *, hangs: bool) -> None:
            self._name = name
            self._hangs = hangs

        def name(self) -> str:
            return self._name

        def UUIDString(self) -> str:
            return f"uuid of {self._name}"

        def state(self) -> list[int]:
            assert not self._hangs, "it was asked"
            return [1, 0]

        def XMLDesc(self) -> str:
            assert not self._hangs, "it was asked"
            mac = "<mac address='52:54:00:00:00:01'/>"
            return f"<domain><devices><interface>{mac}</interface></devices></domain>"

    class Virt:
        def listAllDomains(self, *_: int) -> list[Guest]:
            return [Guest("a", hangs=True), Guest("b", hangs=False)]

    for subject in ("a", "uuid of a"):
        may_return.clear()
        hang(libvirt_connection, subject, may_return)
        asked = libvirt_connection.stuck_guests()
        assert blocked_disks.findings(Virt(), asked) == []
        assert twins(Virt(), "new", frozenset({"52:54:00:00:00:01"}), asked) == [
            ("52:54:00:00:00:01", "b")
        ]
        may_return.set()
        until(lambda: not libvirt_connection.stuck())
