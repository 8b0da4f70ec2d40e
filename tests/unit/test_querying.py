"""list and show: which storage, how large, and of which guest or share."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from moorline import byte_sizes
from moorline.cli import output
from moorline.cli.commands import main
from moorline.errors import NotFound, Refused
from moorline.model import GuestId
from tests.support.rig import Rig

UUID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"


def connection(volume: str, share: str = "s", name: str = "a") -> dict[str, Any]:
    data = {"share": share, "name": name, "volume_id": volume, "password": "hunter2"}
    return {"driver_volume_type": "toy", "data": data}


@pytest.fixture
def host(rig: Rig) -> Rig:
    for guest, volume, share, name in (
        ("g1", "v1", "s", "a"),
        ("g1", "v2", "t", "b"),
        ("g2", UUID, "s", "c"),
    ):
        rig.owner().attachments.attach(guest, connection(volume, share, name))
    return rig


def test_a_view_tells_which_storage_and_no_secret(host: Rig) -> None:
    views = host.owner().attachments.list()
    assert [view.storage for view in views] == ["toy://s/a", "toy://t/b", "toy://s/c"]
    assert {view.format for view in views} == {"raw"}
    plain = {"bus": "", "target": "", "readonly": False, "shared": False, "on_error": ""}
    assert views[0].options == plain
    assert "hunter2" not in str([view.to_dict() for view in views])


def test_it_is_told_of_a_share_that_cannot_be_looked_at_too(host: Rig) -> None:
    host.world.blind = True
    (view, *_) = host.owner().attachments.list()
    assert (view.seen, view.storage) == ("unknown", "toy://s/a")


def test_a_list_of_one_guest(host: Rig) -> None:
    assert [v.volume for v in host.owner().attachments.list(guest="g1")] == ["v1", "v2"]
    host.world.guests[GuestId("g3")] = type(host.world.guests[GuestId("g1")])("g3")
    assert host.owner().attachments.list(guest="g3") == []
    for slip in ("g4", ""):
        with pytest.raises(NotFound):
            host.owner().attachments.list(guest=slip)


@pytest.mark.parametrize("share", ["toy://s", "toy://s/", "/toy/s", "toy://s/a"])
def test_a_list_of_one_share(host: Rig, share: str) -> None:
    found = [v.volume for v in host.owner().attachments.list(share=share)]
    assert found == (["v1"] if share.endswith("a") else ["v1", UUID])


@pytest.mark.parametrize("share", ["", "/", "s", "toy://s2", "/to"])
def test_a_share_that_nothing_is_on_is_not_found(host: Rig, share: str) -> None:
    with pytest.raises(NotFound):
        host.owner().attachments.list(share=share)


def test_a_volume_goes_by_its_device_where_a_guest_is_named(host: Rig) -> None:
    (view,) = host.owner().attachments.show("toy-v2", "g1")
    assert view.volume == "v2"
    assert host.owner().maintenance.explain("toy-v2", "g1")[0].volume == "v2"
    with pytest.raises(NotFound):
        host.owner().attachments.show("toy-v2", "g2")


def test_what_is_forgotten_may_be_named_by_the_beginning_of_its_guests_id(rig: Rig) -> None:
    id = GuestId("7c9e6679-7425-40de-944b-e07fc1f90ae7")
    rig.world.guests[id] = type(rig.world.guests[GuestId("g1")])("web09")
    rig.owner().attachments.attach("web09", connection("v1"))
    del rig.world.guests[id]
    rig.world.mounts.clear()
    with pytest.raises(NotFound):
        rig.owner().attachments.forget("v1", "7c9e667")  # too short: it may be another's name
    (gone,) = rig.owner().attachments.forget("v1", "7c9e6679")
    assert gone.guest_id == id
    assert rig.owner().attachments.list() == []


def test_a_beginning_that_two_guests_have_is_refused(rig: Rig) -> None:
    for tail in ("a", "b"):
        id = GuestId(f"7c9e6679-7425-40de-944b-e07fc1f90ae{tail}")
        rig.world.guests[id] = type(rig.world.guests[GuestId("g1")])(f"web{tail}")
        rig.owner().attachments.attach(id, connection(f"v{tail}", name=tail))
    with pytest.raises(Refused, match="the beginning of"):
        rig.owner().attachments.list(guest="7c9e6679")


@pytest.mark.parametrize(
    ("bytes", "text"),
    [
        (None, "-"),
        (0, "0"),
        (512, "512"),
        (1 << 10, "1KiB"),
        (1536, "1.5KiB"),
        (20 << 30, "20GiB"),
        ((20 << 30) + 1, "20GiB"),
        (1 << 60, "1EiB"),
        (1 << 63, "8EiB"),
    ],
)
def test_sizes_as_people_write_them(bytes: int | None, text: str) -> None:
    assert byte_sizes.human(bytes) == text


class Terminal:
    def isatty(self) -> bool:
        return True


def test_what_is_not_as_wanted_is_red_on_a_terminal(
    host: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    host.world.dead.add("t")
    views = host.owner().attachments.list()
    plain = output.table(views)
    assert "\x1b" not in plain  # this is no terminal
    monkeypatch.setattr(output.sys, "stdout", Terminal())
    (red,) = [line for line in output.table(views).splitlines() if "\x1b[31m" in line]
    assert "v2" in red
    assert red.replace("\x1b[31m", "").replace("\x1b[0m", "") in plain.splitlines()
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as told:
            told.setenv(name, value)
            assert output.table(views) == plain


def test_sizes_are_of_the_image_and_only_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    runner = CliRunner(
        env={
            "MOORLINE_STATE_DIR": str(tmp_path / "state"),
            "MOORLINE_HYPERVISOR": "test:///default",
        }
    )
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "b.qcow2"), "3G"], check=True
    )
    for name, format in (("a.raw", "raw"), ("b.qcow2", "qcow2")):
        words = ["attach", "test", str(tmp_path / name), "--format", format]
        done = runner.invoke(main, [*words, "--level", "connected"])
        assert done.exit_code == 0, done.output
    listed = json.loads(runner.invoke(main, ["list", "-o", "json"]).stdout)
    assert {view["size"] for view in listed} == {None}
    listed = json.loads(runner.invoke(main, ["list", "-o", "json", "--sizes"]).stdout)
    sizes = {Path(view["storage"]).name: view["size"] for view in listed}
    assert sizes == {"a.raw": 1 << 20, "b.qcow2": 3 << 30}
    wide = runner.invoke(main, ["list", "-o", "wide", "--share", str(tmp_path)]).stdout
    assert "1MiB" in wide
    assert "3GiB" in wide
    names = runner.invoke(main, ["list", "-o", "name"]).stdout.split()
    assert sorted(names) == sorted(view["volume"] for view in listed)
    assert f"storage:      {tmp_path}" in runner.invoke(main, ["show", names[0]]).stdout
    (tmp_path / "a.raw").unlink()
    left = runner.invoke(main, ["list", "--not-as-wanted", "-o", "name"])
    assert left.exit_code == 0


def test_disks_of_a_hypervisor_that_tells_no_more_than_its_survey(host: Rig) -> None:
    """As PowerVM and vSphere."""
    host.world.guests[GuestId("g2")].foreign.add("/toy/s/byhand")
    found = host.owner().maintenance.disks()
    told = [(each.guest, each.whose, each.disk.mark, each.disk.path) for each in found]
    assert told == [
        ("g1", "ours", "v1", "/toy/s/a"),
        ("g1", "ours", "v2", "/toy/t/b"),
        ("g2", "ours", UUID, "/toy/s/c"),
        ("g2", "other", "", "/toy/s/byhand"),
    ]
    assert [each.disk.mark for each in host.owner().maintenance.disks("g1")] == ["v1", "v2"]
    host.owner().maintenance.release("g1", "v1")
    (released, _) = host.owner().maintenance.disks("g1")
    assert (released.whose, released.wanted) == ("released", False)
    with pytest.raises(NotFound):
        host.owner().maintenance.disks("nobody")
