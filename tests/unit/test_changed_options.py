"""Options say where new links go. A link that is there stays where it is, and is undone there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.api import Moorline
from moorline.backends.mounted import GlusterFs, Gpfs, Mounted, Nfs, Smbfs
from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte
from moorline.backends.virtuozzo import FileOrPloop, Virtuozzo
from moorline.backends.virtuozzo_settings import MountSettings
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Failed, NotOurs, Refused
from moorline.model import GuestId, Level, LinkName
from moorline.ports import Command, Output
from moorline.testing.toy_host import ToyHost, ToyShare
from moorline.testing.toys import ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig

DISK = "disk"
_SETTINGS = MountSettings(user="nobody", group="root", permissions="0777", log="")
_FSTYPES = {
    "mount.quobyte": "fuse.quobyte",
    "mount.nfs": "nfs4",
    "mount.cifs": "cifs",
    "mount.glusterfs": "fuse.glusterfs",
    "vstorage-mount": "fuse.vstorage",
}
KINDS: Mapping[str, tuple[str, str]] = {
    "quobyte": ("reg1/vol", "raw"),
    "nfs": ("nas:/v", "raw"),
    "smbfs": ("//nas/v", "raw"),
    "glusterfs": ("g1:/v", "raw"),
    "vzstorage": ("clu", "raw"),
    "ploop": ("clu", "ploop"),
}
"""A share of each, and the format of its images."""
FILES = [kind for kind in KINDS if kind != "ploop"]
"""Those whose link is the mount. A ploop image's is its device, whatever the options say."""


class Scene:
    """One guest, and a host on which whoever comes next can have other options."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = "vzstorage" if kind == "ploop" else kind
        self.share, self.format = KINDS[kind]
        self.directory = directory
        self.rig = Rig("g1")
        self.guest = self.rig.world.guests[GuestId("g1")]
        self.guest.running = False
        self.devices: dict[str, str] = {}
        """Images by their ploop devices."""
        programs: dict[str, Any] = dict.fromkeys(_FSTYPES, self._mount)
        self.host = ToyHost({**programs, "ploop": self._ploop, "vstorage": lambda *_: None})

    def moorline(self, base: str, **options: Any) -> Moorline:
        at = self.directory / base
        backend: Any
        if self.kind == "quobyte":
            backend = Mounter(self.host, Quobyte(), at, **options)
        elif self.kind == "vzstorage":
            backend = self._virtuozzo(at, **options)
        else:
            kinds: dict[str, type[Mounted]] = {c.kind: c for c in (Nfs, Smbfs, GlusterFs)}
            backend = Mounter(self.host, kinds[self.kind](), at, **options)
        hypervisor = ToyHypervisor(self.rig.world)
        backends = {self.kind: backend}
        reconciler = Reconciler(self.rig.records, backends, hypervisor, Locks(patience=1.0))
        return Moorline(self.rig.records, reconciler, hypervisor, environment=bare())

    def _virtuozzo(self, at: Path, **options: Any) -> FileOrPloop:
        commands = self.host.programs.get
        names = self.directory / "dev"
        virtuozzo = Virtuozzo(_SETTINGS, configuration=self.directory / "etc", has_command=commands)
        return virtuozzo.on(self.host, mount_point_base=at, ploop_names=names, **options)

    def attach(self, moorline: Moorline, level: Level = Level.ATTACHED) -> None:
        data = {"export": self.share, "name": DISK, "format": self.format, "volume_id": "v1"}
        connection = {"driver_volume_type": self.kind, "data": data}
        moorline.attachments.attach("g1", connection, level=level, timeout=0)

    def mounted(self) -> list[str]:
        return [mount.target for mount in self.host.table]

    def operator_mounts(self) -> Path:
        at = self.directory / "operator"
        at.mkdir(exist_ok=True)
        if str(at) not in self.mounted():
            client = next(c for c in _FSTYPES if self._client() in c)
            self.host.run(Command((client, *self._order(str(at))), 1.0))
        return at

    def nothing_of_ours(self) -> bool:
        ours = [path for path in self.mounted() if path != str(self.directory / "operator")]
        left = [path for base in ("old", "new") for path in (self.directory / base).glob("*")]
        return not (ours or left or self.devices or self.guest.defined or self.rig.records.all())

    def _client(self) -> str:
        return {"vzstorage": "vstorage", "smbfs": "cifs"}.get(self.kind, self.kind)

    def _order(self, at: str) -> tuple[str, ...]:
        return ("-c", self.share, at) if self.kind == "vzstorage" else (self.share, at)

    def _mount(self, host: ToyHost, command: Command) -> None:
        fstype = _FSTYPES[command.argv[0]]
        words = [word for word in command.argv[1:] if not word.startswith("-")]
        source = {"fuse.quobyte": f"quobyte@{words[0]}", "fuse.vstorage": f"vstorage://{words[0]}"}
        files = frozenset({DISK})
        host.mount(source.get(fstype, words[0]), words[1], fstype, ToyShare(files=files))

    def _ploop(self, host: ToyHost, command: Command) -> Output | None:
        verb, *words = command.argv[1:]
        if verb == "list":
            rows = (f"{device} {image}/root.hds x" for device, image in self.devices.items())
            return Output("\n".join(rows), "")
        if verb == "mount":
            self.devices["ploop1"] = str(Path(words[0]).parent)
        else:
            del self.devices[words[1].removeprefix("/dev/")]
        return None


@pytest.fixture(params=KINDS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return Scene(request.param, tmp_path)


def test_a_detach_undoes_what_was_made_by_other_options(scene: Scene) -> None:
    scene.attach(scene.moorline("old"))
    assert scene.guest.defined
    assert scene.mounted()
    scene.moorline("new").attachments.detach("g1", "v1", timeout=0)
    assert scene.nothing_of_ours()


def test_a_sweep_takes_down_what_was_dropped_before_the_options_changed(scene: Scene) -> None:
    scene.attach(scene.moorline("old"))
    scene.host.users = ["tar (7)"]
    with pytest.raises(Failed):
        scene.moorline("old").attachments.detach("g1", "v1", timeout=0)
    assert scene.mounted()
    scene.host.users = []
    assert scene.moorline("new").attachments.sweep() == []
    assert scene.nothing_of_ours()


def test_what_is_wanted_still_is_served_where_its_guest_names_it(scene: Scene) -> None:
    """A reboot takes the mounts, and the guest's definition names the old path."""
    scene.attach(scene.moorline("old"))
    there, named = scene.mounted(), dict(scene.guest.defined)
    scene.host.table.clear()
    scene.devices.clear()
    moorline = scene.moorline("new")
    assert moorline.attachments.sweep() == []
    assert scene.guest.defined == named
    if scene.format == "ploop":  # a guest names the device: its mount may be elsewhere now
        moorline.attachments.detach("g1", "v1", timeout=0)
        assert (scene.mounted(), scene.devices, scene.guest.defined) == ([], {}, {})
        return
    assert scene.mounted() == there
    moorline.attachments.detach("g1", "v1", timeout=0)
    assert scene.nothing_of_ours()


