"""Doctor, repair, abort, explain and adopt: what they decide, on a toy host."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rig import _CODEC

from moorline.api import Moorline
from moorline.backends.quobyte import Quobyte
from moorline.backlog import Pending
from moorline.discovery import Finding, GuestDisk
from moorline.doctor import Surroundings
from moorline.errors import Failed, NotFound, NotOurs, Refused, Unavailable
from moorline.host.fuse import FuseConnections
from moorline.host.state import examine
from moorline.journal import Journal
from moorline.lanes import Lanes
from moorline.model import Attachment, DiskOptions, GuestId, Level, VolumeId
from moorline.ports import Command, Mount
from moorline.reconciler import Reconciler
from moorline.records import Records
from moorline.testing.faults import Fault, Faults, Killed
from moorline.testing.toy_host import ToyHost, ToyShare
from moorline.testing.toys import MemoryStore, ToyGuest, ToyHypervisor, ToyWorld

FILES = frozenset({"a", "b"})


def mount_quobyte(host: ToyHost, command: Command) -> None:
    share, at = command.argv[2:4]
    host.mount(f"quobyte@{share}", at, "fuse.quobyte", ToyShare(files=FILES))


class ToyInventory:
    """What the toy's guests show, and what they were marked with."""

    def __init__(self) -> None:
        self.all: dict[str, list[GuestDisk]] = {}
        self.error: Exception | None = None

    def disks(self, guest: GuestId) -> Sequence[GuestDisk]:
        return self.all.get(guest, [])

    def mark(self, guest: GuestId, device: str, volume: VolumeId) -> None:
        self.all[guest] = [
            replace(disk, mark=volume) if disk.device == device else disk
            for disk in self.all[guest]
        ]

    def diagnose(self, places: Sequence[Path]) -> Sequence[Finding]:
        if self.error:
            raise self.error
        return []

    def facts(self) -> Mapping[str, str]:
        return {"toy": "1.0"}


class Scene:
    def __init__(self, directory: Path) -> None:
        (directory / "mnt").mkdir()
        self.base = directory / "mnt"
        self.host = ToyHost({"mount.quobyte": mount_quobyte})
        self.faults = Faults()
        self.world = ToyWorld()
        self.world.guests = {GuestId(name): ToyGuest(name) for name in ("g1", "g2")}
        self.inventory = ToyInventory()
        self.connections = directory / "fuse"
        backends = {"quobyte": Quobyte(self.host, mount_point_base=self.base)}
        journal = Journal(directory)
        self.records = records = Records(MemoryStore(self.faults), _CODEC, "h1", journal.noted)
        hypervisor = ToyHypervisor(self.world)
        self.moorline = Moorline(
            records,
            Reconciler(records, backends, hypervisor, Lanes(), journal.took),
            hypervisor,
            around=Surroundings(
                backends,
                self.host.mounts,
                FuseConnections(self.connections),
                self.inventory,
                journal,
                list,
            ),
        )

    def connection(self, name: str = "a") -> dict[str, Any]:
        data = {"export": "reg/vol", "name": name, "format": "raw", "volume_id": f"vol-{name}"}
        return {"driver_volume_type": "quobyte", "data": data}

    def attach(self, name: str = "a", guest: str = "g1", level: Level = Level.CONNECTED) -> str:
        self.moorline.attach(guest, self.connection(name), level=level)
        return self.link()

    def rows(self, volume: str) -> list[Attachment]:
        return [row for row in self.records.all() if row.key.volume == volume]

    def link(self) -> str:
        return self.host.table[-1].target

    def found(self) -> list[str]:
        return [finding.check for finding in self.moorline.doctor().findings]

    def connection_of(self, mount: Mount) -> Path:
        """The kernel's control of a mount's connection."""
        file = self.connections / mount.device.partition(":")[2] / "abort"
        file.parent.mkdir(parents=True)
        file.touch()
        return file


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    client = tmp_path / "bin/mount.quobyte"
    client.parent.mkdir()
    client.touch(0o755)
    monkeypatch.setenv("PATH", str(client.parent))
    return Scene(tmp_path)


def test_nothing_is_found_where_all_is_well(scene: Scene) -> None:
    assert scene.found() == []
    scene.attach()
    diagnosis = scene.moorline.doctor()
    assert diagnosis.findings == []
    assert diagnosis.facts["toy"] == "1.0"


# --- links


def test_a_link_is_leaked_only_if_nobody_needs_it(scene: Scene) -> None:
    link = scene.attach()
    scene.moorline.release("g1", "vol-a")
    assert scene.found() == ["leaked-link"]
    scene.world.guests[GuestId("g2")].running = False
    scene.world.guests[GuestId("g2")].foreign.add(f"{link}/b")
    assert scene.found() == ["unmanaged-disk"]
    assert scene.moorline.repair() == []
    scene.world.guests[GuestId("g2")].foreign.clear()
    (made,) = scene.moorline.repair()
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
    (finding,) = scene.moorline.doctor().findings
    assert finding.next == f"moorline abort {link} --dry-run"


