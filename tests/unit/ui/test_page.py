"""The page by HTTP: who may see it, what it tells browsers, and what it shows."""

from __future__ import annotations

import http.client
import re
import socket as sockets
import stat
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from moorline.errors import Refused, Unavailable
from moorline.model import Level
from moorline.ports.inspection import Finding
from moorline.ui.serve import on_loopback, on_socket
from moorline.ui.watch import INTEREST_SECONDS
from moorline.ui.web import visible
from tests.support.care_rig import Scene
from tests.support.page_host import (
    ABOUT,
    HIDDEN,
    HOSTILE,
    Silent,
    Told,
    crowded,
    event,
    hang,
    hostile,
    served,
    toy_host,
    until,
    view,
)


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


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return toy_host(tmp_path, monkeypatch)


# --- who may look ---------------------------------------------------------------------


def test_without_the_token_there_is_nothing() -> None:
    with served(Told()) as url:
        there = urlsplit(url)
        root = f"http://{there.netloc}"
        token = there.path.strip("/")
        wrong = ["/", "/now", "/page.js", f"/{token[:-1]}/", f"/x{token}/", "//", f"/{token}"]
        wrong += [f"/{token}/../{token}x/", f"/{token}/%2e%2e/", "/%c3%a4/", f"/{token}//"]
        for path in wrong:
            status, text, _ = ask(root + path)
            assert (status, "kvm07" in text) == (404, False), path
        assert ask(url)[0] == 200


def test_each_start_has_another_token() -> None:
    with served(Told()) as one, served(Told()) as other:
        tokens = {urlsplit(url).path.strip("/") for url in (one, other)}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9878", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("", "localhost:", "localhost:x", "localhost:123456", "127.0.0.2", "localhost@evil"),
        *("localhost,evil.example", "evil.example#localhost", "[::1", "[::2]"),
    ],
)
def test_a_site_whose_name_leads_here_is_shown_nothing(host: str) -> None:
    with served(Told()) as url:
        status, text, _ = ask(url, host=host)
        assert (status, "kvm07" in text) == (421, False)


@pytest.mark.parametrize("host", ["localhost", "LocalHost:80", "127.0.0.1:1", "[::1]:9878"])
def test_we_are_asked_for_by_a_name_of_this_machine(host: str) -> None:
    with served(Told()) as url:
        assert ask(url, host=host)[0] == 200


def test_one_request_does_not_name_two_hosts() -> None:
    with served(Told()) as url:
        there = urlsplit(url)
        with sockets.create_connection((there.hostname, there.port), timeout=20) as connection:
            head = f"GET {there.path} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
            connection.sendall(head.encode())
            assert b" 421 " in connection.makefile("rb").readline()


@pytest.mark.parametrize("address", ["0.0.0.0:9878", "example.org:80", "9878", "127.0.0.1:x"])
def test_it_is_never_served_to_a_network(address: str) -> None:
    with pytest.raises(Refused, match="no loopback address"):
        on_loopback(Told(), ABOUT, address)  # type: ignore[arg-type]


def test_an_address_that_is_taken_is_told() -> None:
    with served(Told()) as url, pytest.raises(Unavailable):
        on_loopback(Told(), ABOUT, urlsplit(url).netloc)  # type: ignore[arg-type]


def test_a_socket_has_the_rights_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    server = on_socket(Told(), ABOUT, path, "")  # type: ignore[arg-type]
    server.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        told = connection.makefile("rb").read()
    assert b" 200 " in told.splitlines()[0]
    assert b"kvm07" in told
    server.stop()
    with pytest.raises(Refused, match="no group"):
        on_socket(Told(), ABOUT, path, "no-such-group")  # type: ignore[arg-type]


# --- what browsers are told -----------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["", "now", "page.js", "nowhere"])
def test_nothing_that_is_sent_changes_anything(method: str, path: str) -> None:
    with served(Told()) as url:
        status, _, headers = ask(url + path, method=method, body=b"volume=x")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["", "now", "page.js", "page.css", "icon.svg", "nowhere"])
def test_every_answer_has_the_policy(path: str) -> None:
    with served(Told()) as url:
        for method, host in (("GET", None), ("HEAD", None), ("POST", None), ("GET", "evil")):
            status, text, headers = ask(url + path, method=method, host=host)
            policy = dict(
                part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert policy["frame-ancestors"] == "'none'"
            assert policy["base-uri"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Set-Cookie" not in headers
            assert "Access-Control-Allow-Origin" not in headers
            if method == "HEAD":
                assert (status, text) == (404 if path == "nowhere" else 200, "")


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


def test_no_script_and_no_style_stands_in_the_page(scene: Scene) -> None:
    hang(scene, "vm-disks")
    with served(scene.moorline) as url:
        found = Elements(page(url)).found
    scripts = [attributes for tag, attributes in found if tag == "script"]
    assert scripts == [{"src": "page.js", "defer": None}]
    assert not [tag for tag, _ in found if tag in ("style", "iframe", "object", "base", "button")]
    for tag, attributes in found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        for name in ("href", "src", "action"):
            target = attributes.get(name) or ""
            assert (urlsplit(target).scheme, target[:1] == "/") == ("", False), target


@pytest.mark.parametrize(
    "name",
    [
        HOSTILE,
        '"><script>alert(1)</script>',
        "' onmouseover='alert(1)",
        "</code></td></table><h1>owned",
        "{{ 7 * 7 }}{% for x in y %}",
        "javascript:alert(1)",
        "]]><!--",
    ],
)
def test_a_hostile_name_is_text(name: str) -> None:
    """Whatever it is the name of, in whatever table, attribute or filter it comes."""
    plain = Elements(_whole(hostile("web01"), "web01"))
    ours = Elements(_whole(hostile(name), name))
    kinds = [(tag, sorted(attributes)) for tag, attributes in ours.found]
    assert kinds == [(tag, sorted(attributes)) for tag, attributes in plain.found]
    assert ours.text.count(name) > 15
    for _, attributes in ours.found:
        assert not (attributes.get("href") or "").startswith("javascript")


def _whole(api: Told, name: str) -> str:
    with served(api) as url:
        return page(url, f"?q={quote(name)}&link={quote(name)}&guest={quote(name)}")


def test_what_a_name_hides_is_seen() -> None:
    text = _whole(hostile(HIDDEN), HIDDEN)
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "web\\u202e10\\x1b[2J" in text
    assert visible("ümlaut \N{SNOWMAN}") == "ümlaut \N{SNOWMAN}"


@pytest.mark.parametrize(
    "query",
    ["?volumes=0", "?volumes=-1", "?volumes=99999999999", "?volumes=1e3", "?volumes=x&q=%ff",
     "?unwell=yes", "?" + "a=b&" * 50, "?q=" + "x" * 5000, "?volumes=\N{SUPERSCRIPT TWO}"],
)  # fmt: skip
def test_a_query_that_is_none_shows_the_page(query: str) -> None:
    with served(Told([view()])) as url:
        assert ask(url + quote(query, safe="?=&%"))[0] == 200


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
