"""Which of this host's own files and devices others than root may name, by a real socket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moorline.api import Moorline
from moorline.backends.allowed_directories import Directories
from moorline.backends.local import LocalFile
from moorline.backends.osbrick.protocols import Local
from moorline.care.environment import Environment
from moorline.care.eventlog import EventLog
from moorline.care.shared_files import SharedFiles
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Denied, Refused
from moorline.host.linux import Linux
from moorline.host.mount.fuse_abort import FuseConnections
from moorline.local_api.app import App
from moorline.local_api.client import Client
from moorline.local_api.peer import Rights
from moorline.model import Level
from moorline.testing.toys import ToyHypervisor
from tests.support.care_rig import ToyInventory, disk
from tests.support.peers import OURS, as_nobody, needs_root, reachable
from tests.support.rig import Rig
from tests.support.toy_machines import ToyLifecycle

RIGHTS = Rights(OURS)


class Host:
    """An agent's façade with files of its own: in the directory for others, and beside it."""

    def __init__(self, root: Path, named: tuple[Path, ...] = ()) -> None:
        self.images, self.elsewhere = root / "images", root / "srv"
        for directory in (self.images, self.elsewhere):
            directory.mkdir(exist_ok=True)
            (directory / "a.raw").write_bytes(bytes(4096))
        self.linux = Linux(look_deadline=5)
        directories = Directories(named, for_others=self.images)
        backends: Any = {
            "local": LocalFile(self.linux, state_dir=root / "state", directories=directories),
            "osbrick_local": Local(self.linux, root / "locks", directories=directories),
        }
        rig = Rig("g1", "g2")
        hypervisor = ToyHypervisor(rig.world)
        self.inventory = ToyInventory()
        self.rig = rig
        self.moorline = Moorline(
            rig.records,
            Reconciler(rig.records, backends, hypervisor, Locks()),
            hypervisor,
            ToyLifecycle(rig.world),
            environment=Environment(
                backends,
                self.linux.mounts,
                FuseConnections(root / "fuse"),
                self.inventory,
                EventLog(root),
                list,
                SharedFiles(self.linux).find,
                self.linux.size,
            ),
        )
        self.app = App(self.moorline, RIGHTS, {}, {})


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(os.path.realpath(directory))
        path.chmod(0o755)
        yield path


@pytest.fixture
def host(root: Path) -> Iterator[Host]:
    host = Host(root)
    yield host
    host.linux.close()


def file(path: Path, format: str = "raw") -> Mapping[str, Any]:
    return {"driver_volume_type": "local", "data": {"path": str(path), "format": format}}


def device(path: str) -> Mapping[str, Any]:
    return {"driver_volume_type": "osbrick_local", "data": {"device_path": path}}


Ask = Callable[[Client, Mapping[str, Any], Mapping[str, Any]], object]
WAYS: dict[str, Ask] = {
    "attach": lambda client, c, _: client.attachments.attach("g1", c),
    "connect": lambda client, c, _: client.attachments.attach("g1", c, level=Level.CONNECTED),
    "dry run": lambda client, c, _: client.attachments.attach("g1", c, dry_run=True),
    "launch from it": lambda client, c, _: client.guests.launch("new", c, start=False),
    "launch with it": lambda client, c, fine: client.guests.launch("n", fine, connections=[c]),
    "adopt": lambda client, c, _: client.maintenance.adopt("g1", c, dry_run=True),
}
"""How a client has a connection attached; the second is one that anybody may name."""


@needs_root
@pytest.mark.parametrize("way", WAYS)
def test_others_may_not_name_any_file(host: Host, way: str) -> None:
    host.inventory.all["g1"] = [disk(str(host.elsewhere / "a.raw"))]
    with reachable(host.app, RIGHTS) as path:
        client = Client(path, timeout=20)
        named = (file(host.elsewhere / "a.raw"), file(host.elsewhere / "none.raw"))
        for connection in (*named, file(Path("/dev/none")), device("/dev/none")):
            ask = partial(WAYS[way], client, connection, file(host.images / "a.raw"))
            assert as_nobody([OURS], ask) == "Denied"
    assert host.rig.records.all() == []