def test_unknown_means_in_use(scene: Scene) -> None:
    scene.attach()
    scene.moorline.release("g1", "vol-a")
    scene.world.blind = True
    assert scene.found() == ["no-hypervisor"]
    with pytest.raises(Unavailable):
        scene.moorline.repair()
    assert scene.host.table


def test_a_repair_that_fails_says_so_and_does_not_stop_the_next(scene: Scene) -> None:
    scene.attach()
    scene.moorline.release("g1", "vol-a")
    (scene.base / "other-0123456789abcdef").mkdir()
    scene.host.users = ["fio (7)"]
    failed, made = scene.moorline.repair()
    assert "in use by fio (7)" in failed.problem
    assert (made.action, made.done) == ("remove", True)


def test_what_others_have_in_the_directory_is_left_alone(scene: Scene) -> None:
    nova = scene.base / "0123456789abcdef0123456789abcdef"
    nova.mkdir()
    scene.host.mount("quobyte@reg/vol", str(nova), "fuse.quobyte", ToyShare())
    scene.host.mount("x", str(scene.base / "x-0123456789abcdef"), "tmpfs", ToyShare())
    assert scene.found() == []
    assert scene.moorline.repair() == []


def test_files_beneath_a_mount_point_are_told_and_never_touched(scene: Scene) -> None:
    at = scene.base / "vol-0123456789abcdef"
    at.mkdir()
    (at / "precious").touch()
    assert scene.found() == ["written-beneath"]
    assert scene.moorline.repair() == []
    assert (at / "precious").exists()


def test_a_client_that_is_missing_is_told_where_it_is_needed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert scene.found() == []
    scene.attach()
    assert scene.found() == ["missing-client"]


# --- disks and wishes


def test_a_disk_that_nobody_wished_goes_only_when_told(scene: Scene) -> None:
    guest = scene.world.guests[GuestId("g1")]
    guest.running = False
    guest.defined[VolumeId("v9")] = "/elsewhere/x"
    assert scene.found() == ["unwished-disk"]
    assert scene.moorline.repair() == []
    (due,) = scene.moorline.repair(disks=True, dry_run=True)
    assert (due.action, due.subject, due.done) == ("detach", "g1/v9", False)
    assert guest.defined
    assert [made.done for made in scene.moorline.repair(disks=True)] == [True]
    assert scene.found() == []


def test_a_wish_for_a_guest_that_is_gone(scene: Scene) -> None:
    scene.attach()
    del scene.world.guests[GuestId("g1")]
    (finding,) = scene.moorline.doctor().findings
    assert (finding.check, finding.next) == ("lost-guest", "moorline detach g1 vol-a")
    scene.moorline.detach("g1", "vol-a")
    assert scene.found() == []


def test_a_guest_that_somebody_else_will_define_is_not_lost(scene: Scene) -> None:
    guest = "01234567-89ab-cdef-0123-456789abcdef"
    scene.moorline.attach(guest, scene.connection(), level=Level.CONNECTED, hands_off=True)
    assert scene.found() == []


def test_what_an_agent_has_just_begun_with_is_no_finding(scene: Scene) -> None:
    scene.host.programs["mount.quobyte"] = lambda host, command: None
    with pytest.raises(Failed):
        scene.moorline.attach("g1", scene.connection(), timeout=0)
    assert scene.found() == ["not-as-wished"]
    (row,) = scene.rows("vol-a")
    for tries, found in ((0, []), (1, ["not-as-wished"])):
        pending = Pending(row.key, row.want, 0.0, tries, "", 1.0, True)
        scene.moorline.pending = lambda pending=pending: [pending]
        assert scene.found() == found


# --- shares that are dead or hang


