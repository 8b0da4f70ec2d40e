"""The façade through the socket is the façade."""

from __future__ import annotations

import inspect
import json
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from moorline import errors
from moorline.errors import Failed, MoorlineError, NotFound, Refused, Unavailable, Uncertain
from moorline.exit_codes import EXIT_CODES, exit_code
from moorline.local_api.app import App
from moorline.local_api.calls import Calls, Done
from moorline.local_api.client import Client
from moorline.local_api.http_errors import from_problem, status, to_problem
from moorline.local_api.routes import ROUTES, Route
from moorline.model import DiskOptions, Level
from moorline.ports.api import Api, Attachments, Guests, Maintenance
from moorline.testing.faults import Fault
from tests.support.rig import Rig


def connection(name: str = "a", **more: Any) -> dict[str, Any]:
    data = {"share": "s1", "name": name, "volume_id": name}
    return {"driver_volume_type": "toy", "data": {**data, **more}}


def test_the_same_values_come_back(rig: Rig, client: Client) -> None:
    told: list[str] = []
    outcome = client.attachments.attach("g1", connection(), progress=told.append)
    assert outcome.steps == ["connect", "attach"]
    assert told == ["connecting volume a", "attaching volume a"]
    assert client.attachments.attach("g1", connection()).steps == []
    assert client.attachments.list() == rig.owner().attachments.list()
    assert client.attachments.show("a") == rig.owner().attachments.show("a")
    assert client.attachments.show("toy://s1/a")[0].volume == "a"
    assert client.attachments.sweep() == []
    foreseen = client.attachments.detach("g1", "a", dry_run=True)
    assert foreseen == rig.owner().attachments.detach("g1", "a", dry_run=True)
    gone = client.attachments.detach("g1", "a", progress=lambda _: rig.world.tick())
    assert gone is not None
    assert gone.steps[-2:] == ["disconnect", "forget"]
    assert client.attachments.detach("g1", "3f2a9c4e-1111-4222-8333-abcdefabcdef") is None


@pytest.mark.parametrize("what", ["", "a", "vol", "VOL-1", "vol-", "toy-vol-1", "toy://s1/b", "/x"])
def test_a_volume_has_the_same_names_for_an_agent(rig: Rig, client: Client, what: str) -> None:
    client.attachments.attach("g1", connection(volume_id="vol-1"))
    answers: list[object] = []
    for each in (client, rig.owner()):
        try:
            answers.append(each.attachments.detach("g1", what, dry_run=True))
        except MoorlineError as e:
            answers.append((type(e), e.message, e.hint))
    assert answers[0] == answers[1]


def test_arguments_arrive_as_they_were_given(rig: Rig, client: Client) -> None:
    options = DiskOptions(readonly=True, shared=True)
    client.attachments.attach(
        "g1", connection(), level=Level.CONNECTED, options=options, timeout=5.5
    )
    (row,) = rig.records.all()
    assert (row.want, row.options) == (Level.CONNECTED, options)
    assert row.connection.reveal() == connection()
    client.attachments.attach("g2", "toy://s1/url", format="raw", volume="by-url")
    assert {row.key.volume for row in rig.records.all()} == {"a", "by-url"}
    rig.world.sizes["/toy/s1/url"] = 2 << 20
    assert client.attachments.extend("g2", "by-url").size == 2 << 20


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_facade_and_client_have_the_protocols_arguments(
    route: Route, rig: Rig, client: Client
) -> None:
    name = route.function.__name__
    (_, *asked) = inspect.signature(route.function).parameters.values()
    for side in (rig.owner(), client):
        has = inspect.signature(getattr(getattr(side, route.part), name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in has] == [
            (p.name, p.kind, p.default) for p in asked
        ]


@pytest.mark.parametrize("part", [Attachments, Guests, Maintenance])
def test_the_routes_are_the_protocol_and_the_client_has_no_more(part: Any, client: Client) -> None:
    methods = {n for n, f in vars(part).items() if inspect.isfunction(f) and n[0] != "_"}
    routes = [route for route in ROUTES if route.function in vars(part).values()]
    assert methods == {route.function.__name__ for route in routes}
    (attribute,) = {route.part for route in routes}
    remote = vars(type(getattr(client, attribute)))
    assert {name for name in remote if name[0] != "_"} == methods


def test_the_parts_of_the_protocol_are_those_that_are_served() -> None:
    parts = {name for name, value in vars(Api).items() if isinstance(value, property)}
    assert parts == {route.part for route in ROUTES}


def test_errors_keep_their_class(rig: Rig, client: Client) -> None:
    with pytest.raises(NotFound, match="no guest nobody"):
        client.attachments.attach("nobody", connection())
    with pytest.raises(Refused, match="is no name") as refused:
        client.attachments.attach("g1", connection("../x"))
    assert type(refused.value) is Refused
    rig.world.hung.add("s1")
    with pytest.raises(Failed, match="does not answer") as failed:
        client.attachments.attach("g1", connection(), timeout=0)
    assert "the attachment is kept" in failed.value.hint
    rig.world.hung.clear()
    rig.world.faults.plan((1, Fault.UNDONE))
    with pytest.raises(Uncertain):
        client.attachments.attach("g1", connection(), timeout=0)


@pytest.mark.parametrize(
    "kind",
    [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)],
)
def test_every_error_survives_the_way(kind: Any) -> None:
    if kind is errors.MoorlineError:
        return
    back = from_problem(to_problem(kind("why")))
    assert (type(back), back.message) == (kind, "why")
    assert 400 <= status(back) < 600
    assert status(back) != 500
    assert exit_code(back) in EXIT_CODES.values()


def test_what_is_no_json_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(Refused, match="cannot be written as JSON"):
        client.attachments.attach("g1", {"data": object()})