@needs_root
@pytest.mark.parametrize("by", ["path", "connection"])
def test_others_adopt_no_more_than_they_may_name(host: Host, by: str) -> None:
    places = [host.elsewhere / "a.raw", host.images / "a.raw"]
    host.inventory.all["g1"] = [
        disk(str(path), device=f"vd{letter}") for path, letter in zip(places, "bc", strict=True)
    ]
    rows = [{"connection_info": file(path)} for path in places]
    how: Any = {"local": True} if by == "path" else {"connections": rows}
    with reachable(host.app, RIGHTS) as path:
        client = Client(path, timeout=20)

        def outcomes() -> object:
            found = client.maintenance.adopt_all("g1", **how).disks
            return type("_".join(each.outcome for each in found), (), {})()

        assert as_nobody([OURS], outcomes) == "denied_adopted"
        assert type(outcomes()).__name__ == "adopted_kept", "root may"
        released = client.maintenance.release_all()
    assert sorted(each.outcome for each in released) == ["released", "released"]
    assert host.rig.records.all() == []


@needs_root
def test_others_may_name_those_of_the_default_and_root_any(host: Host) -> None:
    inside, outside = (str(d / "a.raw") for d in (host.images, host.elsewhere))
    with reachable(host.app, RIGHTS) as path:
        client = Client(path, timeout=20)
        attach = partial(client.attachments.attach, format="raw", level=Level.CONNECTED)
        assert as_nobody([OURS], lambda: attach("g1", inside)) == "Outcome"
        assert attach("g2", outside).steps == []
        # What root has attached they may take away: they need not be allowed to have it.
        assert as_nobody([OURS], lambda: client.attachments.detach("g2", outside)) == "Outcome"


@needs_root
def test_nothing_leads_out_of_the_directory(host: Host) -> None:
    (host.images / "linked").symlink_to(host.elsewhere)
    (host.images / "file.raw").symlink_to(host.elsewhere / "a.raw")
    with reachable(host.app, RIGHTS) as path:
        client = Client(path, timeout=20)
        for name in ("linked/a.raw", "file.raw", "../srv/a.raw"):
            typed = partial(client.attachments.attach, "g1", str(host.images / name), format="raw")
            given = partial(client.attachments.attach, "g1", file(host.images / name))
            for attach in (typed, given):
                assert as_nobody([OURS], attach) in ("Denied", "Refused"), name
    assert host.rig.records.all() == []


@needs_root
def test_the_option_says_it_for_everybody(root: Path) -> None:
    host = Host(root, (root / "srv",))
    inside, outside = (str(d / "a.raw") for d in (host.elsewhere, host.images))
    with reachable(host.app, RIGHTS) as path:
        client = Client(path, timeout=20)
        attach = partial(client.attachments.attach, format="raw", level=Level.CONNECTED)
        assert as_nobody([OURS], lambda: attach("g1", inside)) == "Outcome"
        assert as_nobody([OURS], lambda: attach("g2", outside)) == "Denied"
        for named in (file(host.images / "a.raw"), device("/dev/none")):
            with pytest.raises(Refused, match="not where local disks may lie"):
                client.attachments.attach("g2", named)
    host.linux.close()


@needs_root
def test_a_template_names_whatever_it_likes(host: Host) -> None:
    template = "<domain><os><kernel>/srv/secret</kernel></os></domain>"
    with reachable(host.app, RIGHTS) as path:
        client = Client(path, timeout=20)
        launch = partial(client.guests.launch, "new", file(host.images / "a.raw"), start=False)
        dressed = partial(launch, hardware={"template": template})
        assert as_nobody([OURS], dressed) == "Denied"
        assert as_nobody([OURS], launch) == "GuestOutcome"
        assert dressed().guest == "new"


def test_a_command_without_an_agent_is_root_s(host: Host) -> None:
    outside = str(host.elsewhere / "a.raw")
    assert host.moorline.attachments.attach("g1", outside, format="raw", dry_run=True).steps == [
        "attach"
    ]


def test_the_refusal_says_who_may(host: Host) -> None:
    with pytest.raises(Denied, match="not where this user's local disks may lie") as refused:
        Directories(for_others=host.images).demand_for_others(host.elsewhere / "a.raw")
    assert "local_directories" in refused.value.hint
