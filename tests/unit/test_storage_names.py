"""A file of this host is told by the storage that it lies on, if another volume of it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from moorline.core.storage_names import places, places_at
from moorline.errors import Refused
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from moorline.secret import Secret

SHARE = "server:/srv"


@dataclass(frozen=True)
class Storage:
    """A back end of which each volume lies on one share."""

    def shares(self, _parsed: Any) -> frozenset[str]:
        return frozenset({SHARE})


def row(link: str) -> Attachment:
    return Attachment(
        key=Key("host", VolumeId("volume"), GuestId("guest")),
        backend="nfs",
        connection=Secret({}),
        link=LinkName(link),
        place="",
        want=Level.ATTACHED,
    )


def read(attachment: Attachment) -> tuple[object, Any]:
    if "unreadable" in attachment.link:
        raise Refused("the mount options are not allowed any more")
    return Storage(), None


def test_a_file_has_the_places_of_its_name_on_the_share_that_it_is_on() -> None:
    assert places_at("/mnt/share/a/disk", [row("/mnt/share")], read) == places(
        "nfs", frozenset({SHARE}), "a/disk"
    )


@pytest.mark.parametrize(
    "path", ["/mnt/share2/disk", "/mnt/share", "/mnt", "/elsewhere/mnt/share/disk"]
)
def test_a_path_that_only_begins_like_a_link_is_on_another_share(path: str) -> None:
    assert places_at(path, [row("/mnt/share")], read) == frozenset()


def test_a_connection_that_nobody_can_read_hides_no_other() -> None:
    rows = [row("/mnt/unreadable"), row("/mnt/share")]
    assert places_at("/mnt/unreadable/disk", rows, read) == frozenset()
    assert places_at("/mnt/share/disk", rows, read) == places("nfs", frozenset({SHARE}), "disk")
