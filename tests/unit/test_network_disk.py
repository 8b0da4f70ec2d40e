"""What disks of servers are known by, and which of them may be one."""

from __future__ import annotations

import pytest

from moorline.model import NetworkDisk
from moorline.network_disk import at_its_server, known_as, may_be_one, server

SOCKET = "/run/nbd sock"


@pytest.mark.parametrize(
    ("host", "spelled"),
    [
        ("Filer.Example.", "filer.example:10809"),
        ("10.0.0.1", "10.0.0.1:10809"),
        ("::1", "[::1]:10809"),
        ("[0:0::1]", "[::1]:10809"),
        ("::ffff:10.0.0.1", "10.0.0.1:10809"),
    ],
)
def test_a_server_has_one_spelling(host: str, spelled: str) -> None:
    assert server(host, 10809) == spelled


def test_a_name_that_is_the_same_in_all_the_world_is_known_without_its_servers() -> None:
    for portals in ((), ("10.0.0.1:3260",), ("10.0.0.1:3260", "10.0.0.2:3260")):
        for name in ("iqn.2026-01.lab:One", "iqn.2026-01.lab:one/0"):
            assert NetworkDisk("iscsi", name, portals).path == "iscsi:iqn.2026-01.lab:one/0"
        assert NetworkDisk("rbd", "vols/v1", portals).path == "rbd:vols/v1"
    assert known_as("rbd", "vols/v1@snap", ()) == "rbd:vols/v1"
    assert known_as("iscsi", "iqn.2026-01.lab:one/2", ()) == "iscsi:iqn.2026-01.lab:one/2"


@pytest.mark.parametrize("servers", [("10.0.0.4:10809",), ("[::1]:10809",), (SOCKET,)])
def test_an_export_is_its_servers_and_a_nameless_one_may_be_any(servers: tuple[str, ...]) -> None:
    one, other, nameless, odd = (
        known_as("nbd", name, servers) for name in ("one", "other", "", "a/b?socket=/x")
    )
    assert len({one, other, nameless, odd}) == 4
    assert {at_its_server(each) for each in (one, other, nameless, odd)} == {nameless}
    assert may_be_one(one, one)
    assert not may_be_one(one, other)
    assert not may_be_one(one, odd)
    for named in (one, other, odd):
        assert may_be_one(named, nameless)
        assert may_be_one(nameless, named)
    elsewhere = known_as("nbd", "", ("10.0.0.5:10809",))
    assert not may_be_one(elsewhere, one)
    assert not may_be_one(elsewhere, nameless)


def test_what_is_no_export_is_compared_as_it_is() -> None:
    for known in ("/srv/a", "rbd:nbd/", "iscsi:iqn.x/0", "", "[nbd1] a/b.vmdk"):
        assert at_its_server(known) == known
        assert may_be_one(known, known)
        assert not may_be_one(known, "nbd://a:1/")


def test_how_it_is_reached_says_nothing_of_what_it_is() -> None:
    plain = NetworkDisk("nbd", "one", ("a:10809",))
    assert NetworkDisk("nbd", "one", ("a:10809",), tls=True).path == plain.path
