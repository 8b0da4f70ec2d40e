"""What people call a volume: never "done" for what may be a slip."""

from __future__ import annotations

from contextlib import suppress

import pytest

from moorline.core.name_lookup import is_whole, meant
from moorline.errors import NotFound, NotOurs, Refused
from moorline.model import GuestId, VolumeId
from moorline.testing.toys import BASE
from tests.support.rig import Rig

ID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
OTHER = "9d1b0000-1111-4222-8333-abcdefabcdef"
GONE = "77777777-1111-4222-8333-abcdefabcdef"
DEVICE = f"toy-{ID}"
S1 = str(BASE / "s1")


def connection(name: str, id: str) -> dict[str, object]:
    data = {"share": "s1", "name": name, "volume_id": id}
    return {"driver_volume_type": "toy", "data": data}


@pytest.fixture
def rig() -> Rig:
    rig = Rig("g1", "g2")
    rig.owner().attachments.attach("g1", connection("a", ID))
    rig.owner().attachments.attach("g2", connection("b", OTHER))
    return rig


def wanted(rig: Rig) -> set[str]:
    return {row.key.volume for row in rig.records.all()}


SLIPS = [
    "3f2",
    "vdb",
    OTHER[:6],
    "toy://s1/mistyped",
    "toy://s1/b",
    "/srv/mistyped.raw",
    f"{ID}0",
    f"{ID[:-1]}x",
    ID.replace("-", ""),
    f"toy-{OTHER}",
]


@pytest.mark.parametrize("what", SLIPS)
@pytest.mark.parametrize("verb", ["detach", "extend"])
def test_what_is_not_known_is_never_done(rig: Rig, verb: str, what: str) -> None:
    with pytest.raises(NotFound) as error:
        getattr(rig.owner().attachments, verb)("g1", what)
    assert "moorline list" in error.value.hint
    assert wanted(rig) == {ID, OTHER}


@pytest.mark.parametrize("volume", [ID, GONE, ID.upper()])
def test_a_whole_id_is_no_disk_of_a_guest_that_is_gone_by_its_own(rig: Rig, volume: str) -> None:
    detach = rig.owner().attachments.detach
    assert detach("88888888-1111-4222-8333-abcdefabcdef", volume) is None
    with pytest.raises(NotFound):
        detach("88888888-1111-4222-8333-abcdefabcdef", ID[:8])
    with pytest.raises(NotFound):
        detach("web01", volume)
    assert wanted(rig) == {ID, OTHER}


def test_a_dry_run_says_the_same(rig: Rig) -> None:
    for what in SLIPS:
        with pytest.raises(NotFound):
            rig.owner().attachments.detach("g1", what, dry_run=True)


@pytest.mark.parametrize("what", ["3f2", "vdb", DEVICE, "toy://s1/mistyped", GONE])
@pytest.mark.parametrize("verb", ["show", "forget"])
def test_without_a_guest_as_well(rig: Rig, verb: str, what: str) -> None:
    with pytest.raises(NotFound):
        getattr(rig.owner().attachments, verb)(what)


def test_whose_it_is_is_told(rig: Rig) -> None:
    with pytest.raises(NotFound) as error:
        rig.owner().attachments.detach("g1", "toy://s1/b")
    assert f"volume {OTHER} is wanted on g2" in error.value.hint


@pytest.mark.parametrize("what", [GONE, GONE.upper(), OTHER])
def test_a_whole_id_that_is_not_there_is_gone(rig: Rig, what: str) -> None:
    assert rig.owner().attachments.detach("g1", what) is None
    assert wanted(rig) == {ID, OTHER}


@pytest.mark.parametrize(
    "what", [ID, ID.upper(), ID[:4], ID[:6].upper(), ID[:30], DEVICE, "toy://s1/a"]
)
def test_what_is_meant_is_done(rig: Rig, what: str) -> None:
    rig.world.guests[GuestId("g1")].running = False
    rig.world.guests[GuestId("g1")].live.clear()
    outcome = rig.owner().attachments.detach("g1", what)
    assert outcome is not None
    assert outcome.view.volume == ID
    assert wanted(rig) == {OTHER}