def test_what_the_operator_mounts_now_was_ours_to_unmount(scene: Scene) -> None:
    scene.attach(scene.moorline("old"))
    given = {scene.share: scene.operator_mounts()}
    scene.moorline("old", given=given).attachments.detach("g1", "v1", timeout=0)
    assert scene.nothing_of_ours()
    assert scene.mounted() == [str(given[scene.share])]


def test_what_the_operator_mounted_is_left_to_him_by_any_options(scene: Scene) -> None:
    given = {scene.share: scene.operator_mounts()}
    scene.attach(scene.moorline("old", given=given))
    scene.moorline("old").attachments.detach("g1", "v1", timeout=0)
    assert scene.nothing_of_ours()
    assert scene.mounted() == [str(given[scene.share])]


@pytest.mark.parametrize("scene", FILES, indirect=True)
def test_what_is_mounted_at_the_old_place_now_is_left_alone(scene: Scene) -> None:
    scene.attach(scene.moorline("old"), Level.CONNECTED)
    (at,) = scene.mounted()
    scene.host.unmount(at)
    scene.host.mount("tmpfs", at, "tmpfs", ToyShare())
    with pytest.raises(NotOurs):
        scene.moorline("new").attachments.detach("g1", "v1", timeout=0)
    assert scene.mounted() == [at]


def test_an_image_on_gpfs_lies_where_it_lay() -> None:
    narrow = Gpfs.from_options(ToyHost(), {"gpfs_mount_point_base": "/gpfs/fs1/cinder, /gpfs/fs1"})
    data = {"name": DISK, "device_path": "/gpfs/fs1/cinder/disk"}
    c = narrow.parse({"driver_volume_type": "gpfs", "data": data})
    there = narrow.at(c, LinkName("/gpfs/fs1"))
    assert (narrow.link_name(there), there.name) == ("/gpfs/fs1", "cinder/disk")
    with pytest.raises(Refused, match="is not beneath /gpfs/fs2"):
        narrow.at(c, LinkName("/gpfs/fs2"))


def test_a_changed_mount_base_does_not_leak_the_old_link() -> None:
    rig = Rig("g1")
    rig.world.guests[GuestId("g1")].running = False
    rig.attachment("a", "g1", Level.ATTACHED)
    (row,) = rig.records.all()
    rig.records.put(replace(row, link=LinkName("/old/s1")))  # of before an option was changed
    assert rig.owner().attachments.sweep() == []
    assert rig.world.mounts == {"/old/s1": "s1"}
    outcome = rig.owner().attachments.detach("g1", "a")
    assert outcome is not None
    assert outcome.steps == ["detach", "disconnect", "forget"]
    assert (rig.world.mounts, rig.world.violations) == ({}, [])
