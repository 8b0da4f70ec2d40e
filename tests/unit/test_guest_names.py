"""What a person may call a guest, and what is told of one that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moorline.api import Moorline
from moorline.core.name_lookup import GUEST_BY_NAME
from moorline.errors import NotFound, Refused
from moorline.local_api.app import App
from moorline.local_api.client import Client
from moorline.local_api.peer import Rights
from moorline.local_api.server import Server, listen
from moorline.model import GuestId
from moorline.testing.toys import ToyGuest, ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig
from tests.support.toy_machines import ToyLifecycle

WEB = GuestId("3f2a9c4e-1111-4222-8333-abcdefabcdef")
DB = GuestId("3f2a9c4e-2222-4222-8333-abcdefabcdef")


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.world.guests = {
        WEB: ToyGuest("web01", running=False),
        DB: ToyGuest("Db-Main", running=False),
    }
    return rig


def connection(name: str = "a") -> dict[str, Any]:
    return {"driver_volume_type": "toy", "data": {"share": "s1", "name": name}}


@pytest.mark.parametrize("text", ["web01", WEB, WEB[:13], WEB[:13].upper(), WEB[:-1]])
def test_a_guest_goes_by_the_beginning_of_its_id(rig: Rig, text: str) -> None:
    owner = rig.owner()
    outcome = owner.attachments.attach(text, connection(), volume="vol-a")
    assert (outcome.view.guest, outcome.view.guest_id) == ("web01", WEB)
    assert owner.attachments.detach(text, "vol-a") is not None


def test_a_beginning_of_two_is_refused(rig: Rig) -> None:
    with pytest.raises(Refused, match="the beginning of several ids: Db-Main") as refused:
        rig.owner().attachments.attach(WEB[:8], connection())
    assert not isinstance(refused.value, NotFound)
    assert rig.records.all() == []


def test_a_short_one_is_taken_for_a_name(rig: Rig) -> None:
    with pytest.raises(NotFound, match="no guest 3f2a9c4"):
        rig.owner().attachments.attach(WEB[:7], connection())


def test_a_name_comes_before_the_beginning_of_an_id(rig: Rig) -> None:
    rig.world.guests[GuestId("other")] = ToyGuest(WEB[:13])
    assert rig.owner().attachments.attach(WEB[:13], connection()).view.guest_id == "other"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("web1", "did you mean web01?"),
        ("WEB01", "did you mean web01?"),
        ("db-main", "did you mean Db-Main?"),
        ("nothing-like-it", GUEST_BY_NAME),
    ],
)
def test_an_unknown_guest_leads_to_a_near_name_with_an_agent_too(
    rig: Rig, tmp_path: Path, text: str, hint: str
) -> None:
    app = App(rig.owner(), Rights(None), {}, {})
    server = Server(listen(tmp_path / "agent.sock", 0o600, None), app)
    server.start()
    facades: list[Moorline] = [rig.owner(), Client(tmp_path / "agent.sock", timeout=10)]
    for facade in facades:
        with pytest.raises(NotFound, match=f"no guest {text}") as raised:
            facade.attachments.attach(text, connection())
        assert raised.value.hint == hint
    server.stop()


def test_what_is_launched_under_an_id_s_beginning_is_another_guest(rig: Rig) -> None:
    name = WEB[:13]
    facade = Moorline(
        rig.records,
        rig.reconciler(),
        ToyHypervisor(rig.world),
        ToyLifecycle(rig.world),
        environment=bare(),
    )
    outcome = facade.guests.launch(name, connection(), start=False)
    assert (outcome.guest, outcome.guest_id) == (name, f"id-{name}")
    assert outcome.steps[0] == "define"
