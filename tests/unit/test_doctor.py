"""Doctor and repair: what they find and what they leave alone, on a toy host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moorline.care.repair import Repairer
from moorline.core.backoff import Pending
from moorline.errors import Failed, Refused, Unavailable
from moorline.host.state_dir import examine
from moorline.model import GuestId, Level, VolumeId
from moorline.ports import Command
from moorline.ports.inspection import Finding, GuestDisk
from moorline.ports.results import Trouble
from moorline.testing.toy_host import ToyHost, ToyShare, umount
from moorline.testing.toys import ToyGuest, ToyHypervisor
from tests.support.care_rig import FILES, Scene, disk, prepared
from tests.support.environment import bare


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return prepared(tmp_path, monkeypatch)


def test_nothing_is_found_where_all_is_well(scene: Scene) -> None:
    assert scene.found() == []
    scene.attach()
    diagnosis = scene.moorline.maintenance.doctor()
    assert diagnosis.findings == []
    assert diagnosis.facts["toy"] == "1.0"


def test_what_was_refused_for_its_file_is_looked_at_again(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    guest = scene.world.guests[GuestId("g1")]
    guest.live.clear()
    guest.defined.clear()
    scene.records.note(scene.rows("vol-a")[0], Trouble("", "refused", "of yesterday", 1.0))

    def told() -> str:
        (finding,) = scene.moorline.maintenance.doctor().findings
        assert finding.check == "refused-attachment"
        return finding.what

    assert "of yesterday; its file can be given by now, and `moorline sweep` tries it" in told()
    scene.host.share(link).files = frozenset()
    assert "of yesterday" not in told()
    assert "there is no" in told()
    scene.host.share(link).files = FILES
    assert scene.moorline.attachments.sweep() == []
    assert scene.found() == []


# --- links


def test_a_link_is_leaked_only_if_nobody_needs_it(scene: Scene) -> None:
    link = scene.attach()
    scene.moorline.maintenance.release("g1", "vol-a")
    assert scene.found() == ["leaked-link"]
    scene.world.guests[GuestId("g2")].running = False
    scene.world.guests[GuestId("g2")].foreign.add(f"{link}/b")
    assert scene.found() == ["unmanaged-disk"]
    assert scene.moorline.maintenance.repair() == []
    scene.world.guests[GuestId("g2")].foreign.clear()
    (made,) = scene.moorline.maintenance.repair()
    assert (made.action, made.subject, made.done) == ("disconnect", link, True)
    assert scene.found() == []
    assert not Path(link).exists()


def test_a_share_that_hangs_is_told_even_if_the_guests_cannot_be_asked(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    scene.world.blind = True
    assert scene.found() == ["no-hypervisor"]
    scene.host.share(link).hangs = True
    assert scene.found() == ["no-hypervisor", "hung-share"]


def test_only_fuse_is_said_to_have_a_way_out(scene: Scene) -> None:
    link = scene.attach()
    scene.host.share(link).hangs = True
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert finding.next == f"moorline abort {link} --dry-run"


def test_unknown_means_in_use(scene: Scene) -> None:
    scene.attach()
    scene.moorline.maintenance.release("g1", "vol-a")
    scene.world.blind = True
    assert scene.found() == ["no-hypervisor"]
    with pytest.raises(Unavailable):
        scene.moorline.maintenance.repair()
    assert scene.host.table


def test_a_repair_that_fails_says_so_and_does_not_stop_the_next(scene: Scene) -> None:
    scene.attach()
    scene.moorline.maintenance.release("g1", "vol-a")
    (scene.base / "other-0123456789abcdef").mkdir()
    scene.host.users = ["fio (7)"]
    failed, made = scene.moorline.maintenance.repair()
    assert "in use by fio (7)" in failed.problem
    assert (made.action, made.done) == ("remove", True)


@pytest.mark.parametrize("by", ["an attachment", "a guest", "who can tell"])
def test_a_link_that_is_needed_meanwhile_stays(scene: Scene, by: str) -> None:
    exports = {}
    for name, export in (("a", "reg/vol"), ("b", "reg/other")):
        connection = scene.connection(name)
        connection["data"]["export"] = export
        scene.moorline.attachments.attach("g1", connection, level=Level.CONNECTED)
        scene.moorline.maintenance.release("g1", f"vol-{name}")
        exports[scene.link()] = connection

    def unmount(host: ToyHost, command: Command) -> None:
        """While the first is taken away, the other comes into use."""
        umount(host, command)
        (other,) = (link for link in exports if link != command.argv[-1])
        if by == "an attachment":
            scene.moorline.attachments.attach("g2", exports[other], level=Level.CONNECTED)
        elif by == "a guest":
            scene.world.guests[GuestId("g2")].foreign.add(f"{other}/file")
        else:
            scene.world.guests[GuestId("g2")].unreadable = "its definition is damaged"

    scene.host.programs["umount"] = unmount
    first, second = scene.moorline.maintenance.repair()
    assert (first.done, second.done) == (True, False)
    assert "needed" in second.problem
    assert [mount.target for mount in scene.host.table] == [second.subject]


def test_a_link_is_not_taken_away_while_somebody_else_is_at_it(scene: Scene) -> None:
    link = scene.attach()
    scene.moorline.maintenance.release("g1", "vol-a")
    with scene.locks.hold(f"link {link}"):
        (repair,) = scene.moorline.maintenance.repair()
    assert "still under way" in repair.problem
    assert scene.link() == link


def test_what_is_forgotten_leaves_no_mount_point(scene: Scene) -> None:
    link = scene.attach()
    scene.host.unmount(link)  # somebody did it by hand
    assert scene.moorline.attachments.detach("g1", "vol-a").steps[-1] == "forget"
    assert list(scene.base.iterdir()) == []
    scene.host.unmount(scene.attach())
    assert [view.volume for view in scene.moorline.attachments.forget("vol-a")] == ["vol-a"]
    assert list(scene.base.iterdir()) == []


def test_what_others_have_in_the_directory_is_left_alone(scene: Scene) -> None:
    nova = scene.base / "0123456789abcdef0123456789abcdef"
    nova.mkdir()
    scene.host.mount("quobyte@reg/vol", str(nova), "fuse.quobyte", ToyShare())
    scene.host.mount("x", str(scene.base / "x-0123456789abcdef"), "tmpfs", ToyShare())
    assert scene.found() == []
    assert scene.moorline.maintenance.repair() == []


def test_files_beneath_a_mount_point_are_told_and_never_touched(scene: Scene) -> None:
    at = scene.base / "vol-0123456789abcdef"
    at.mkdir()
    (at / "precious").touch()
    assert scene.found() == ["written-beneath"]
    assert scene.moorline.maintenance.repair() == []
    assert (at / "precious").exists()


def test_a_client_that_is_missing_is_told_where_it_is_needed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert scene.found() == []
    scene.attach()
    assert scene.found() == ["missing-client"]


# --- disks and attachments


def released(scene: Scene, *others: GuestDisk, boots: bool = False) -> ToyGuest:
    """A stopped guest with a volume that was released, and *others*."""
    link = scene.attach(level=Level.ATTACHED)
    guest = scene.world.guests[GuestId("g1")]
    guest.running = False
    guest.live.clear()
    scene.moorline.maintenance.release("g1", "vol-a")
    path = f"{link}/a"
    scene.inventory.all["g1"] = [disk(path, device="toy-vol-a", boots=boots), *others]
    return guest


def test_a_disk_that_was_released_goes_only_when_told(scene: Scene) -> None:
    guest = released(scene, disk("/root"))
    finding, _ = scene.moorline.maintenance.doctor().findings
    assert scene.found() == ["unwanted-disk", "unmanaged-disk"]
    assert f"toy-vol-a ({guest.defined[VolumeId('vol-a')]})" in finding.what
    assert scene.moorline.maintenance.repair() == []
    due = scene.moorline.maintenance.repair(disks=True, dry_run=True)[0]
    assert (due.action, due.subject, due.done) == ("detach", "g1/vol-a", False)
    assert (due.device, due.path) == ("toy-vol-a", guest.defined[VolumeId("vol-a")])
    assert guest.defined
    assert [made.done for made in scene.moorline.maintenance.repair(disks=True)] == [True, True]
    assert not guest.defined
    assert scene.found() == []


def test_a_disk_that_was_never_ours_is_neither_told_nor_taken(scene: Scene) -> None:
    guest = scene.world.guests[GuestId("g1")]
    guest.running = False
    guest.defined[VolumeId("v9")] = "/elsewhere/x"
    scene.inventory.all["g1"] = [disk("/elsewhere/x"), disk("/root")]
    assert scene.found() == []
    assert scene.moorline.maintenance.repair(disks=True, boot_disks=True) == []
    assert guest.defined


def test_what_was_released_is_another_when_it_comes_back_as_another_path(scene: Scene) -> None:
    guest = released(scene, disk("/root"))
    guest.defined[VolumeId("vol-a")] += ".other"
    assert "unwanted-disk" not in scene.found()
    assert [each.action for each in scene.moorline.maintenance.repair(disks=True)] != ["detach"]
    assert guest.defined


def test_where_somebody_else_plugs_disks_none_is_taken(scene: Scene) -> None:
    guest = released(scene, disk("/root"))
    nova = "01234567-89ab-cdef-0123-456789abcdef"
    scene.moorline.attachments.attach(
        nova, scene.connection("b"), level=Level.CONNECTED, hands_off=True
    )
    assert scene.found() == []
    assert scene.moorline.maintenance.repair(disks=True, boot_disks=True) == []
    assert guest.defined


@pytest.mark.parametrize(
    ("others", "boots", "why"),
    [
        ([], False, "it is the only disk of g1"),
        ([disk("/root")], True, "g1 boots from it"),
    ],
)
def test_what_a_guest_may_boot_from_takes_a_second_word(
    scene: Scene, others: list[GuestDisk], boots: bool, why: str
) -> None:
    guest = released(scene, *others, boots=boots)
    (left,) = scene.moorline.maintenance.repair(disks=True)
    assert (left.done, left.problem) == (False, f"{why} (--boot-disks)")
    assert guest.defined
    assert all(made.done for made in scene.moorline.maintenance.repair(disks=True, boot_disks=True))
    assert not guest.defined


def test_what_cannot_be_told_of_a_guest_takes_a_second_word(scene: Scene) -> None:
    guest = released(scene)
    scene.inventory.error = Unavailable("libvirt is away")
    (left,) = scene.moorline.maintenance.repair(disks=True)
    assert left.problem == "it cannot be told whether g1 boots from it: libvirt is away"
    assert guest.defined


def test_who_cannot_tell_the_disks_of_guests_takes_none_unasked(scene: Scene) -> None:
    """Not every hypervisor has an inventory."""
    guest = released(scene, disk("/root"))
    detach = scene.moorline.attachments.detach
    repairer = Repairer(scene.records, scene.reconciler, scene.hypervisor.survey, detach, bare())
    (left,) = repairer.repair(disks=True)
    assert (left.done, left.problem) == (
        False,
        "it cannot be told whether g1 boots from it (--boot-disks)",
    )
    assert guest.defined
    assert [made.done for made in repairer.repair(disks=True, boot_disks=True)] == [True]
    assert not guest.defined


def test_a_dry_run_tells_of_the_link_that_the_disk_leaves_free(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    guest = scene.world.guests[GuestId("g1")]
    guest.running = False
    guest.live.clear()
    scene.moorline.maintenance.release("g1", "vol-a")
    scene.inventory.all["g1"] = [disk(f"{link}/a"), disk("/root")]
    told = [
        [
            (each.action, each.subject)
            for each in scene.moorline.maintenance.repair(disks=True, dry_run=dry)
        ]
        for dry in (True, False)
    ]
    assert told[0] == told[1] == [("detach", "g1/vol-a"), ("disconnect", link)]
    assert scene.found() == []


def test_an_attachment_for_a_guest_that_is_gone(scene: Scene) -> None:
    scene.attach()
    del scene.world.guests[GuestId("g1")]
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert (finding.check, finding.next) == ("lost-guest", "moorline detach g1 vol-a")
    scene.moorline.attachments.detach("g1", "vol-a")
    assert scene.found() == []


def test_a_guest_that_was_made_anew_is_not_the_earlier_one_of_its_name(scene: Scene) -> None:
    scene.attach()
    scene.world.guests[GuestId("g1-anew")] = ToyGuest("g1")
    del scene.world.guests[GuestId("g1")]
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert finding.check == "lost-guest"
    assert "wanted on an earlier guest of the name g1 (g1), which is not there" in finding.what
    assert finding.next == "moorline detach g1 vol-a"
    with pytest.raises(Refused, match=r"wanted on an earlier guest of the name g1 \(g1\)") as told:
        scene.moorline.attachments.attach("g1-anew", scene.connection(), level=Level.CONNECTED)
    assert "moorline detach g1 vol-a" in told.value.hint
    scene.moorline.attachments.detach("g1", "vol-a")
    scene.moorline.attachments.attach("g1-anew", scene.connection(), level=Level.CONNECTED)
    assert scene.found() == []


def test_a_guest_that_somebody_else_will_define_is_not_lost(scene: Scene) -> None:
    guest = "01234567-89ab-cdef-0123-456789abcdef"
    scene.moorline.attachments.attach(
        guest, scene.connection(), level=Level.CONNECTED, hands_off=True
    )
    assert scene.found() == []


def test_what_an_agent_has_just_begun_with_is_no_finding(scene: Scene) -> None:
    scene.host.programs["mount.quobyte"] = lambda host, command: None
    with pytest.raises(Failed):
        scene.moorline.attachments.attach("g1", scene.connection(), timeout=0)
    assert scene.found() == ["not-as-wanted"]
    (row,) = scene.rows("vol-a")
    for tries, found in ((0, []), (1, ["not-as-wanted"])):
        scene.pending = [Pending(row.key, row.want, 0.0, tries, "", 1.0, True)]
        assert scene.found() == found


# --- the state itself


def test_the_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    assert examine(tmp_path) == []
    key = tmp_path / "key"
    key.touch(0o600)
    assert examine(tmp_path) == []
    key.chmod(0o640)
    (finding,) = examine(tmp_path)
    assert (finding.check, finding.next) == ("open-state", f"chmod 0600 {key}")


# --- who is to be stopped


@pytest.mark.parametrize(
    ("paused", "hands_off", "advice"),
    [
        (False, False, "moorline detach g1 vol-a"),
        (True, False, "virsh destroy g1"),
        (False, True, ToyHypervisor.stop_command.format("g1")),
    ],
)
def test_a_guest_is_to_be_stopped_only_where_a_detach_would_not_do(
    scene: Scene, paused: bool, hands_off: bool, advice: str
) -> None:
    """Paused it hears nothing, and what Nova plugs is not ours to take away."""
    scene.attach(level=Level.ATTACHED)
    (row,) = scene.rows("vol-a")
    if hands_off:
        scene.records.put(replace(row, hands_off=True, want=Level.CONNECTED))
    scene.world.guests[GuestId("g1")].lost.add(VolumeId("vol-a"))
    if paused:
        told = Finding("paused-guest", "g1", "g1 is paused", "see to it", "virsh resume g1")
        scene.inventory.findings = [told]
    found = {each.check: each.next for each in scene.moorline.maintenance.doctor().findings}
    assert found["stale-disk"] == advice
