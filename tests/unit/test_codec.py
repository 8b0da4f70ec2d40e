"""Attachments survive the store; their connections are sealed in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.errors import Unavailable
from moorline.model import Attachment, DiskOptions, GuestId, Key, Level, LinkName, VolumeId
from moorline.ports import Entry
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.stores.fleet_seal import BoxKey, for_controllers, for_host
from tests.support.full_disk import full_disk

ROW = Attachment(
    key=Key("host", VolumeId("v1"), GuestId("g1")),
    backend="quobyte",
    connection=Secret({"data": {"export": "mds:/cluster:p4ssw0rd", "options": None}}),
    link=LinkName("/mnt/x"),
    place="p",
    want=Level.CONNECTED,
    guest_name="web01",
    options=DiskOptions(bus="scsi", readonly=True),
    since=12.5,
    hands_off=True,
    revision=7,
)
CODEC = Codec(Secret(b"k" * 32))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_an_attachment_comes_back() -> None:
    assert CODEC.decode(Entry("/k", CODEC.encode("/k", ROW), 7)) == ROW


def test_a_row_of_an_older_version_is_read() -> None:
    stored = json.loads(CODEC.encode("/k", replace(ROW, hands_off=False)))
    del stored["hands_off"]
    assert not CODEC.decode(Entry("/k", json.dumps(stored).encode(), 7)).hands_off


def test_what_is_not_asked_for_is_not_written() -> None:
    """An earlier version reads it then, which does not know every option."""
    stored = json.loads(CODEC.encode("/k", ROW))
    assert stored["options"] == {"bus": "scsi", "readonly": True}


def test_a_row_of_a_newer_version_is_told_as_that() -> None:
    stored = json.loads(CODEC.encode("/k", ROW))
    stored["options"]["colour"] = "green"
    with pytest.raises(Unavailable, match="newer version of Moorline, with colour"):
        CODEC.decode(Entry("/k", json.dumps(stored).encode(), 7))


@given(st.dictionaries(st.text(), json_values))
def test_any_connection_comes_back(connection: dict[str, object]) -> None:
    row = replace(ROW, connection=Secret(connection))
    assert CODEC.decode(Entry("/k", CODEC.encode("/k", row), 7)) == row


def test_nothing_of_the_connection_can_be_read() -> None:
    stored = CODEC.encode("/k", ROW)
    for word in (b"p4ssw0rd", b"cluster", b"export"):
        assert word not in stored


def test_a_seal_belongs_to_its_key_in_the_store() -> None:
    with pytest.raises(Unavailable, match="sealed with another key"):
        CODEC.decode(Entry("/other", CODEC.encode("/k", ROW), 7))


def test_in_a_fleet_a_connection_is_sealed_for_its_host() -> None:
    fleet, host, other = (BoxKey(Secret(bytes([i]) * 32)) for i in (1, 2, 3))
    at, row = "/moorline/desired/h1/g1/v1", replace(ROW, revision=0)
    entry = Entry(at, Codec(for_controllers(fleet, lambda _: host.public)).encode(at, row), 0)
    assert Codec(for_host(host, fleet.public)).decode(entry) == row
    for codec in (Codec(for_host(other, fleet.public)), CODEC):
        with pytest.raises(Unavailable):
            codec.decode(entry)
    for word in (b"p4ssw0rd", b"cluster", b"export"):
        assert word not in entry.value


def test_another_key_file_opens_nothing(tmp_path: Path) -> None:
    other = Codec.from_file(tmp_path / "key")
    with pytest.raises(Unavailable, match="sealed with another key"):
        other.decode(Entry("/k", CODEC.encode("/k", ROW), 7))


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = Codec.from_file(tmp_path / "key")
    again = Codec.from_file(tmp_path / "key")
    assert again.decode(Entry("/k", first.encode("/k", ROW), 7)) == ROW
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_a_damaged_key_file_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(Unavailable, match="not a key file"):
        Codec.from_file(tmp_path / "key")


def test_on_a_full_disk_no_half_key_is_left(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(Unavailable, match="cannot be written"):
        Codec.from_file(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []
