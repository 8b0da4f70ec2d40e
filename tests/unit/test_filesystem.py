"""The recipe for mounted file systems, where the moment matters, on a host in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte, QuobyteFile
from moorline.errors import Busy, Failed, NotOurs, Uncertain
from moorline.model import Broken, Foreign, Linked, Unknown, Unlinked
from moorline.ports import Command, Mount, Root
from moorline.testing.toy_host import ToyHost, ToyShare

CONNECTION = {
    "driver_volume_type": "quobyte",
    "data": {"export": "reg1/vol", "name": "volume-1", "format": "raw"},
}


@dataclass
class ScriptedHost(ToyHost):
    """A toy host on which something happens just before it is asked something."""

    script: dict[str, list[Callable[[], None]]] = field(default_factory=dict)

    def before(self, question: str, *events: Callable[[], None]) -> None:
        """Let the n-th event happen before the n-th *question* from now on."""
        self.script[question] = list(events)

    def _now(self, question: str) -> None:
        if events := self.script.get(question):
            events.pop(0)()

    def mounts(self) -> Sequence[Mount]:
        self._now("mounts")
        return super().mounts()

    def held(self, hold: Path) -> bool:
        self._now("held")
        return super().held(hold)

    def root(self, path: Path, *, list: bool = False) -> Root:
        self._now("root")
        return super().root(path, list=list)


@dataclass
class Stage:
    host: ScriptedHost
    backend: Mounter[QuobyteFile]
    connection: QuobyteFile
    at: str

    @property
    def hold(self) -> Path:
        return Path(f"{self.at}.lock")

    def mount(self) -> None:
        files = frozenset({"volume-1"})
        self.host.mount("quobyte@reg1/vol", self.at, "fuse.quobyte", ToyShare(files=files))

    def unmount(self) -> None:
        self.host.unmount(self.at)

    def serve(self, client: Callable[[], None]) -> None:
        def program(host: ToyHost, command: Command) -> None:
            client()

        self.host.programs["mount.quobyte"] = program

    def tree(self) -> list[str]:
        return sorted(path.name for path in Path(self.at).parent.iterdir())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    host = ScriptedHost()
    backend = Mounter(host, Quobyte(), tmp_path / "mnt")
    (tmp_path / "mnt").mkdir()
    connection = backend.parse(CONNECTION)
    stage = Stage(host, backend, connection, backend.link_name(connection))
    stage.serve(stage.mount)
    return stage


def fails(*args: str) -> Callable[[ToyHost, Command], None]:
    def program(host: ToyHost, command: Command) -> None:
        raise Failed(*args)

    return program


# --- looking ---


def test_a_mount_that_appears_while_beneath_is_looked_at_is_not_taken_for_dirt(
    stage: Stage,
) -> None:
    # Another guest's attachment mounts the same share just now.
    def appear() -> None:
        stage.mount()
        stage.host.share(stage.at).error = errno.ENOTDIR

    stage.host.before("root", appear)
    link = stage.backend.inspect(stage.connection)
    assert isinstance(link, Unknown)


def test_dirt_is_told_only_if_nothing_is_mounted_after_the_look(stage: Stage) -> None:
    Path(stage.at).mkdir()
    Path(stage.at, "volume-1").touch()
    stage.host.before("mounts", lambda: None, stage.mount)
    assert isinstance(stage.backend.inspect(stage.connection), Unknown)
    stage.unmount()
    assert isinstance(stage.backend.inspect(stage.connection), Foreign)


def test_a_mount_that_vanishes_while_it_is_looked_at_is_not_broken(stage: Stage) -> None:
    stage.mount()
    stage.host.before("root", stage.unmount)
    assert isinstance(stage.backend.inspect(stage.connection), Unknown)
    assert isinstance(stage.backend.inspect(stage.connection), Unlinked)


def test_a_command_in_flight_is_unknown_until_it_mounts(stage: Stage) -> None:
    stage.host.holds.add(stage.hold)
    stage.host.users = ["mount.quobyte (42)"]
    link = stage.backend.inspect(stage.connection)
    assert isinstance(link, Unknown)
    assert link.reason.endswith("still runs: mount.quobyte (42)")
    stage.mount()
    assert isinstance(stage.backend.inspect(stage.connection), Linked), "a daemon holds it, too"


def test_a_client_that_serves_elsewhere_keeps_nobody_waiting(stage: Stage) -> None:
    stage.backend.connect(stage.connection)
    stage.host.holds.add(stage.hold)
    stage.unmount()
    assert isinstance(stage.backend.inspect(stage.connection), Unknown)
    with pytest.raises(Uncertain):
        stage.backend.clear(stage.backend.link_name(stage.connection))
    stage.host.serving.add(stage.hold)
    assert stage.backend.inspect(stage.connection) == Unlinked()
    stage.backend.connect(stage.connection)
    assert isinstance(stage.backend.inspect(stage.connection), Linked)
    assert stage.host.holds == set(), "the new command has a file of its own"
    stage.backend.disconnect(stage.connection)
    assert stage.tree() == []


def test_a_mount_point_that_another_namespace_has_stays(stage: Stage) -> None:
    stage.backend.connect(stage.connection)
    stage.host.namespaces = ["exporter (7)"]
    stage.backend.disconnect(stage.connection)
    assert stage.tree() == [Path(stage.at).name]
    (found,) = stage.backend.links()
    assert (found.ill, found.elsewhere) == (Unlinked(), ("exporter (7)",))
    stage.host.namespaces = []
    (found,) = stage.backend.links()
    assert (found.ill, found.elsewhere) == (Unlinked(), ())
    stage.backend.clear(found.link)
    assert stage.tree() == []


def test_a_mount_that_is_hidden_is_not_trusted(stage: Stage, tmp_path: Path) -> None:
    stage.mount()
    stage.host.table[-1] = Mount(1, "quobyte@reg1/vol", stage.at, "fuse.quobyte", "0:99", True)
    link = stage.backend.inspect(stage.connection)
    assert isinstance(link, Unknown)
    assert "does not lead to" in link.reason


@pytest.mark.parametrize(
    "error", [errno.ENOTCONN, errno.EIO, errno.ESTALE, errno.ECONNABORTED, errno.EACCES]
)
def test_errors_of_the_root_are_broken(stage: Stage, error: int) -> None:
    stage.mount()
    stage.host.share(stage.at).error = error
    link = stage.backend.inspect(stage.connection)
    assert isinstance(link, Broken)
    assert os.strerror(error) in link.reason


def test_a_root_of_another_size_is_broken(stage: Stage) -> None:
    stage.mount()
    stage.host.share(stage.at).size = 4096
    assert isinstance(stage.backend.inspect(stage.connection), Broken)


# --- connecting ---


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda stage: stage.unmount(), Failed),
        (lambda stage: setattr(stage.host.share(stage.at), "size", 4096), Failed),
        (lambda stage: setattr(stage.host.share(stage.at), "error", errno.ENOTCONN), Failed),
        (lambda stage: setattr(stage.host.share(stage.at), "hangs", True), Uncertain),
        (lambda stage: stage.host.change(stage.at, source="x", fstype="tmpfs"), NotOurs),
        (
            lambda stage: stage.host.change(
                stage.at, source="quobyte@reg1/other", fstype="fuse.quobyte"
            ),
            NotOurs,
        ),
    ],
)
def test_nova_defect_1_what_is_not_sound_after_mounting_is_no_success(
    stage: Stage, spoil: Callable[[Stage], None], error: type[Exception]
) -> None:
    def client() -> None:
        stage.mount()
        spoil(stage)

    stage.serve(client)
    with pytest.raises(error):
        stage.backend.connect(stage.connection)


def test_a_failed_command_leaves_no_mount_point(stage: Stage) -> None:
    stage.host.programs["mount.quobyte"] = fails("no route")
    with pytest.raises(Failed, match="no route"):
        stage.backend.connect(stage.connection)
    assert stage.tree() == []


def test_a_failed_command_that_still_runs_keeps_its_mount_point(stage: Stage) -> None:
    def client() -> None:
        stage.host.holds.add(stage.hold)
        raise Uncertain("it did not end")

    stage.serve(client)
    with pytest.raises(Uncertain):
        stage.backend.connect(stage.connection)
    assert Path(stage.at).is_dir()
    assert isinstance(stage.backend.inspect(stage.connection), Unknown)


def test_two_commands_at_once_are_refused_by_the_hold(stage: Stage) -> None:
    stage.host.before("root", lambda: stage.host.holds.add(stage.hold))
    with pytest.raises(Busy):
        stage.backend.connect(stage.connection)
    assert stage.host.table == []


def test_a_base_that_cannot_be_used_failed(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    backend = Mounter(stage.host, Quobyte(), tmp_path / "file")
    with pytest.raises((Failed, NotOurs)):
        backend.connect(stage.connection)
    assert stage.host.ran == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_mount_point_belongs_to_who_mounts(stage: Stage, tmp_path: Path) -> None:
    backend = Mounter(stage.host, Quobyte(), tmp_path / "mnt", user="nobody")
    backend.connect(stage.connection)
    st = Path(stage.at).stat()
    assert (st.st_uid, st.st_mode & 0o777) == (65534, 0o700)
    backend.disconnect(stage.connection)
    assert stage.tree() == []


def test_a_mount_point_left_by_a_crash_is_used(stage: Stage) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    stage.serve(killed)
    with pytest.raises(KeyboardInterrupt):
        stage.backend.connect(stage.connection)
    assert stage.tree() != []
    stage.serve(stage.mount)
    stage.backend.connect(stage.connection)
    stage.backend.disconnect(stage.connection)
    assert stage.tree() == []


# --- disconnecting ---


def test_nova_defect_3_busy_is_told_whatever_the_text(stage: Stage) -> None:
    stage.backend.connect(stage.connection)
    stage.host.users = ["qemu-system-x86 (42)"]
    for text in ("target is busy", "Device or resource busy", "Ressource belegt", ""):
        stage.host.programs["umount"] = fails(text)
        with pytest.raises(Failed, match=r"in use by qemu-system-x86 \(42\)"):
            stage.backend.disconnect(stage.connection)
    assert isinstance(stage.backend.inspect(stage.connection), Linked)


def test_a_umount_that_fails_after_it_worked_is_success(stage: Stage) -> None:
    def program(host: ToyHost, command: Command) -> None:
        stage.unmount()
        raise Failed("target is busy")

    stage.backend.connect(stage.connection)
    stage.host.programs["umount"] = program
    stage.backend.disconnect(stage.connection)
    assert stage.tree() == []


def test_a_umount_that_lies_is_not_believed(stage: Stage) -> None:
    stage.backend.connect(stage.connection)
    stage.host.programs["umount"] = lambda host, command: None
    with pytest.raises(Failed, match="still mounted"):
        stage.backend.disconnect(stage.connection)
    assert Path(stage.at).exists()


def test_a_daemon_that_does_not_end_is_told_afterwards(stage: Stage) -> None:
    stage.backend.connect(stage.connection)
    stage.host.holds.add(stage.hold)
    stage.backend.disconnect(stage.connection)
    link = stage.backend.inspect(stage.connection)
    assert isinstance(link, Unknown)
    assert "daemon" in link.reason


def test_stacked_mounts_keep_their_mount_point(stage: Stage) -> None:
    stage.backend.connect(stage.connection)
    stage.mount()
    stage.backend.disconnect(stage.connection)
    assert isinstance(stage.backend.inspect(stage.connection), Linked)
    stage.backend.disconnect(stage.connection)
    assert stage.tree() == []


def test_dirt_beneath_survives_a_disconnect(stage: Stage) -> None:
    Path(stage.at).mkdir()
    Path(stage.at, "volume-1").touch()
    stage.backend.disconnect(stage.connection)
    assert Path(stage.at, "volume-1").exists()
