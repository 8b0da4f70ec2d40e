"""What every storage back end keeps: subclass, and give the fixture ``rig``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.deadline import Deadline
from moorline.errors import NotOurs, Refused, Uncertain
from moorline.model import (
    BlockDevice,
    Broken,
    Foreign,
    ImageFile,
    Link,
    Linked,
    LinkName,
    NetworkDisk,
    Unknown,
    Unlinked,
)
from moorline.ports import Naming, Readying
from moorline.ports.inspection import Discovering, Found, GuestDisk
from moorline.ports.mount import by_target, covering
from moorline.ports.recognising import Recognising
from moorline.testing.contracts.backend_rig import BackendRig as BackendRig
from moorline.testing.contracts.backend_rig import Connection as Connection
from moorline.testing.contracts.backend_rig import connect as connect
from moorline.testing.contracts.backend_rig import disconnect as disconnect
from moorline.testing.contracts.backend_rig import look as look


class BackendContract:
    """The contract of :class:`moorline.ports.StorageBackend`."""

    @pytest.fixture
    def rig(self) -> BackendRig:
        raise NotImplementedError

    # --- connections, which are untrusted ---

    def test_a_good_connection_tells_its_name_and_volume(self, rig: BackendRig) -> None:
        parsed = rig.backend.parse(rig.good)
        assert isinstance(parsed.name, str)
        assert parsed.volume is None or 1 <= len(parsed.volume) <= 64

    def test_what_a_person_types_for_it_is_the_same_volume(self, rig: BackendRig) -> None:
        backend = rig.backend
        if not isinstance(backend, Naming):
            pytest.skip("it does not tell what its volumes are called")
        for connection in filter(None, (rig.good, rig.sibling, rig.other, *rig.respelled)):
            parsed = backend.parse(connection)
            if url := backend.url(parsed):
                typed = backend.parse(backend.from_url(url, getattr(parsed, "format", None)))
                same = backend.link_name(typed), typed.name
                assert same == (backend.link_name(parsed), parsed.name)
            assert not [secret for secret in rig.secrets if secret in url]

    def test_hostile_connections_are_refused_and_touch_nothing(self, rig: BackendRig) -> None:
        assert rig.hostile, "a contract that is not tried is not kept"
        before = rig.world()
        accepted = [vice for vice, connection in rig.hostile.items() if _parses(rig, connection)]
        assert accepted == []
        assert rig.world() == before

    @pytest.mark.parametrize("value", [None, 7, "", "\0", [], {}, "../x", "x" * 100_000, {"a": 1}])
    def test_odd_values_are_refused_not_crashed_on(self, rig: BackendRig, value: Any) -> None:
        for field in (*rig.good, "data"):
            _parses(rig, {**rig.good, field: value})
        for field in rig.good["data"]:
            _parses(rig, {**rig.good, "data": {**rig.good["data"], field: value}})

    def test_the_connection_of_another_kind_is_refused(self, rig: BackendRig) -> None:
        assert not _parses(rig, {**rig.good, "driver_volume_type": "no-such-kind"})

    def test_an_unknown_format_is_refused(self, rig: BackendRig) -> None:
        for format in ("vmdk", "RAW", "auto", ["raw"]):
            data = {**rig.good["data"], "format": format}
            assert not _parses(rig, {**rig.good, "data": data}), format

    def test_null_options_are_normal(self, rig: BackendRig) -> None:
        data = {**rig.good["data"], "options": None}
        assert rig.backend.parse({**rig.good, "data": data}) == rig.backend.parse(rig.good)

    # --- link names ---

    def test_link_names_are_equal_for_the_same_link_and_else_differ(self, rig: BackendRig) -> None:
        name = _link_name(rig, rig.good)
        same = [rig.good, *rig.respelled, *([rig.sibling] if rig.sibling else [])]
        assert {_link_name(rig, connection) for connection in same} == {name}
        assert _link_name(rig, rig.other) != name

    def test_link_names_do_not_depend_on_what_is_there(self, rig: BackendRig) -> None:
        before = _link_name(rig, rig.good)
        connect(rig, rig.good)
        assert _link_name(rig, rig.good) == before
        disconnect(rig, rig.good)

    def test_link_names_are_absolute_paths_without_secrets(self, rig: BackendRig) -> None:
        name = _link_name(rig, rig.good)
        assert name.startswith("/")
        assert ".." not in name.split("/")
        assert not [secret for secret in rig.secrets if secret in name]

    # --- links ---

    def test_looking_changes_nothing(self, rig: BackendRig) -> None:
        before = rig.world()
        assert isinstance(look(rig, rig.good), Linked if rig.given else Unlinked)
        assert rig.world() == before

    def test_connecting_makes_a_link_of_the_declared_classes(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        link = look(rig, rig.good)
        assert isinstance(link, Linked)
        assert type(link.source) in rig.backend.yields
        assert link.given is rig.given
        disconnect(rig, rig.good)

    def test_connecting_again_changes_nothing(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        before = rig.world()
        connect(rig, rig.good)
        assert rig.world() == before
        disconnect(rig, rig.good)

    def test_disconnecting_leaves_nothing_behind(self, rig: BackendRig) -> None:
        before = rig.world()
        connect(rig, rig.good)
        disconnect(rig, rig.good)
        assert isinstance(look(rig, rig.good), Linked if rig.given else Unlinked)
        assert rig.world() == before

    def test_disconnecting_what_is_not_there_is_success(self, rig: BackendRig) -> None:
        before = rig.world()
        disconnect(rig, rig.good)
        disconnect(rig, rig.good)
        assert rig.world() == before

    def test_two_volumes_share_their_link(self, rig: BackendRig) -> None:
        if rig.sibling is None:
            pytest.skip("each volume of this back end has a link of its own")
        connect(rig, rig.good)
        before = rig.world()
        connect(rig, rig.sibling)
        assert rig.world() == before
        first, second = look(rig, rig.good), look(rig, rig.sibling)
        assert isinstance(first, Linked)
        assert isinstance(second, Linked)
        assert first.source != second.source
        disconnect(rig, rig.good)

    def test_one_link_does_not_touch_another(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        connect(rig, rig.other)
        disconnect(rig, rig.good)
        assert isinstance(look(rig, rig.other), Linked)
        disconnect(rig, rig.other)

    # --- links that nobody asked for ---

    def test_a_link_is_found_whoever_made_it(self, rig: BackendRig) -> None:
        backend = _discovering(rig)
        connect(rig, rig.good)
        name = LinkName(_link_name(rig, rig.good))
        assert Found(name, None) in backend.links()
        rig.kill()
        assert [type(found.ill) for found in backend.links() if found.link == name] == [Broken]
        backend.clear(name)
        assert isinstance(look(rig, rig.good), Unlinked)

    def test_a_found_link_is_cleared_without_a_trace(self, rig: BackendRig) -> None:
        backend = _discovering(rig)
        before = rig.world()
        connect(rig, rig.good)
        connect(rig, rig.other)
        name = LinkName(_link_name(rig, rig.good))
        backend.clear(name)
        assert isinstance(look(rig, rig.other), Linked)
        disconnect(rig, rig.other)
        assert rig.world() == before
        backend.clear(name)

    def test_what_is_no_link_of_its_own_is_not_cleared(self, rig: BackendRig) -> None:
        backend = _discovering(rig)
        for path in ("/", "/etc", f"{_link_name(rig, rig.good)}/beneath"):
            with pytest.raises(Refused):
                backend.clear(LinkName(path))

    # --- disks that somebody else plugged ---

    def test_what_is_connected_is_recognised_by_where_it_is(self, rig: BackendRig) -> None:
        backend = rig.backend
        if not isinstance(backend, Recognising):
            pytest.skip("this back end recognises no disks")
        for connection in filter(None, (rig.good, rig.sibling)):
            connect(rig, connection)
            disk = _plugged(rig, connection)
            before = rig.world()
            mount = covering(disk.path, by_target(rig.mounts()))
            recognised = backend.recognise(disk, mount, known=[rig.backend.parse(connection)])
            assert rig.world() == before
            if not rig.told_by_place:
                assert recognised is None
                continue
            assert recognised is not None
            assert recognised.setting is None
            assert _plugged(rig, recognised.connection).path == disk.path
            assert not any(secret in str(recognised.connection) for secret in rig.secrets)
        assert backend.recognise(replace(disk, path="", mark="", serial=""), None) is None

    # --- volumes ---

    def test_a_good_volume_is_verified(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        link = look(rig, rig.good)
        assert isinstance(link, Linked)
        source = rig.backend.verify(rig.backend.parse(rig.good))
        assert source == link.source, "nothing lies beneath it"
        disconnect(rig, rig.good)

    def test_a_missing_volume_is_refused(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        with pytest.raises(Refused):
            rig.backend.verify(rig.backend.parse(rig.missing))
        disconnect(rig, rig.good)

    def test_unfit_volumes_are_refused(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        accepted = [vice for vice, connection in rig.unfit.items() if _verifies(rig, connection)]
        assert accepted == []
        disconnect(rig, rig.good)

    def test_what_is_ready_is_what_inspect_and_verify_tell(self, rig: BackendRig) -> None:
        backend = _readying(rig)
        good = backend.parse(rig.good)
        assert rig.given or backend.ready(good) is None
        connect(rig, rig.good)
        link = look(rig, rig.good)
        assert isinstance(link, Linked)
        assert backend.ready(good) == replace(link, source=backend.verify(good), verified=True)
        unfit = [rig.missing, *rig.unfit.values()]
        assert [backend.ready(backend.parse(connection)) for connection in unfit] == [None] * len(
            unfit
        )
        disconnect(rig, rig.good)

    def test_on_a_broken_link_nothing_is_ready(self, rig: BackendRig) -> None:
        backend = _readying(rig)
        connect(rig, rig.good)
        rig.kill()
        assert backend.ready(backend.parse(rig.good)) is None
        disconnect(rig, rig.good)

    def test_on_a_link_that_hangs_nothing_is_ready(self, rig: BackendRig) -> None:
        backend = _readying(rig)
        connect(rig, rig.good)
        rig.hang()
        deadline = Deadline(rig.patience)
        assert backend.ready(backend.parse(rig.good)) is None
        assert not deadline.over()
        rig.heal()
        assert isinstance(_look_until_known(rig), Linked)
        disconnect(rig, rig.good)

    def test_on_what_is_foreign_nothing_is_ready(self, rig: BackendRig) -> None:
        backend = _readying(rig)
        rig.usurp()
        assert backend.ready(backend.parse(rig.good)) is None

    # --- what goes wrong ---

    def test_a_link_that_vanished_is_seen_and_made_again(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        rig.remove()
        assert isinstance(look(rig, rig.good), Unlinked)
        connect(rig, rig.good)
        assert isinstance(look(rig, rig.good), Linked)
        disconnect(rig, rig.good)

    def test_a_broken_link_is_told_disconnected_and_made_again(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        rig.kill()
        link = look(rig, rig.good)
        assert isinstance(link, Broken)
        assert link.reason
        disconnect(rig, rig.good)
        connect(rig, rig.good)
        assert isinstance(look(rig, rig.good), Linked)
        disconnect(rig, rig.good)

    def test_what_is_foreign_is_told_and_left_alone(self, rig: BackendRig) -> None:
        rig.usurp()
        before = rig.world()
        link = look(rig, rig.good)
        assert isinstance(link, Foreign)
        assert link.reason
        with pytest.raises(NotOurs):
            connect(rig, rig.good)
        with pytest.raises(NotOurs):
            disconnect(rig, rig.good)
        assert rig.world() == before

    def test_a_link_that_hangs_is_unknown_in_time_and_recovers(self, rig: BackendRig) -> None:
        connect(rig, rig.good)
        connect(rig, rig.other)
        rig.hang()
        deadline = Deadline(rig.patience)
        assert isinstance(look(rig, rig.good), Unknown)
        with pytest.raises(Uncertain):
            rig.backend.verify(rig.backend.parse(rig.good))
        assert not deadline.over()
        assert isinstance(look(rig, rig.other), Linked), "the others are not touched by it"
        rig.heal()
        assert isinstance(_look_until_known(rig), Linked)
        disconnect(rig, rig.good)
        disconnect(rig, rig.other)


def _discovering(rig: BackendRig) -> Discovering:
    if rig.given or not isinstance(rig.backend, Discovering):
        pytest.skip("this back end makes no links that can be found")
    if not any(Path(_link_name(rig, rig.good)).parent == at for at in rig.backend.places()):
        pytest.skip("its links are not where it looks for some")
    return rig.backend


def _readying(rig: BackendRig) -> Any:
    if not (isinstance(rig.backend, Readying) and rig.ready_at_once):
        pytest.skip("this back end asks for link and volume one by one")
    return rig.backend


def _plugged(rig: BackendRig, connection: Connection) -> GuestDisk:
    """The disk of a guest that was given the volume, whose id is its serial."""
    link = look(rig, connection)
    assert isinstance(link, Linked)
    assert isinstance(link.source, ImageFile | BlockDevice | NetworkDisk)
    path, format = str(link.source.path), getattr(link.source, "format", "raw")
    serial = rig.backend.parse(connection).volume or ""
    return GuestDisk(
        *("vdb", path, format, "virtio"),
        mark="",
        serial=serial,
        readonly=False,
        shared=False,
        running=True,
        defined=True,
    )


def _link_name(rig: BackendRig, connection: Connection) -> str:
    return rig.backend.link_name(rig.backend.parse(connection))


def _parses(rig: BackendRig, connection: Connection) -> bool:
    try:
        rig.backend.parse(connection)
    except Refused:
        return False
    return True


def _verifies(rig: BackendRig, connection: Connection) -> bool:
    try:
        rig.backend.verify(rig.backend.parse(connection))
    except Refused:
        return False
    return True


def _look_until_known(rig: BackendRig) -> Link:
    deadline = Deadline(30)
    while isinstance(link := look(rig, rig.good), Unknown) and not deadline.over():
        deadline.sleep(0.05)
    return link