@pytest.mark.parametrize("what", [ID, ID[:4], ID.upper(), DEVICE])
def test_a_disk_that_was_released_goes_by_the_same_names(rig: Rig, what: str) -> None:
    toy = rig.world.guests[GuestId("g1")]
    (row,) = (row for row in rig.records.all() if row.key.volume == ID)
    rig.records.release(row, f"{S1}/a")
    toy.running = False
    toy.live.clear()
    outcome = rig.owner().attachments.detach("g1", what)
    assert outcome is not None
    assert outcome.view.volume == ID
    assert not toy.defined


def test_a_device_is_not_taken_for_another_guest_s_volume_of_that_id(rig: Rig) -> None:
    rig.owner().attachments.attach("g2", connection("c", DEVICE))
    for verb in (rig.owner().attachments.detach, rig.owner().attachments.extend):
        with pytest.raises(Refused, match="another guest's volume") as error:
            verb("g1", DEVICE)
        assert not isinstance(error.value, NotFound)
    assert wanted(rig) == {ID, OTHER, DEVICE}


def test_an_id_wins_over_a_device(rig: Rig) -> None:
    """Whoever calls a volume as a device is called means the volume."""
    rig.owner().attachments.attach("g1", connection("c", DEVICE))
    (shown,) = rig.owner().attachments.show(DEVICE)
    assert shown.volume == DEVICE
    foreseen = rig.owner().attachments.detach("g1", DEVICE, dry_run=True)
    assert foreseen is not None
    assert foreseen.view.volume == DEVICE


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("Data", "Data"),
        ("DATA", None),
        ("data1", "data1"),
        ("DATA1", None),
        ("data2", None),
        ("dat", None),
        ("", None),
        (ID[:4], ID),
        (ID[:13].upper(), ID),
        (ID.upper(), ID),
        (OTHER[:3], None),
    ],
)
def test_exactly_before_nearly(text: str, id: str | None) -> None:
    ids = [VolumeId(each) for each in ("Data", "data", "data1", "data2x", ID, OTHER)]
    assert meant(text, ids) == id


def test_what_begins_several_ids_is_refused() -> None:
    with pytest.raises(Refused, match=f"the beginning of {ID[:-1]}0, {ID}"):
        meant(ID[:8], [VolumeId(ID), VolumeId(f"{ID[:-1]}0")])


def test_a_whole_id_is_a_uuid() -> None:
    assert is_whole(ID)
    assert is_whole(ID.upper())
    assert not any(map(is_whole, ["", "data1", ID[:-1], f"{ID}\n", ID.replace("-", "")]))


@pytest.mark.parametrize(
    ("first", "second"), [("data", "data2"), ("abcd", "abcdef"), ("Disk1", "disk1"), ("d", "d-2")]
)
@pytest.mark.parametrize("verb", ["detach", "release"])
def test_a_repeated_command_does_not_go_on_with_the_next_volume(
    verb: str, first: str, second: str
) -> None:
    rig = Rig("g1")
    rig.world.guests[GuestId("g1")].running = False  # it lets go at once
    attachments = rig.owner().attachments
    attachments.attach("g1", connection("a", first))
    attachments.attach("g1", connection("b", second))
    for _ in range(3):
        undo = attachments.detach if verb == "detach" else rig.owner().maintenance.release
        with suppress(NotFound):
            undo("g1", first)
    assert wanted(rig) == {second}


@pytest.mark.parametrize("id", ["--help", "-o", "-", "vdb", "sda1", "hda", "xvdc"])
def test_no_new_id_may_be_an_option_or_a_device(rig: Rig, id: str) -> None:
    with pytest.raises(Refused, match="is no volume id"):
        rig.owner().attachments.attach("g1", connection("c", id))
    assert wanted(rig) == {ID, OTHER}


@pytest.mark.parametrize("what", [ID, ID.upper(), ID[:4], ID[:13].upper(), DEVICE, "toy://s1/a"])
def test_a_disk_of_which_nothing_is_recorded_is_not_said_to_be_gone(rig: Rig, what: str) -> None:
    """It bears our mark, and may be another state's."""
    (row,) = (row for row in rig.records.all() if row.key.volume == ID)
    rig.records.forget(row)
    with pytest.raises((NotFound, NotOurs)):
        rig.owner().attachments.detach("g1", what)
    assert rig.world.guests[GuestId("g1")].live
