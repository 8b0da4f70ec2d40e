"""What an attachment's connection says is read once, however often it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moorline.core.links import Links
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from moorline.secret import Secret
from moorline.testing.toys import ToyShare, ToyWorld


class Read(ToyShare):
    """Counts how often a connection is read, and told."""

    times = told = 0

    def parse(self, connection: Mapping[str, Any]) -> Any:
        self.times += 1
        return super().parse(connection)

    def url(self, c: Any) -> str:
        self.told += 1
        return super().url(c)


def test_the_same_attachment_is_read_once_and_another_is_read() -> None:
    backend = Read(ToyWorld())
    data = {"share": "s1", "name": "v", "volume_id": "v"}
    info = {"driver_volume_type": "toy", "data": data}
    link = backend.link_name(backend.parse(info))
    row = Attachment(
        key=Key("host", VolumeId("v"), GuestId("g")),
        guest_name="g",
        backend="toy",
        connection=Secret(info),
        link=LinkName(link),
        place="v",
        want=Level.ATTACHED,
    )
    links, backend.times = Links({"toy": backend}), 0
    for each in (links, links.by(links.backends)):
        assert each.read(row)[1] == each.parsed(row)[1]
        assert each.storage(row).url == "toy://s1/v"
    assert (backend.times, backend.told) == (1, 1)
    moved = replace(row, connection=Secret({**info, "data": {**data, "name": "w"}}))
    assert links.read(moved)[1] != links.read(row)[1]
    assert backend.times == 3, "what has changed is not taken for what it was"
    assert links.storage(moved).url == "toy://s1/w"
