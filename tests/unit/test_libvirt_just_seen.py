"""What a thread saw of a guest spares its next step a look, once."""

from __future__ import annotations

import threading

import pytest

from moorline.hypervisors.libvirt import just_seen
from moorline.hypervisors.libvirt.just_seen import JustSeen
from moorline.hypervisors.libvirt.qemu_open_files import AsChecked
from moorline.model import GuestId

WEB01, WEB02 = GuestId("1"), GuestId("2")
DISK = AsChecked("/mnt/s/disk")


def test_it_is_taken_once() -> None:
    seen = JustSeen()
    seen.keep(WEB01, DISK)
    assert seen.take(WEB01, AsChecked) == DISK
    assert seen.take(WEB01, AsChecked) is None


def test_of_another_guest_or_another_type_it_says_nothing() -> None:
    seen = JustSeen()
    seen.keep(WEB01, DISK)
    assert seen.take(WEB01, str) is None
    assert seen.take(WEB02, AsChecked) is None
    assert seen.take(WEB01, AsChecked) is None


def test_another_thread_saw_nothing() -> None:
    seen, found = JustSeen(), list[AsChecked | None]()
    seen.keep(WEB01, DISK)
    other = threading.Thread(target=lambda: found.append(seen.take(WEB01, AsChecked)))
    other.start()
    other.join()
    assert found == [None]


def test_after_a_while_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(just_seen, "_FRESH_SECONDS", 0.0)
    seen = JustSeen()
    seen.keep(WEB01, DISK)
    assert seen.take(WEB01, AsChecked) is None
