"""Connected for a guest whose disks somebody else plugs, as Nova does."""

from __future__ import annotations

import pytest

from moorline.errors import Refused
from moorline.model import GuestId, Level, VolumeId
from moorline.testing.toys import BASE, ToyGuest
from tests.support.rig import Rig, connection

GUEST = "7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f"
SHARE = str(BASE / "s1")


@pytest.fixture
def rig() -> Rig:
    return Rig("g1")


def connect(rig: Rig, name: str = "a", guest: str = GUEST) -> dict[str, object]:
    outcome = rig.owner().attachments.attach(
        guest, connection(name), level=Level.CONNECTED, hands_off=True, timeout=1
    )
    assert outcome.view.source is not None
    return outcome.view.source


def define(rig: Rig, *names: str) -> None:
    """The guest's owner plugs the disks, under the mark that is also ours."""
    disks = {VolumeId(name): f"{SHARE}/{name}" for name in names}
    rig.world.guests[GuestId(GUEST)] = ToyGuest("inst", live=disks, defined=dict(disks))


def test_the_guest_need_not_be_there_yet(rig: Rig) -> None:
    source = connect(rig)
    assert source["path"] == f"{SHARE}/a"
    assert rig.owner().attachments.sweep() == []


def test_its_disks_are_never_ours_to_unplug(rig: Rig) -> None:
    connect(rig)
    define(rig, "a")
    assert rig.owner().attachments.sweep() == []
    assert "a" in rig.world.guests[GuestId(GUEST)].live


def test_what_its_guest_still_names_is_disconnected_later(rig: Rig) -> None:
    connect(rig)
    define(rig, "a")
    outcome = rig.owner().attachments.detach(GUEST, "a", hands_off=True)
    assert outcome is not None
    assert "inst still names" in outcome.view.next
    assert SHARE in rig.world.mounts
    del rig.world.guests[GuestId(GUEST)]
    assert rig.owner().attachments.sweep() == []
    assert SHARE not in rig.world.mounts
    assert rig.owner().attachments.list() == []


def test_not_even_while_another_attachment_holds_the_link(rig: Rig) -> None:
    connect(rig, "a")
    connect(rig, "b")
    define(rig, "a", "b")
    rig.owner().attachments.detach(GUEST, "a", hands_off=True)
    rig.owner().attachments.detach(GUEST, "b", hands_off=True)
    del rig.world.guests[GuestId(GUEST)]
    rig.owner().attachments.sweep()
    assert rig.owner().attachments.list() == []
    assert SHARE not in rig.world.mounts


def test_another_disk_of_its_guest_on_the_same_link_does_not_keep_the_attachment(rig: Rig) -> None:
    connect(rig, "a")
    connect(rig, "b")
    define(rig, "b")  # the other was unplugged first, as Nova does it
    rig.owner().attachments.detach(GUEST, "a", hands_off=True)
    assert [view.volume for view in rig.owner().attachments.list()] == ["b"]
    assert SHARE in rig.world.mounts


def test_asked_again_before_it_was_disconnected_it_stays(rig: Rig) -> None:
    connect(rig)
    define(rig, "a")
    rig.owner().attachments.detach(GUEST, "a", hands_off=True)
    connect(rig)
    del rig.world.guests[GuestId(GUEST)]
    assert rig.owner().attachments.sweep() == []
    assert SHARE in rig.world.mounts


def test_another_guest_on_the_link_lets_it_be_forgotten(rig: Rig) -> None:
    connect(rig)
    rig.owner().attachments.attach("g1", connection("b"))
    assert rig.owner().attachments.detach(GUEST, "a", hands_off=True) is not None
    assert [view.volume for view in rig.owner().attachments.list()] == ["b"]
    assert SHARE in rig.world.mounts


def test_only_connected_and_only_by_id(rig: Rig) -> None:
    with pytest.raises(Refused, match="only be connected"):
        rig.owner().attachments.attach(GUEST, connection("a"), hands_off=True)
    with pytest.raises(Refused, match="no id of a guest"):
        rig.owner().attachments.attach("g1", connection("a"), level=Level.CONNECTED, hands_off=True)


def test_one_who_plugs_it(rig: Rig) -> None:
    connect(rig)
    define(rig)
    with pytest.raises(Refused, match="somebody else plugs"):
        rig.owner().attachments.attach(GUEST, connection("a"))


def test_what_may_not_be_given_to_a_guest_is_refused_and_leaves_nothing(rig: Rig) -> None:
    rig.world.missing.add(f"{SHARE}/a")
    with pytest.raises(Refused, match="there is no file"):
        connect(rig)
    assert rig.owner().attachments.list() == []
    assert SHARE not in rig.world.mounts


def test_an_encrypted_volume_is_for_its_owner_to_decipher(rig: Rig) -> None:
    data = {"share": "s1", "name": "a", "volume_id": "a", "encrypted": True}
    encrypted = {"driver_volume_type": "toy", "data": data}
    with pytest.raises(Refused, match="cipher text"):
        rig.owner().attachments.attach("g1", encrypted)
    rig.owner().attachments.attach(GUEST, encrypted, level=Level.CONNECTED, hands_off=True)
    assert SHARE in rig.world.mounts


def test_letting_go_of_what_was_never_asked_does_nothing(rig: Rig) -> None:
    define(rig, "a")
    assert rig.owner().attachments.detach(GUEST, "a", hands_off=True) is None
    assert "a" in rig.world.guests[GuestId(GUEST)].live
    rig.owner().attachments.attach(GUEST, connection("b"))
    assert rig.owner().attachments.detach(GUEST, "b", hands_off=True) is None
    assert "b" in rig.world.guests[GuestId(GUEST)].live