def test_without_an_agent_nothing_was_changed(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no agent answers"):
        Client(tmp_path / "none").attachments.attach("g1", connection())
    stale = sockets.socket(sockets.AF_UNIX)
    stale.bind(str(tmp_path / "stale"))
    stale.close()
    with pytest.raises(Unavailable):
        Client(tmp_path / "stale").attachments.list()
    with pytest.raises(Unavailable):
        Client(tmp_path / ("long" * 50)).attachments.list()


@contextmanager
def stub(path: Path, answer: bytes, *, hangs: bool = False) -> Iterator[None]:
    """Somebody who takes a request, says *answer*, and hangs up; *hangs*: at the end only."""
    over = threading.Event()
    if not hangs:
        over.set()
    with sockets.socket(sockets.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)
                over.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP",
        HEAD,
        HEAD + b'{"progress": "x"}\n',
        HEAD + b"{nonsense\n",
        HEAD + b'{"result": {"colour": "red"}}\n',
    ],
)
def test_an_unanswered_change_is_uncertain(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "s"
    with stub(path, answer), pytest.raises(Uncertain, match="did not answer to the end"):
        Client(path, timeout=5).attachments.attach("g1", connection())
    path.unlink()
    with stub(path, answer), pytest.raises(Unavailable):
        Client(path, timeout=5).attachments.list()
    path.unlink()
    with stub(path, answer), pytest.raises(Unavailable):
        Client(path, timeout=5).attachments.detach("g1", "a", dry_run=True)


def test_an_agent_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with stub(tmp_path / "s", b"", hangs=True), pytest.raises(Uncertain):
        Client(tmp_path / "s", timeout=0.2).attachments.detach("g1", "a", timeout=0.1)


def test_a_call_ends_in_time_whatever_signs_of_life_there_are(tmp_path: Path) -> None:
    told: list[str] = []
    with lively(tmp_path / "s") as served, pytest.raises(Uncertain):
        Client(tmp_path / "s", timeout=60, longest=1).attachments.attach(
            "g1", connection(), timeout=60, progress=told.append
        )
    assert told
    assert served.broken  # it would have gone on


class lively:
    """Somebody who tells of progress, and of nothing else, until nobody listens."""

    def __init__(self, path: Path) -> None:
        self._listening = sockets.socket(sockets.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self.broken = False

    def __enter__(self) -> lively:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(HEAD)
            for _ in range(400):
                try:
                    connection.sendall(b'{"progress": "still at it"}\n')
                except OSError:
                    self.broken = True
                    return
                time.sleep(0.05)


def test_a_newer_agent_may_tell_more(rig: Rig, tmp_path: Path) -> None:
    rig.owner().attachments.attach("g1", connection())
    (view,) = rig.owner().attachments.list()
    line = json.dumps({"result": [{**view.to_dict(), "colour": "red"}], "mood": 1}).encode()
    with stub(tmp_path / "s", HEAD + b"{}\n" + line + b"\n"):
        assert Client(tmp_path / "s").attachments.list() == [view]


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, moorline.local_api.client; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    heavy = {"click", "oslo_config", "oslo_utils", "libvirt", "sqlite3", "asyncio", "yaml"}
    assert not loaded & (heavy | {"cryptography", "prometheus_client", "eventlet", "subprocess"})


def test_it_works_under_eventlet(rig: Rig, socket: Path) -> None:
    if find_spec("eventlet") is None:
        pytest.skip("os-brick, which brings eventlet, is not installed")
    code = f"""if True:
        import eventlet
        eventlet.monkey_patch()
        from moorline.local_api.client import Client
        client = Client({str(socket)!r}, timeout=10)
        beats = []
        eventlet.spawn(lambda: [(beats.append(1), eventlet.sleep(0.01)) for _ in range(20)])
        data = {{"share": "s1", "name": "a", "volume_id": "a"}}
        made = client.attachments.attach("g1", {{"driver_volume_type": "toy", "data": data}})
        pool = eventlet.GreenPool()
        seen = list(pool.imap(lambda _: len(client.attachments.list()), range(8)))
        print(made.view.seen, seen, bool(beats))
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert run.stdout == f"attached {[1] * 8} True\n", run.stderr


def test_as_many_calls_as_there_is_room_for() -> None:
    calls = Calls(1)
    go = threading.Event()
    told = calls.run(lambda progress: go.wait(10), deadline=10)
    with pytest.raises(errors.Busy):
        calls.run(lambda progress: None, deadline=1)
    go.set()
    *_, done = told
    assert done == Done(result=True)
    assert calls.stop(1)
    with pytest.raises(Unavailable):
        calls.run(lambda progress: None, deadline=1)


def test_a_call_that_misses_its_deadline_is_uncertain() -> None:
    calls = Calls(1)
    go = threading.Event()
    *_, done = calls.run(lambda progress: go.wait(10), deadline=0.1)
    assert isinstance(done, Done)
    assert isinstance(done.error, Uncertain)
    assert not calls.stop(0)
    go.set()
    assert calls.stop(5)


def test_stopping_ends_what_waits_and_lets_the_step_in_hand_finish(
    rig: Rig, app: App, client: Client
) -> None:
    rig.world.hung.add("s1")
    caught: list[errors.MoorlineError] = []

    def attach() -> None:
        try:
            client.attachments.attach("g1", connection(), timeout=600)
        except errors.MoorlineError as e:
            caught.append(e)

    thread = threading.Thread(target=attach)
    thread.start()
    while not rig.records.all():
        time.sleep(0.01)
    assert app.stop(60)  # of the 600 that the call would wait
    thread.join(60)
    (error,) = caught
    assert isinstance(error, Failed)
    assert "the agent stops" in error.message
    assert rig.records.all()  # the attachment is kept
