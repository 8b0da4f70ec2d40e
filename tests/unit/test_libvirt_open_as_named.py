"""A guest goes to another host only with the files that lie at its disks' paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from moorline.errors import Failed, Refused, Uncertain
from moorline.hypervisors.libvirt import open_as_named
from moorline.hypervisors.libvirt.domain_xml import parse
from moorline.hypervisors.libvirt.open_as_named import demand_as_named
from moorline.model import GuestId
from tests.support.qemu_process import NEW, OLD, PATH, ROOT, Qemu

GUEST = GuestId("01234567-89ab-cdef-0123-456789abcdef")
BASE = "/mnt/s/base"
DISK = f"<disk type='file' device='disk'><driver type='raw'/><source file='{PATH}'/>"
END = "<target dev='vdb'/></disk>"
PLAIN = f"{DISK}<backingStore/>{END}"
CHAIN = (
    f"{DISK}<backingStore type='file'><format type='raw'/><source file='{BASE}'/>"
    f"<backingStore/></backingStore>{END}"
)


@pytest.fixture
def qemu(tmp_path: Path) -> Qemu:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/web01.pid").write_text("7\n")
    qemu = Qemu(tmp_path)
    (tmp_path / "7/cmdline").write_bytes(f"qemu\0-uuid\0{GUEST}\0".encode())
    return qemu


class Files:
    """What is at the paths of a share, when somebody looks."""

    def __init__(self) -> None:
        self.errors: Mapping[str, Exception] = {}

    def measure(self, path: Path) -> int:
        if error := self.errors.get(str(path)):
            raise error
        return 1


@pytest.fixture
def demand(qemu: Qemu, files: Files) -> Callable[[str], None]:
    def demand(disks: str) -> None:
        half = parse(f"<domain id='1'><name>web01</name><devices>{disks}</devices></domain>")
        run = qemu.root / "run"
        places = dict.fromkeys
        demand_as_named(None, GUEST, half, files.measure, places, qemu.root, run)

    return demand


@pytest.fixture
def files() -> Files:
    return Files()


Demand = Callable[[str], None]


def test_what_is_open_by_its_name_may_go(qemu: Qemu, demand: Demand) -> None:
    qemu.open(9, PATH, 30)
    qemu.open(10, BASE, 30, flags="00")
    demand(PLAIN)
    demand(CHAIN)
    demand("<disk type='file' device='cdrom'><target dev='sda'/></disk>")
    demand("<disk type='block'><source dev='/dev/moorline/iscsi-1'/><target dev='vdc'/></disk>")
    demand("<disk type='network'><source protocol='rbd' name='p/i'/><target dev='vdc'/></disk>")


def test_a_disk_by_a_socket_keeps_its_guest(demand: Demand) -> None:
    for protocol in ("nbd", "gluster"):
        source = f"<source protocol='{protocol}' name='v'><host transport='unix' socket='/s'/>"
        with pytest.raises(Refused, match="web01 stays: its disk vdc is reached by a socket"):
            demand(f"<disk type='network'>{source}</source><target dev='vdc'/></disk>")


@pytest.mark.parametrize("name", [f"{PATH} (deleted)", "/mnt/s/old", "/another"])
def test_a_replaced_moved_or_deleted_file_keeps_its_guest(
    qemu: Qemu, demand: Demand, name: str
) -> None:
    """It bears no mark: whose disk it is makes no difference to what would be lost."""
    qemu.open(9, name, 30)
    with pytest.raises(Refused, match=f"web01 stays.*disk vdb: .*{PATH}") as told:
        demand(PLAIN)
    assert "virsh blockcopy web01 vdb" in told.value.hint


@pytest.mark.parametrize("name", [f"{BASE} (deleted)", "/mnt/s/old", None])
def test_so_does_one_beneath_a_disk(qemu: Qemu, demand: Demand, name: str | None) -> None:
    qemu.open(9, PATH, 30)
    if name:
        qemu.open(10, name, 30, flags="00")
    with pytest.raises(Refused, match=f"web01 stays.*disk vdb: .*{BASE}"):
        demand(CHAIN)


MIRROR = f"{DISK}<mirror type='file' job='copy'><source file='{BASE}'/></mirror>{END}"
DATA = (
    f"<disk type='file' device='disk'><source file='{PATH}'>"
    f"<dataStore type='file'><format type='raw'/><source file='{BASE}'/></dataStore></source>{END}"
)


@pytest.mark.parametrize("disk", [MIRROR, DATA])
def test_so_does_what_a_disk_is_copied_to_or_keeps_its_data_in(
    qemu: Qemu, demand: Demand, disk: str
) -> None:
    qemu.open(9, PATH, 30)
    qemu.open(10, BASE, 30)
    demand(disk)
    (qemu.root / "7/fd/10").unlink()
    qemu.open(10, f"{BASE} (deleted)", 30)
    with pytest.raises(Refused, match=f"web01 stays.*disk vdb: .*{BASE}"):
        demand(disk)


def test_so_does_the_volume_of_a_pool(
    qemu: Qemu, demand: Demand, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {("p", "v"): PATH}
    monkeypatch.setattr(
        open_as_named, "path_of_volume", lambda virt, pool, volume: paths[pool, volume]
    )
    disk = f"<disk type='volume' device='disk'><source pool='p' volume='v'/>{END}"
    qemu.open(9, PATH, 30)
    demand(disk)
    (qemu.root / "7/fd/9").unlink()
    qemu.open(9, f"{PATH} (deleted)", 30)
    with pytest.raises(Refused, match=f"web01 stays.*disk vdb: .*{PATH}"):
        demand(disk)


def test_so_does_a_file_that_is_not_there_whatever_it_is_called(
    qemu: Qemu, demand: Demand, files: Files
) -> None:
    """Another host took it away: the kernel goes on to call it so until somebody looks."""
    qemu.open(9, PATH, 30)
    files.errors = {PATH: FileNotFoundError()}
    with pytest.raises(Refused, match=f"not there any more at {PATH}"):
        demand(PLAIN)


@pytest.mark.parametrize("error", [Uncertain("no answer"), OSError(107, "not connected")])
def test_a_share_that_cannot_be_asked_keeps_its_guest(
    qemu: Qemu, demand: Demand, files: Files, error: Exception
) -> None:
    """Failed: nothing was begun. Uncertain would have it waited for."""
    qemu.open(9, PATH, 30)
    files.errors = {PATH: error}
    with pytest.raises(Failed, match=r"web01 stays.*vdb.*(no answer|not connected)"):
        demand(PLAIN)


def test_a_mount_that_is_no_more_or_covered_keeps_its_guest(qemu: Qemu, demand: Demand) -> None:
    qemu.open(9, PATH, 30)
    qemu.see(ours=ROOT + OLD + NEW, theirs=ROOT + OLD)
    with pytest.raises(Refused, match=r"web01 stays.*vdb"):
        demand(PLAIN)


def test_a_guest_whose_process_is_not_seen_stays(qemu: Qemu, demand: Demand) -> None:
    (qemu.root / "7/cmdline").write_bytes(b"another\0")
    with pytest.raises(Refused, match="cannot be seen which files"):
        demand(PLAIN)
    demand("")


def test_a_path_that_is_none_keeps_its_guest(qemu: Qemu, demand: Demand) -> None:
    with pytest.raises(Refused, match=r"not known where disk\.raw lies"):
        demand(PLAIN.replace(PATH, "disk.raw"))
