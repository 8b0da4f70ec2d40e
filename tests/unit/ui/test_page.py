"""The page by HTTP: what it shows of a host, whatever hangs."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest

from moorline.errors import Refused, Unavailable
from moorline.model import Level
from moorline.ports.inspection import Finding
from moorline.ui.watch import INTEREST_SECONDS
from tests.support.care_rig import Scene
from tests.support.page_host import (
    Elements,
    Silent,
    Told,
    crowded,
    event,
    hang,
    page,
    served,
    toy_host,
    until,
    view,
)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return toy_host(tmp_path, monkeypatch)


# --- what it shows --------------------------------------------------------------------


def test_it_shows_shares_guests_volumes_and_events(scene: Scene) -> None:
    with served(scene.moorline) as url:
        told = Elements(page(url)).text
    words = " ".join(told.split())
    assert "0 of 2 links unwell" in words
    assert "0 of 4 volumes not as wanted" in words
    assert "3 of 4 guests running" in words
    assert "quobyte://reg/vm-disks" in words
    assert "/var/lib/libvirt/images/build.qcow2" not in words  # a title; its name is shown
    assert "build.qcow2 another's" in words
    assert "Nothing waits." in words
    assert words.count("attach done") == 4


def test_a_hung_share_is_first_with_who_hangs_on_it_and_what_mends_it(scene: Scene) -> None:
    link = hang(scene, "databases")
    with served(scene.moorline) as url:
        text = page(url)
    links = re.search(r'<section id="links".*?</section>', text, re.S)
    assert links
    first = links[0].partition("</ul>")[0]
    assert "hung" in first
    assert "quobyte://reg/databases" in first
    assert "web01" not in first
    assert first.count(">db01<") == 2
    assert f"moorline abort {link} --dry-run" in text
    assert "hung-share" in text


def test_what_waits_is_told_with_why(scene: Scene) -> None:
    hang(scene, "databases")
    scene.moorline.attachments.detach("db01", "00000002-vol", timeout=0, wait=False)
    with served(scene.moorline) as url:
        text = page(url)
    waiting = re.search(r'<section id="waiting".*?</section>', text, re.S)
    assert waiting
    assert "moorline explain 00000002-vol" in waiting[0]
    assert "does not answer" in waiting[0]


def test_a_dead_share_is_told_from_a_broken_one() -> None:
    ill = view(seen="broken", next="disconnect")
    finding = Finding("dead-share", "/mnt/a", "its client has ended", "why", "moorline sweep")
    for findings, word in (([finding], "dead"), ([], "broken")):
        with served(Told([ill], findings=findings)) as url:
            links = re.search(r'<section id="links".*?</section>', page(url), re.S)
        assert links
        assert f">{word}<" in links[0]


@pytest.mark.parametrize(
    ("seen", "word"), [("absent", "not connected"), ("unknown", "unknown"), ("novel", "unknown")]
)
def test_what_is_not_understood_is_not_absence(seen: str, word: str) -> None:
    with served(Told([view(seen=seen, next="connect")])) as url:
        links = re.search(r'<section id="links".*?</section>', page(url), re.S)
    assert links
    assert f">{word}<" in links[0]


def test_a_look_that_does_not_come_back_says_since_when_and_blocks_nobody() -> None:
    silent = Silent()
    api = Told([view(guest="db01")], before=silent)
    with served(api) as url:
        assert "db01" in page(url)
        silent.hangs = True
        try:
            asked = api.asked
            until(lambda: api.asked > asked, 10)
            text = until(lambda: _late(page(url)), 10)
            assert "No answer yet" in text
            assert "What is shown was known at <time" in text
            assert "db01" in text
            asked = api.asked
            assert all("db01" in page(url) for _ in range(20))
            assert api.asked == asked  # no second thread hangs beside the first
        finally:
            silent.release()


def _late(text: str) -> str:
    return text if 'class="late"' in text else ""


def test_a_first_look_that_hangs_is_told_as_well() -> None:
    silent = Silent()
    silent.hangs = True
    try:
        with served(Told([view()], before=silent)) as url:
            assert "Asking …" in page(url)
    finally:
        silent.release()


def test_an_error_is_told_with_what_was_known() -> None:
    failing: list[Exception] = []

    def before() -> None:
        if failing:
            raise failing[0]

    with served(Told([view(guest="db01")], before=before)) as url:
        assert "db01" in page(url)
        failing.append(Unavailable("no agent answers there"))
        text = until(lambda: _late(page(url)), 10)
        assert "no agent answers there" in text
        assert "db01" in text
        failing[0] = ZeroDivisionError("secret")
        text = until(lambda: page(url) if "a defect" in page(url) else "", 10)
        assert "secret" not in text


def test_nobody_is_asked_while_nobody_looks() -> None:
    api = Told([view()])
    with served(api) as url:
        assert api.asked == 0
        page(url)
        assert api.asked == 1
    assert INTEREST_SECONDS <= 60


def test_ten_thousand_rows_come_in_pages() -> None:
    with served(crowded(10_000)) as url:
        text = page(url)
        assert len(text) < 400_000
        assert "1–50 of 10000" in text
        volumes = page(url, "?volumes=200")
        assert "9951–10000 of 10000" in volumes
        assert "volumes=199" in volumes
        assert "9951–10000 of 10000" in page(url, "?volumes=201")
        found = page(url, "?q=web07777")
        assert "00001e61-vol" in found
        assert "quobyte://r/s17/7777.raw" in found
        assert "and 460 more" in page(url, "?link=/mnt/share03")


def test_a_filter_keeps_what_else_was_asked() -> None:
    ill = view(volume="ill", guest="db01", link="/mnt/b", seen="hung", next="wait: x")
    with served(Told([view(), ill])) as url:
        assert "vol-1" in page(url)
        unwell = page(url, "?unwell=1")
        assert "vol-1" not in unwell
        assert "ill" in unwell
        assert "unwell=1" in str(re.findall(r'href="\?([^"]*)', unwell))
        assert "vol-1" not in page(url, "?link=/mnt/b")
        assert "vol-1" not in page(url, "?guest=db01")
        assert "Nothing that was asked for." in page(url, "?q=nowhere")


def test_events_of_one_guest_alone() -> None:
    told = [
        event(id=1, guest="web01", message="earlier"),
        event(id=2, guest="db01", message="afterwards"),
    ]
    with served(Told(told=told)) as url:
        both = page(url)
        assert both.index("afterwards") < both.index("earlier")
        assert "afterwards" not in page(url, "?guest=web01")


def test_a_password_of_a_connection_is_nowhere(scene: Scene) -> None:
    data = {"export": "reg/vm-disks", "name": "a", "format": "raw", "volume_id": "v9"}
    data |= {"options": "-o password=hunter2-PLANTED", "auth_password": "hunter2-PLANTED"}
    connection = {"driver_volume_type": "quobyte", "data": data}
    with suppress(Refused):  # the options may be what is refused
        scene.moorline.attachments.attach("build", connection, level=Level.CONNECTED)
    with served(scene.moorline) as url:
        assert "PLANTED" not in page(url)
        assert "PLANTED" not in page(url, "?q=PLANT").replace('value="PLANT"', "")
