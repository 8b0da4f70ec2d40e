"""The fleet's API: the same verbs as the commands', asked as the agent is."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moorline import config, fleet_wiring, installed
from moorline.agent import fleet_server
from moorline.agent.fleet_server import ROUTES, FleetApp, serving
from moorline.errors import NotFound, Refused
from moorline.fleet.orders import Orders
from moorline.local_api import wire
from moorline.local_api.app import Request
from moorline.local_api.peer import Peer, Rights
from moorline.model import Attachment, DiskOptions, Format
from tests.support.toy_fleet import ToyFleet, wanted
from tests.unit.fleet.test_fleet_operations import Person

OURS = 4711
MEMBER = Peer(pid=1, uid=65534, groups=frozenset({OURS}))
NOBODY = Peer(pid=1, uid=65534, groups=frozenset())
ROOT = Peer(pid=1, uid=os.geteuid(), groups=frozenset())
ID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"


def parse(
    connection: Mapping[str, Any] | str, format: Format | None, volume: str | None, _: DiskOptions
) -> Attachment:
    """A toy's connection is the name of its volume."""
    if not isinstance(connection, str):
        raise Refused("the connection has no driver_volume_type")
    return wanted("", connection, "s1")


@pytest.fixture
def person() -> Person:
    toys = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    toys.settle()
    return Person(toys)


Ask = Callable[..., Any]


@pytest.fixture
def ask(person: Person) -> Ask:
    app = FleetApp(person.fleet(), parse, Rights(OURS))

    def ask(path: str, peer: Peer = ROOT, *, status: int = 200, **fields: Any) -> Any:
        """A GET, or with *fields* a POST."""
        body = json.dumps(fields).encode() if fields else b""
        method = "POST" if fields else "GET"
        answer = app.answer(Request(method, path, body, peer))
        told = json.loads(b"".join(answer.body))
        assert answer.status == status, told
        return told

    return ask


def test_a_volume_from_its_attach_to_its_detach(ask: Ask, person: Person) -> None:
    done = ask("/v1/attach", guest="g1", connection=ID)
    assert (done["steps"], done["host"], done["volume"]) == (["attach"], "h1", ID)
    for path in ("list", "list?guest=g1", "list?host=h1", f"show?volume={ID[:8]}"):
        [view] = ask(f"/v1/{path}")
        assert (view["volume"], view["guest"], view["seen"]) == (ID, "g1", "attached")
    assert [each["volume"] for each in ask("/v1/explain?name=g1")] == ["", ID]
    assert ask("/v1/migrate", guest="g1", host="h3")["steps"] == ["migrate"]
    assert {each["guest"]: each["host"] for each in ask("/v1/guests")} == {"g1": "h3", "g2": "h2"}
    assert ask("/v1/give_up", guest="g1")["host"] == "h3"
    assert ask("/v1/drain", host="h3")["steps"] == ["drain"]
    assert [each["cordoned"] for each in ask("/v1/hosts")] == [False, False, True]
    assert ask("/v1/uncordon", host="h3")["steps"] == ["uncordon"]
    assert ask("/v1/detach", guest="g1", volume=ID)["steps"] == ["detach"]
    assert ask("/v1/detach", guest="g1", volume=ID)["steps"] == []
    assert ask("/v1/list") == []
    steps = [each["step"] for each in ask("/v1/events?most=100")]
    assert steps[:2] == ["migrate", "hand over"]
    assert not person.toys.centre.violations


def test_errors_are_the_agents(ask: Ask) -> None:
    ask("/v1/attach", guest="g1", connection=ID)
    told = ask("/v1/attach", guest="g2", connection=ID, status=422)
    assert (told["error"], told["code"]) == ("refused", 3)
    assert "g1 on h1 has it" in told["message"]
    assert ask("/v1/show?volume=ffff", status=404)["code"] == 4
    ask("/v1/detach", guest="g1", volume="ffff", status=404)
    ask("/v1/cordon", host="h9", status=404)
    ask("/v1/cordon", host="h1", password="p", status=400)
    ask("/v1/nothing", status=404)
    assert ask("/v1/evacuate", host="h1", fenced="too early", status=423)["error"] == "busy"


def test_a_dry_run_changes_nothing(ask: Ask) -> None:
    assert ask("/v1/attach", guest="g1", connection=ID, dry_run=True)["in_the_way"] == []
    assert ask("/v1/cordon", host="h1", dry_run=True)["steps"] == ["cordon"]
    assert ask("/v1/list") == []
    assert not any(each["cordoned"] for each in ask("/v1/hosts"))


def test_who_is_of_the_group_may_and_nobody_else(ask: Ask) -> None:
    assert ask("/v1/cordon", MEMBER, host="h1")["steps"] == ["cordon"]
    ask("/v1/hosts", MEMBER)
    for path, fields in (("/v1/hosts", {}), ("/v1/cordon", {"host": "h2"}), ("/openapi.json", {})):
        ask(path, NOBODY, status=403, **fields)
    assert [each["cordoned"] for each in ask("/v1/hosts")] == [True, False, False]


def test_who_asked_is_recorded(ask: Ask, person: Person) -> None:
    person.toys.power_off("h1")
    ask("/v1/evacuate", MEMBER, host="h1", fenced="power cut, ticket 4711")
    [event] = [each for each in ask("/v1/events?host=h1") if each["step"] == "fence"]
    assert event["message"] == "power cut, ticket 4711 (says nobody)"


def test_a_member_of_the_group_may_name_no_file_of_a_host(person: Person, tmp_path: Path) -> None:
    """As with the agent: what the group may do is less than root."""
    settings = config.load([], installed.options, state_dir=tmp_path)
    app = FleetApp(person.fleet(), partial(fleet_wiring.wanted_of_fleet, settings), Rights(OURS))
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(1 << 20))
    fields = {"guest": "g1", "connection": str(file), "format": "raw", "dry_run": True}

    def status(peer: Peer) -> int:
        request = Request("POST", "/v1/attach", json.dumps(fields).encode(), peer)
        answer = app.answer(request)
        list(answer.body)
        return answer.status

    assert (status(ROOT), status(MEMBER)) == (200, 403)


def test_the_document_has_what_is_served(ask: Ask) -> None:
    document = ask("/openapi.json")
    assert document == fleet_server.document()
    assert document["info"]["title"] == "Moorline's fleet"
    served = {route.path for route in ROUTES}
    assert document["paths"].keys() == served | {"/v1/about", "/openapi.json"}
    methods = {n for n, f in vars(Orders).items() if inspect.isfunction(f) and n[0] != "_"}
    assert methods == {route.function.__name__ for route in ROUTES}
    assert document["paths"]["/v1/events"]["get"]["parameters"]
    assert "FleetEvent" in document["components"]["schemas"]


def test_it_is_served_on_a_socket_and_is_gone_afterwards(person: Person, tmp_path: Path) -> None:
    socket = tmp_path / "fleet.sock"
    with serving(person.fleet(), parse, socket, "no-such-group-here"):
        assert socket.stat().st_mode & 0o777 == 0o660
        told = wire.exchange(str(socket), "GET", "/v1/hosts", None, patience=20)
        assert [each["host"] for each in told] == ["h1", "h2", "h3"]
        said: list[str] = []
        body = json.dumps({"guest": "g1", "connection": ID}).encode()
        wire.exchange(str(socket), "POST", "/v1/attach", body, patience=20, progress=said.append)
        assert f"attaching volume {ID} on h1" in said
        with pytest.raises(NotFound):
            wire.exchange(str(socket), "GET", "/v1/show?volume=ffff", None, patience=20)
    assert not socket.exists()