def test_a_dead_share_names_who_must_stop(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    scene.host.share(link).error = errno.ENOTCONN
    (finding,) = scene.moorline.doctor().findings
    assert finding.check == "dead-share"
    assert "stop its users first: g1" in finding.what
    scene.world.guests[GuestId("g1")].running = False
    assert scene.found() == ["not-as-wished"]


@pytest.mark.parametrize("wished", [True, False])
def test_a_share_that_hangs_can_be_aborted(scene: Scene, wished: bool) -> None:
    link = scene.attach()
    if not wished:
        scene.moorline.release("g1", "vol-a")
    control = scene.connection_of(scene.host.table[-1])
    with pytest.raises(Refused, match="does not hang"):
        scene.moorline.abort(link)
    scene.host.share(link).hangs = True
    assert scene.found() == ["hung-share"]
    assert scene.moorline.repair() == []
    assert not scene.moorline.abort(link, dry_run=True).done
    assert control.read_text() == ""
    assert scene.moorline.abort(link).done
    assert control.read_text() == "1"


def test_a_share_is_not_aborted_under_a_running_guest(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    control = scene.connection_of(scene.host.table[-1])
    scene.host.share(link).hangs = True
    with pytest.raises(Refused, match="g1 runs on"):
        scene.moorline.abort(link)
    scene.world.blind = True
    with pytest.raises(Refused, match="cannot be told which guests run"):
        scene.moorline.abort(link)
    assert control.read_text() == ""
    assert scene.moorline.abort(link, force=True).done


def test_only_links_of_ours_that_are_fuse_are_aborted(scene: Scene) -> None:
    with pytest.raises(NotFound):
        scene.moorline.abort("/nothing/here")
    scene.host.mount("server:/x", "/nfs", "nfs4", ToyShare(hangs=True))
    with pytest.raises(Refused, match="only FUSE"):
        scene.moorline.abort("/nfs")
    scene.host.mount("sshfs", "/home/me/there", "fuse.sshfs", ToyShare(hangs=True))
    with pytest.raises(NotOurs):
        scene.moorline.abort("/home/me/there", force=True)
    link = scene.attach()
    scene.host.share(link).hangs = True
    with pytest.raises(Refused, match="mount -t fusectl"):
        scene.moorline.abort(link)


# --- explain


def test_what_is_as_wished_needs_no_explanation(scene: Scene) -> None:
    scene.attach()
    (told,) = scene.moorline.explain("vol-a")
    assert (told.step, told.next, told.since, told.due) == ("nothing", "", 0.0, None)
    assert [(e.step, e.outcome) for e in told.tried] == [("connect", "done")]


def test_explain_tells_what_waits_since_when_and_what_the_agent_does(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    scene.attach("b", "g2")
    scene.host.share(link).hangs = True
    (row,) = scene.rows("vol-a")
    scene.moorline.pending = lambda: [Pending(row.key, row.want, 8.0, 3, "it hangs", 60.0, False)]
    (told,) = scene.moorline.explain("vol-a")
    assert (told.step, told.tries, told.due) == ("wait", 3, 8.0)
    assert "does not answer" in told.waits_for
    assert told.held_by == ["g1", "vol-b on g2"]
    assert told.next == f"moorline abort {link} --dry-run"
    assert 59 < time.time() - told.since < 70


def test_without_an_agent_the_journal_tells_since_when(scene: Scene) -> None:
    link = scene.attach()
    scene.moorline.release("g1", "vol-a")
    scene.moorline.repair()
    scene.host.programs["mount.quobyte"] = lambda host, command: None
    for _ in range(2):
        with pytest.raises(Failed):
            scene.moorline.attach("g1", scene.connection(), level=Level.CONNECTED, timeout=0)
    (told,) = scene.moorline.explain("vol-a")
    first, _ = scene.moorline.events(volume="vol-a")[-2:]
    assert (told.step, told.tries, told.since) == ("connect", 2, first.at)
    assert f"nothing is mounted at {link}" in told.waits_for


def test_explain_of_what_is_not_known(scene: Scene) -> None:
    with pytest.raises(NotFound):
        scene.moorline.explain("nope")


# --- adopt


def disk(path: str, **more: Any) -> GuestDisk:
    values = {
        "device": "vdc",
        "path": path,
        "format": "raw",
        "bus": "virtio",
        "mark": "",
        "serial": "",
        "readonly": False,
        "shared": False,
        "running": False,
        "defined": True,
    }
    return GuestDisk(**{**values, **more})


@pytest.fixture
def link(scene: Scene) -> str:
    """A link that is there for another volume's sake."""
    return scene.attach("b", "g2")


def plug(scene: Scene, path: str, **more: Any) -> None:
    scene.inventory.all["g1"] = [disk(path, **more)]
    guest = scene.world.guests[GuestId("g1")]
    guest.running = bool(more.get("running"))
    for half in (guest.live, guest.defined) if guest.running else (guest.defined,):
        half[VolumeId("vol-a")] = path


def test_a_marked_disk_is_adopted_as_it_is(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", mark="vol-a", running=True, readonly=True)
    effects = scene.world.faults.count
    assert scene.moorline.adopt("g1", scene.connection(), dry_run=True).steps == ["adopt"]
    assert "unwished-disk" in scene.found()
    adoption = scene.moorline.adopt("g1", scene.connection(), target="vdc")
    assert (adoption.steps, adoption.view.seen) == (["adopt"], "attached")
    (row,) = scene.rows("vol-a")
    assert row.options == DiskOptions("virtio", "vdc", readonly=True)
    assert scene.moorline.adopt("g1", scene.connection()).steps == []
    assert scene.found() == []
    assert scene.world.faults.count == effects, "neither disk nor mount was touched"


def test_a_disk_without_a_mark_gets_it_while_the_guest_is_stopped(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", running=True)
    with pytest.raises(Refused, match="running guest's disk cannot"):
        scene.moorline.adopt("g1", scene.connection())
    plug(scene, f"{link}/a")
    assert scene.moorline.adopt("g1", scene.connection()).steps == ["mark", "adopt"]
    assert scene.inventory.all["g1"][0].mark == "vol-a"


def test_what_nova_goes_on_plugging_needs_no_mark(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", running=True, readonly=True)
    guest = "01234567-89ab-cdef-0123-456789abcdef"
    scene.inventory.all[guest] = scene.inventory.all.pop("g1")
    scene.world.guests[GuestId(guest)] = scene.world.guests.pop(GuestId("g1"))
    adoption = scene.moorline.adopt("g1", scene.connection(), hands_off=True)
    assert (adoption.steps, adoption.view.wanted) == (["adopt"], "connected")
    # What Nova's driver asks for later is the same wish.
    again = scene.moorline.attach(guest, scene.connection(), level=Level.CONNECTED, hands_off=True)
    assert again.steps == []
    assert scene.found() == []


def test_an_adoption_that_is_cut_short_can_be_repeated(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a")
    scene.faults.plan((0, Fault.KILL_BEFORE))
    with pytest.raises(Killed):
        scene.moorline.adopt("g1", scene.connection())
    assert scene.inventory.all["g1"][0].mark == "vol-a"
    assert scene.rows("vol-a") == []
    assert scene.moorline.adopt("g1", scene.connection()).steps == ["adopt"]


@pytest.mark.parametrize(
    ("more", "target", "why"),
    [
        ({"format": "qcow2"}, "", "is used as qcow2"),
        ({"mark": "another"}, "", "bears the mark of volume another"),
        ({}, "vdb", "is vdc, not vdb"),
        ({"path": "/elsewhere/z"}, "", "has no disk"),
        ({"path": "/elsewhere/a"}, "", "has no disk"),
    ],
)
def test_what_is_not_that_disk_is_refused(
    scene: Scene, link: str, more: dict[str, Any], target: str, why: str
) -> None:
    plug(scene, **{"path": f"{link}/a", **more})
    with pytest.raises(Refused, match=why):
        scene.moorline.adopt("g1", scene.connection(), target=target)
    assert scene.rows("vol-a") == []


def test_on_a_mount_that_is_not_ours_the_option_is_told(scene: Scene, link: str) -> None:
    scene.host.mount("quobyte@reg/vol", "/nova/mnt/5c37", "fuse.quobyte", ToyShare(files=FILES))
    plug(scene, "/nova/mnt/5c37/a", mark="vol-a")
    with pytest.raises(Refused, match="set quobyte_mounted = reg/vol=/nova/mnt/5c37"):
        scene.moorline.adopt("g1", scene.connection())
    (candidate,) = scene.moorline.disks("g1")
    assert (candidate.backend, candidate.wished) == ("quobyte", False)


def test_the_serial_is_the_volume_s_id_where_nothing_else_is(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", serial="vol-a")
    connection = scene.connection()
    del connection["data"]["volume_id"]
    assert scene.moorline.adopt("g1", connection).view.volume == "vol-a"


def test_what_cannot_be_looked_at_can_be_released(scene: Scene, link: str) -> None:
    scene.world.blind = True
    assert scene.moorline.release("g2", "vol-b").view.seen == "unknown"
    assert scene.rows("vol-b") == []


def test_release_leaves_disk_and_link(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", mark="vol-a")
    scene.moorline.adopt("g1", scene.connection())
    assert scene.moorline.release("g1", "vol-a", dry_run=True).steps == ["release"]
    assert scene.rows("vol-a")
    scene.moorline.release("g1", "vol-a")
    assert scene.world.guests[GuestId("g1")].defined
    assert scene.link() == link
    with pytest.raises(NotFound):
        scene.moorline.release("g1", "vol-a")
    told = [(e.message, e.outcome) for e in scene.moorline.events(volume="vol-a")]
    assert told == [("adopted", "seen"), ("released", "seen")]


# --- the state itself


def test_the_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    assert examine(tmp_path) == []
    key = tmp_path / "key"
    key.touch(0o600)
    assert examine(tmp_path) == []
    key.chmod(0o640)
    (finding,) = examine(tmp_path)
    assert (finding.check, finding.next) == ("open-state", f"chmod 0600 {key}")
