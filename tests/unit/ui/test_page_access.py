"""The page by HTTP: who may see it, what it tells browsers, and names that would do harm."""

from __future__ import annotations

import socket as sockets
import stat
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from moorline.errors import Refused, Unavailable
from moorline.ui.serve import on_loopback, on_socket
from moorline.ui.web import visible
from tests.support.page_host import (
    ABOUT,
    HIDDEN,
    HOSTILE,
    Elements,
    Told,
    ask,
    hang,
    hostile,
    page,
    served,
    toy_host,
    view,
)

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


def test_no_script_and_no_style_stands_in_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = toy_host(tmp_path, monkeypatch)
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
