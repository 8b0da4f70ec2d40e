"""A detach is no success while the guest has the volume by somebody else's doing."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.errors import NotOurs, Unavailable, Uncertain
from moorline.model import GuestId, Level
from tests.support.care_rig import Scene, disk, prepared

ID = "6a1f0b0e-0f43-4a0c-9d62-0a7b6f6f1c11"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return prepared(tmp_path, monkeypatch)


@pytest.mark.parametrize("said", [{"serial": ID}, {"alias": ID}, {"serial": ID.upper()}])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_disk_that_is_said_to_be_the_volume_is_told(
    scene: Scene, said: dict[str, str], dry_run: bool
) -> None:
    scene.inventory.all["g1"] = [disk("/srv/theirs.raw", **said)]
    with pytest.raises(NotOurs, match=r"g1 has volume 6a1f.* as vdc \(/srv/theirs.raw\)"):
        scene.moorline.attachments.detach("g1", ID, dry_run=dry_run)
    assert scene.moorline.attachments.detach("g2", ID, dry_run=dry_run) is None


@pytest.mark.parametrize("level", [Level.CONNECTED, Level.ATTACHED])
@pytest.mark.parametrize("by_name", [False, True])
def test_the_wish_goes_and_the_disk_that_stays_is_told(
    scene: Scene, level: Level, by_name: bool
) -> None:
    """Plugged by hand from the link that was connected, or in the place of the disk that was."""
    guest = scene.world.guests[GuestId("g1")]
    guest.running = False
    link = scene.attach(level=level)
    guest.foreign.add(f"{link}/a")
    said = {"serial": "vol-a"} if by_name else {}
    scene.inventory.all["g1"] = [disk(f"{link}/a", **said)]
    with pytest.raises(NotOurs, match=rf"g1 has volume vol-a as vdc \({link}/a\)"):
        scene.moorline.attachments.detach("g1", "vol-a", dry_run=True)
    assert scene.rows("vol-a")[0].want is level
    with pytest.raises(NotOurs, match="whoever plugged it takes it away"):
        scene.moorline.attachments.detach("g1", "vol-a")
    assert scene.rows("vol-a") == []
    assert link in [mount.target for mount in scene.host.table]


def test_our_own_disk_is_no_other(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    scene.inventory.all["g1"] = [disk(f"{link}/a", mark="vol-a", serial="vol-a")]
    outcome = scene.moorline.attachments.detach("g1", "vol-a", dry_run=True)
    assert outcome is not None
    assert outcome.steps == ["detach", "disconnect", "forget"]


def test_where_the_disks_cannot_be_told_it_is_not_said_that_it_is_gone(scene: Scene) -> None:
    scene.attach()
    scene.inventory.error = Unavailable("libvirtd is away")
    with pytest.raises(Uncertain, match="wanted no more on g1, and then: libvirtd is away"):
        scene.moorline.attachments.detach("g1", "vol-a")
    with pytest.raises(Unavailable):
        scene.moorline.attachments.detach("g1", ID)


def test_what_its_owner_takes_away_is_not_asked_for(scene: Scene) -> None:
    guest = "13e66266-9296-4d32-9a6f-e9e994405195"
    attachments = scene.moorline.attachments
    attachments.attach(guest, scene.connection(), level=Level.CONNECTED, hands_off=True)
    scene.inventory.all[guest] = [disk(f"{scene.link()}/a", serial="vol-a")]
    assert attachments.detach(guest, "vol-a", dry_run=True) is not None
    assert attachments.detach(guest, "vol-a") is not None
