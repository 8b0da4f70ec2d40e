"""NBD against the back end contract, with the distribution's own servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.nbd.servers import HOST, Missing, Server, certificates, demand
from moorline.backends.allowed_directories import Directories
from moorline.backends.nbd import Nbd
from moorline.deadline import Deadline
from moorline.errors import Denied, Failed, Refused, Uncertain
from moorline.host.linux import Linux
from moorline.model import Linked, NetworkDisk
from moorline.testing.contracts.backend import BackendContract, BackendRig, look
from tests.support.missing import missing

SECONDS = 60.0
"""For a machine that others use too: what answers, answers at once."""


def connection(server: str | None, export: Any = "", **more: Any) -> dict[str, Any]:
    data = {"server": server, "export": export, "format": "raw", **more}
    return {"driver_volume_type": "nbd", "data": data}


class NbdRig(BackendRig):
    given = True

    def __init__(self, directory: Path, enter: Callable[[Server], Server]) -> None:
        self.directory = directory

        def image(name: str, size: int = 1 << 20) -> Path:
            path = directory / name
            with path.open("wb") as file:
                file.truncate(size)
            return path

        self.strict = enter(Server(image("one.raw"), "one"))
        self.socket = enter(Server(image("two.raw"), "two", at=directory / "two.sock"))
        self.careless = enter(Server(image("three.raw")))
        self.empty = enter(Server(image("empty.raw", 0)))
        self.backend = Nbd(Linux(), directory / "pki", deadline=SECONDS)
        self.good = connection(self.strict.server, "one")
        self.other = connection(None, "two", socket=self.socket.server)
        self.missing = connection(self.strict.server, "none")
        self.respelled = (
            {**self.good, "serial": "abc"},
            {"driver_volume_type": "nbd", **self.good["data"]},
            connection(f"[::ffff:{HOST}]:{self.strict.port}", "one"),
            connection(self.strict.server, "one", tls=False, socket=None),
        )
        self.unfit = {
            "nameless, where names count": connection(self.strict.server),
            "named, where no name counts": connection(self.careless.server, "one"),
            "empty": connection(self.empty.server),
        }
        self.hostile = (
            {
                f"server {text!r}": connection(text, "one")
                for text in (
                    "",
                    "/",
                    "a b",
                    "a:b",
                    "a:0",
                    "a:65536",
                    "a:1:2",
                    "-a",
                    "a,b",
                    "a\n",
                    "[::g]",
                )
            }
            | {
                f"export {name!r}": connection("a", name)
                for name in (".", "..", "a\n", "x" * 5000, 7)
            }
            | {
                f"socket {path!r}": connection(None, "one", socket=path)
                for path in ("", "a", "/a/../b", "/a//b", "/" + "a" * 200, 7)
            }
            | {
                "two servers": connection("a", "one", socket="/a"),
                "no server": connection(None, "one"),
                "odd TLS": connection("a", "one", tls="no"),
                "options": connection("a", "one", options="-o x"),
                "qcow2": connection("a", "one", format="qcow2"),
            }
        )

    def world(self) -> object:
        return {path.name: path.lstat().st_mtime_ns for path in self.directory.iterdir()}


@pytest.fixture
def nbd(tmp_path: Path) -> Iterator[NbdRig]:
    with ExitStack() as stack:
        try:
            yield NbdRig(tmp_path, stack.enter_context)
        except Missing as e:
            missing(str(e))


class TestNbd(BackendContract):
    @pytest.fixture
    def rig(self, nbd: NbdRig) -> BackendRig:
        return nbd


@pytest.fixture
def plain() -> Nbd:
    return Nbd(Linux())


@pytest.mark.parametrize(
    ("url", "server", "export", "tls"),
    [
        ("nbd://filer", "filer:10809", "", False),
        ("nbd://Filer:7/", "filer:7", "", False),
        ("nbd://filer/a/b%20c", "filer:10809", "a/b c", False),
        ("nbds://filer/a", "filer:10809", "a", True),
        ("nbd://[::1]/a", "[::1]:10809", "a", False),
        ("nbd+unix:///a?socket=/run/a%20b", "/run/a b", "a", False),
        ("nbds+unix:///?socket=/run/a", "/run/a", "", True),
    ],
)
def test_what_a_person_types(plain: Nbd, url: str, server: str, export: str, tls: bool) -> None:
    for format in (None, "raw"):
        parsed = plain.parse(plain.from_url(url, format))  # type: ignore[arg-type]
        assert parsed.disk == NetworkDisk("nbd", export, (server,), tls)
        assert plain.parse(plain.from_url(plain.url(parsed), None)) == parsed
    with pytest.raises(Refused, match="qcow2"):
        plain.from_url(url, "qcow2")


@pytest.mark.parametrize(
    "url",
    [
        "nbd:",
        "nbd://",
        "nbd:///a",
        "nbd://user:hunter2@filer/a",
        "nbd://filer/a?tls-psk-file=/hunter2",
        "nbd://filer/a?socket=/hunter2",
        "nbd://filer/a#hunter2",
        "nbd+unix://filer/a?socket=/hunter2",
        "nbd+unix:///a",
        "nbd+unix:///a?socket=/a&socket=/hunter2",
        "nbd+tcp://filer/a",
        "nbd://[::1/hunter2",
    ],
)
def test_what_is_no_url_of_an_export_is_refused_and_not_quoted(plain: Nbd, url: str) -> None:
    with pytest.raises(Refused) as refused:
        plain.parse(plain.from_url(url, None))
    assert "hunter2" not in str(refused.value)


def test_links_of_a_socket_and_of_a_server_never_agree(plain: Nbd) -> None:
    urls = ("nbd://a/b", "nbd://a:7/b", "nbd://a", "nbd://a/b%2Fc", "nbd+unix:///b?socket=/a")
    urls += ("nbd+unix:///?socket=/a/b", "nbd+unix:///c?socket=/a/b", "nbd+unix:///?socket=/a")
    links = {plain.link_name(plain.parse(plain.from_url(url, None))) for url in urls}
    assert len(links) == len(urls)
    assert all(link.startswith("/nbd/") for link in links)


def test_others_than_root_name_sockets_only_where_they_may(tmp_path: Path) -> None:
    backend = Nbd(Linux(), directories=Directories([tmp_path]))

    def demand(url: str) -> None:
        backend.demand_for_others(backend.parse(backend.from_url(url, None)))

    demand("nbd://filer/a")
    demand(f"nbd+unix:///?socket={tmp_path}/s")
    with pytest.raises(Denied):
        demand("nbd+unix:///?socket=/run/s")


def test_a_server_that_hangs_is_uncertain_in_time(nbd: NbdRig) -> None:
    backend = Nbd(Linux(), deadline=0.5)
    deadline = Deadline(30)
    nbd.strict.stop()
    try:
        with pytest.raises(Uncertain, match="did not answer within"):
            backend.verify(backend.parse(nbd.good))
        assert isinstance(look(nbd, nbd.good), Linked), "nothing is asked for a look"
        assert not deadline.over()
    finally:
        nbd.strict.go_on()
    nbd.backend.verify(nbd.backend.parse(nbd.good))


def test_a_server_that_is_away_has_failed_and_may_come_back(nbd: NbdRig) -> None:
    nbd.strict.kill()
    nbd.socket.kill()
    for connection in (nbd.good, nbd.other):
        with pytest.raises(Failed, match="was not asked"):
            nbd.backend.verify(nbd.backend.parse(connection))
    nbd.strict.start()
    assert nbd.backend.verify(nbd.backend.parse(nbd.good))


def test_an_export_that_nobody_may_write_to_is_told(tmp_path: Path, nbd: NbdRig) -> None:
    assert not nbd.backend.verify(nbd.backend.parse(nbd.good)).readonly
    with Server(nbd.strict.file, "fixed", readonly=True) as server:
        disk = nbd.backend.verify(nbd.backend.parse(connection(server.server, "fixed")))
    assert disk.readonly


def test_tls_is_spoken_with_the_certificates_of_the_option(nbd: NbdRig, tmp_path: Path) -> None:
    pki = certificates(tmp_path / "pki")
    with Server(nbd.careless.file, tls=pki) as server:
        secure = connection(server.server, tls=True)
        assert nbd.backend.verify(nbd.backend.parse(secure)).tls
        with pytest.raises(Refused, match="nbds://"):
            nbd.backend.verify(nbd.backend.parse(connection(server.server)))
        strangers = Nbd(Linux(), certificates(tmp_path / "strangers"), deadline=SECONDS)
        with pytest.raises(Failed):
            strangers.verify(strangers.parse(secure))
    with pytest.raises(Failed):
        nbd.backend.verify(nbd.backend.parse(connection(nbd.strict.server, "one", tls=True)))


def test_without_the_command_it_is_said_which_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, nbd: NbdRig
) -> None:
    demand()
    monkeypatch.setenv("PATH", "/nowhere")
    (finding,) = nbd.backend.diagnose()
    assert finding.check == "missing-client"
    with pytest.raises(Failed, match="no command nbdinfo"):
        nbd.backend.verify(nbd.backend.parse(nbd.good))


@pytest.mark.parametrize(
    ("said", "family"),
    [
        ("server replied with error to opt_go request: Operation not supported for", Refused),
        ("the server requires TLS encryption first: Operation not supported for", Refused),
        ("server policy prevents the operation: Operation not permitted for", Refused),
        ("the server rejected this operation as invalid: Invalid argument for", Refused),
        ("the operation is not supported by the server platform: for", Refused),
        ("the server is shutting down: Cannot send after transport endpoint shutdown", Failed),
        ("recv: server disconnected unexpectedly: Connection reset by peer", Failed),
    ],
)
def test_what_the_server_will_not_do_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, family: type[Exception]
) -> None:
    """In the words of libnbd 1.14 and 1.22."""
    command = tmp_path / "nbdinfo"
    command.write_text(f"#!/bin/sh\necho 'nbdinfo: nbd_opt_go: {said}' >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    backend = Nbd(Linux())
    with pytest.raises(family):
        backend.verify(backend.parse(connection("filer:10809", "one")))
