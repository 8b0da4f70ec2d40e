"""Hosts that the page shows: a toy one, one that does not answer, one with very much on it."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import pytest

from moorline.model import GuestId, Level
from moorline.ports.api import Api
from moorline.ports.care_results import Diagnosis
from moorline.ports.guest_results import GuestView
from moorline.ports.inspection import Finding
from moorline.ports.results import EventLogEntry, Trouble, View
from moorline.testing.toys import ToyGuest
from moorline.ui.serve import on_loopback
from tests.support.care_rig import Scene, disk, prepared

T = TypeVar("T")
ABOUT = {"host": "kvm07", "hypervisor": "toy:///", "version": "1.0"}
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
"""What a person could call a guest, if he wanted those who look after it to run his script."""
HIDDEN = "web\u202e10\x1b[2J"
"""A name that reads otherwise than it is written."""


@contextmanager
def served(api: Any) -> Iterator[str]:
    """The page of *api*, by its URL."""
    server, url = on_loopback(cast(Api, api), ABOUT, "127.0.0.1:0")
    server.start()
    try:
        yield url
    finally:
        server.stop()


def toy_host(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Four guests on two shares, and a disk that somebody else plugged."""
    scene = prepared(directory, monkeypatch)
    names = ("web01", "web02", "db01", "build")
    scene.world.guests = {GuestId(name): ToyGuest(name) for name in names}
    scene.world.guests[GuestId("build")].running = False
    for number, (guest, share, file) in enumerate(
        [
            ("web01", "reg/vm-disks", "a"),
            ("web02", "reg/vm-disks", "b"),
            ("db01", "reg/databases", "a"),
            ("db01", "reg/databases", "b"),
        ]
    ):
        data = {"export": share, "name": file, "format": "raw", "volume_id": f"{number:08x}-vol"}
        scene.moorline.attachments.attach(
            guest, {"driver_volume_type": "quobyte", "data": data}, level=Level.ATTACHED
        )
    scene.inventory.all["build"] = [disk("/var/lib/libvirt/images/build.qcow2", device="vda")]
    return scene


def hang(scene: Scene, share: str) -> str:
    """A share stops answering; return where it is mounted."""
    mount = next(each for each in scene.host.table if each.source.endswith(share))
    scene.host.share(mount.target).hangs = True
    return mount.target


def until(condition: Callable[[], T], seconds: float = 20) -> T:
    """What *condition* gives once it is true. Fails after *seconds*."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s")
        time.sleep(0.05)
    return found


def view(**more: Any) -> View:
    """An attachment that is as wanted; *more* overrides what it is."""
    values = {
        "volume": "vol-1",
        "guest": "web01",
        "guest_id": "id-1",
        "host": "kvm07",
        "backend": "quobyte",
        "link": "/mnt/a",
        "wanted": "attached",
        "seen": "attached",
        "device": "vda",
        "since": 1.0,
        "next": "nothing",
        "storage": "quobyte://r/v/a.raw",
    }
    return View(**{**values, **more})


def event(**more: Any) -> EventLogEntry:
    """A step that was taken."""
    values = {"id": 1, "at": time.time(), "step": "attach", "outcome": "done"}
    return EventLogEntry(**{**values, **more})


@dataclass
class Told:
    """An Api that tells what it is given, and counts how often it is asked for attachments."""

    views: Sequence[View] = ()
    guests_: Sequence[GuestView] = ()
    findings: Sequence[Finding] = ()
    told: Sequence[EventLogEntry] = ()
    before: Callable[[], None] = lambda: None
    """Called before the attachments are told."""
    asked: int = 0

    def _list(self) -> Sequence[View]:
        self.asked += 1
        self.before()
        return self.views

    @property
    def attachments(self) -> Any:
        return SimpleNamespace(list=self._list)

    @property
    def guests(self) -> Any:
        return SimpleNamespace(all=lambda: self.guests_)

    @property
    def maintenance(self) -> Any:
        return SimpleNamespace(
            events=lambda most: self.told[-most:],
            doctor=lambda: Diagnosis(list(self.findings), {}),
            disks=lambda: (),
        )


class Silent:
    """What does not come back until it may."""

    def __init__(self) -> None:
        self.hangs = False
        self._may_return = threading.Event()

    def __call__(self) -> None:
        if self.hangs:
            self._may_return.wait()

    def release(self) -> None:
        self._may_return.set()


def hostile(text: str) -> Told:
    """A host where *text* is in everything that the page shows."""
    trouble = Trouble("attach", "failed", text, time.time())
    one = view(
        volume=text,
        guest=text,
        link=text,
        storage=text,
        label=text,
        device=text,
        backend=text,
        seen=text,
        next=f"wait: {text}",
        trouble=trouble,
    )
    return Told(
        [one],
        [GuestView(text, text, True)],
        [Finding("hung-share", text, text, text, text)],
        [event(volume=text, guest=text, link=text, message=text, step=text, outcome=text)],
    )


def crowded(rows: int) -> Told:
    """A host with *rows* volumes of as many guests on 20 shares."""
    views = [
        view(
            volume=f"{n:08x}-vol",
            guest=f"web{n:05}",
            guest_id=f"id-{n}",
            link=f"/mnt/share{n % 20:02}",
            storage=f"quobyte://r/s{n % 20:02}/{n}.raw",
        )
        for n in range(rows)
    ]
    guests = [GuestView(each.guest, each.guest_id, True) for each in views]
    return Told(views, guests, (), [event(id=n) for n in range(rows)])


def ask(
    url: str, *, method: str = "GET", host: str | None = None, body: bytes | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    """The status, the body and the headers of an answer."""
    there = urlsplit(url)
    connection = http.client.HTTPConnection(there.hostname or "", there.port or 0, timeout=20)
    target = there.path + (f"?{there.query}" if there.query else "")
    connection.request(method, target, body, {} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def page(url: str, query: str = "") -> str:
    status, text, _ = ask(url + query)
    assert status == 200, text
    return text


class Elements(HTMLParser):
    """What a browser makes of a page: its elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
