"""A disk's file is given anew under a paused guest: call by call, whoever dies in between, and
refused wherever it was not tried or would lose what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moorline.errors import Failed, MoorlineError, Refused
from moorline.hypervisors.libvirt.renewing import LibvirtDiskRenewal
from moorline.model import CheckedAs, GuestId, ImageFile, VolumeId
from moorline.testing.faults import Fault, Killed
from tests.support.fake_qemu import DEAD_MOUNT, INODE, MOUNT, PATH, SIZE, VOLUME, FakeQemu

GUEST, OURS = GuestId("u"), VolumeId(VOLUME)
NEWER: dict[str, Any] = {"libvirt": 11_003_000, "version": (10, 0), "bare": True}
WITH_METADATA = {"format": "qcow2", "cache": "directsync"}
SHAPES: dict[str, dict[str, Any]] = {
    "libvirt 9.0": {},
    "libvirt 9.0, qcow2": {"xml": WITH_METADATA},
    "libvirt 9.0, not opened by itself": {"reopens": False},
    "libvirt 11.3": NEWER,
}
ALL = [
    "blockdev-add moorline-hold-2",
    "qom-set moorline-hold-2",
    "blockdev-del libvirt-2-format",
    "blockdev-del libvirt-2-storage",
    "blockdev-add libvirt-2-storage",
    "blockdev-add libvirt-2-format",
    "qom-set libvirt-2-format",
    "blockdev-del moorline-hold-2",
]
CALLS = {
    # QEMU opens the file by itself, once nobody writes to it: as soon as the disk is elsewhere,
    "libvirt 9.0": [*ALL[:2], *ALL[6:]],
    # or without its format.
    "libvirt 9.0, qcow2": [*ALL[:3], *ALL[5:]],
    "libvirt 9.0, not opened by itself": ALL,
    "libvirt 11.3": [*ALL[:2], *ALL[3:5], "qom-set libvirt-2-storage", ALL[-1]],
}
EACH_CALL = [(shape, at) for shape, calls in CALLS.items() for at in range(len(calls))]
OPENS = "blockdev-add libvirt-2-storage"
LEFT = {"name": "libvirt-tmp-activewrite", "recording": True, "persistent": False, "busy": False}
"""The bitmap that libvirt 11.3 forgets after a copy or a commit, as QEMU tells it."""


def fine() -> None:
    """Nobody changed the file."""


def changed() -> None:
    raise Refused("somebody changed it")


def source(qemu: FakeQemu) -> ImageFile:
    file = CheckedAs(Path(PATH), 51, qemu.at_path, 1.0)
    return ImageFile(Path(PATH), qemu.xml["format"], checked=(file,))  # type: ignore[arg-type]


def disks(qemu: FakeQemu) -> LibvirtDiskRenewal:
    connection: Any = qemu
    return LibvirtDiskRenewal(connection, connection, qemu.root, qemu.root, qemu.say)


@pytest.fixture
def qemu(tmp_path: Path) -> FakeQemu:
    return FakeQemu(tmp_path)


def calls_of(qemu: FakeQemu) -> list[str]:
    shape = "libvirt 11.3" if qemu.bare else "libvirt 9.0"
    if not qemu.reopens:
        return ALL
    return CALLS[shape if qemu.xml["format"] == "raw" else "libvirt 9.0, qcow2"]


@pytest.fixture(params=SHAPES)
def either(tmp_path: Path, request: pytest.FixtureRequest) -> FakeQemu:
    return FakeQemu(tmp_path, **SHAPES[request.param])


def renew(qemu: FakeQemu, unchanged: Any = fine) -> None:
    disks(qemu).renew(GUEST, OURS, source(qemu), unchanged)


def test_the_disk_is_given_the_file_that_is_there(either: FakeQemu) -> None:
    qemu, calls = either, calls_of(either)
    assert disks(qemu).lost_file(GUEST, OURS) == INODE
    assert qemu.said == []
    renew(qemu)
    assert qemu.said == calls
    assert qemu.written_to() == INODE
    assert disks(qemu).lost_file(GUEST, OURS) is None
    renew(qemu)
    disks(qemu).resume(GUEST, fine)
    assert qemu.said == [*calls, "resume"]
    assert qemu.condition == (1, 1)
    disks(qemu).resume(GUEST, fine)
    assert qemu.said == [*calls, "resume"], "once"


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
@pytest.mark.parametrize(("shape", "at"), EACH_CALL)
@pytest.mark.parametrize("resumed", [False, True])
def test_killed_at_any_call_it_goes_on_from_what_is_seen(
    tmp_path: Path, shape: str, at: int, fault: Fault, *, resumed: bool
) -> None:
    """Also if somebody resumes the guest meanwhile: it stops again, and nothing is written."""
    qemu = FakeQemu(tmp_path, **SHAPES[shape])
    qemu.faults.plan((at, fault))
    with pytest.raises((Killed, MoorlineError)):
        renew(qemu)
    assert qemu.faults.struck == 1
    if resumed:
        qemu.resume()
        assert qemu.works() == (qemu.condition == (1, 1)) == (qemu.written_to() == INODE)
    renew(qemu)
    assert [call for call in qemu.said if call != "resume"] == calls_of(qemu)
    assert set(qemu.nodes) == {"libvirt-2-storage", qemu.top}
    disks(qemu).resume(GUEST, fine)
    assert (qemu.condition, qemu.written_to()) == ((1, 1), INODE)


@pytest.mark.parametrize(("shape", "at"), EACH_CALL)
def test_a_file_that_was_changed_meanwhile_is_not_opened(
    tmp_path: Path, shape: str, at: int
) -> None:
    """Without this the guest would go on with a file that another guest has written since."""
    qemu = FakeQemu(tmp_path, **SHAPES[shape])
    qemu.faults.plan((at, Fault.KILL_BEFORE))
    with pytest.raises(Killed):
        renew(qemu)
    if f"qom-set {qemu.top}" in qemu.said:
        renew(qemu, changed)  # it was unchanged when the disk was put on it, which holds its lock
        assert qemu.written_to() == INODE
        return
    before = len(qemu.said)
    with pytest.raises(Refused, match="somebody changed it"):
        renew(qemu, changed)
    assert qemu.written_to() == 0
    since = {call.partition(" ")[0] for call in qemu.said[before:]}
    assert since <= {"blockdev-del"}, "others may open the file"


def test_a_file_that_is_replaced_while_the_disk_is_put_on_it_is_left(qemu: FakeQemu) -> None:
    """Else who resumes the guest would let it write there."""

    def replaced_at_last() -> None:
        if qemu.said[-1:] == [calls_of(qemu)[-3]]:
            qemu.opens_otherwise = INODE + 1

    with pytest.raises(Refused, match="not the file open that was checked"):
        renew(qemu, replaced_at_last)
    assert (qemu.drive, qemu.written_to()) == ("moorline-hold-2", 0)
    qemu.resume()
    assert qemu.condition == (3, 5)


def test_a_guest_whose_file_was_changed_before_it_went_on_stays_paused(either: FakeQemu) -> None:
    """It waited for another disk, or we were killed when it had this one."""
    qemu = either
    renew(qemu)
    with pytest.raises(Refused, match="somebody changed it"):
        disks(qemu).resume(GUEST, changed)
    assert (qemu.said, qemu.condition) == (calls_of(qemu), (3, 5))
    qemu.condition = (1, 1)  # a person let it go on: what changes now is its own
    disks(qemu).resume(GUEST, changed)


def test_another_file_than_was_checked_is_never_put_under_the_disk(either: FakeQemu) -> None:
    """Somebody renames while QEMU opens: without this the guest would write to that file."""
    qemu = either
    qemu.opens_otherwise = INODE + 1
    for _ in range(2):
        with pytest.raises(Refused, match="not the file open that was checked"):
            renew(qemu)
        assert (qemu.drive, qemu.written_to()) == ("moorline-hold-2", 0)


def test_a_file_of_another_size_is_not_put_under_the_disk(either: FakeQemu) -> None:
    qemu = either
    renew_until_open(qemu)
    qemu.nodes[qemu.top]["image"] = {"virtual-size": SIZE // 2}
    with pytest.raises(Refused, match="had 1048576"):
        renew(qemu)
    assert (qemu.drive, qemu.written_to()) == ("moorline-hold-2", 0)


def renew_until_open(qemu: FakeQemu) -> None:
    qemu.faults.plan((calls_of(qemu).index(f"qom-set {qemu.top}"), Fault.KILL_BEFORE))
    with pytest.raises(Killed):
        renew(qemu)


def test_who_has_it_locked_is_waited_for_on_the_placeholder(either: FakeQemu) -> None:
    qemu = either
    calls = calls_of(qemu)
    opens = next(call for call in (OPENS, ALL[5], ALL[6]) if call in calls)
    qemu.faults.plan((calls.index(opens), Fault.KILL_BEFORE))
    with pytest.raises(Killed):
        renew(qemu)
    qemu.errors = {opens.partition(" ")[0]: 'Failed to get "write" lock'}
    for _ in range(2):
        with pytest.raises(Failed, match='"write" lock'):
            renew(qemu)
        assert (qemu.drive, qemu.written_to()) == ("moorline-hold-2", 0)
    qemu.errors = {}
    renew(qemu)
    assert qemu.written_to() == INODE


GUARDS: dict[str, tuple[str, dict[str, Any]]] = {
    "metadata in QEMU's memory": ("lost, silently", {"xml": {"format": "qcow2"}}),
    "a cache of the host's": ("cache=writeback", {"xml": {"cache": "writeback"}}),
    "a cache that remembers errors": ("cache=writethrough", {"xml": {"cache": "writethrough"}}),
    "no file": ("cannot be given", {"xml": {"more": "<encryption format='luks'/>"}}),
    "a backing chain": (
        "backing file",
        {"xml": {"more": "<backingStore type='file'><source file='/b'/></backingStore>"}},
    ),
    "an I/O thread of its controller": (
        "I/O thread",
        {
            "xml": {
                "more": "<address type='drive' controller='3'/>",
                "disks": "<controller type='scsi' index='3'><driver iothread='1'/></controller>",
            }
        },
    ),
    "not paused": ("not paused by an I/O error", {"condition": (1, 1)}),
    "paused by a person": ("not paused by an I/O error", {"condition": (3, 1)}),
    "a migration": ("being migrated", {"job": 2}),
    "a block job": ("block job", {"block_jobs": [{"device": "x"}]}),
    "a libvirt that was not tried": ("libvirt 11.3", {"libvirt": 11_003_000}),
    "a QEMU that was not tried": ("QEMU 9.2", {"version": (9, 2)}),
    "a pair that was not tried": ("libvirt 9.0 and QEMU 10.0", {**NEWER, "libvirt": 9_000_000}),
    "a file alone where there is a format": ("block nodes", {"bare": True}),
    "a format where there is a file alone": ("block nodes", {**NEWER, "bare": False}),
    "a throttle over a file alone": (
        "block nodes",
        {
            **NEWER,
            "drive": "throttle",
            "nodes": {"throttle": {"drv": "throttle", "file": "libvirt-2-storage"}},
        },
    ),
    "somebody else's over a file alone": (
        "block nodes",
        {
            **NEWER,
            "nodes": {"backup": {"drv": "copy-before-write", "file": "libvirt-2-storage"}},
        },
    ),
    "on another node": (
        "block nodes",
        {
            "drive": "throttle",
            "nodes": {"throttle": {"drv": "throttle", "file": "libvirt-2-format"}},
        },
    ),
    "a node of somebody else's": (
        "block nodes",
        {"nodes": {"backup": {"drv": "copy-before-write", "file": "libvirt-2-storage"}}},
    ),
    "hidden from the guest": ("cannot see", {"hides": True}),
    "two files may be it": ("which file", {"elsewhere": [("/disk", DEAD_MOUNT, INODE + 1)]}),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_what_was_not_tried_is_refused_by_name_and_stays_paused(tmp_path: Path, guard: str) -> None:
    why, so = GUARDS[guard]
    qemu = FakeQemu(tmp_path, **so)
    with pytest.raises(Refused, match=why):
        disks(qemu).lost_file(GUEST, OURS)
    if guard != "two files may be it":  # the number that was told is what the file must have
        with pytest.raises(Refused, match=why):
            renew(qemu)
    assert qemu.said == []


@pytest.mark.parametrize("so", [{"condition": (1, 1)}, {"job": 2}, {"block_jobs": [{}]}], ids=str)
def test_what_came_about_since_a_renewal_began_is_refused(
    qemu: FakeQemu, so: dict[str, Any]
) -> None:
    """Killed when the placeholder was made, before the disk was put on it."""
    qemu.faults.plan((1, Fault.KILL_BEFORE))
    with pytest.raises(Killed):
        renew(qemu)
    for name, value in so.items():
        setattr(qemu, name, value)
    with pytest.raises(Refused):
        renew(qemu)
    assert qemu.said == ALL[:1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("node", "facts"),
    [
        ("libvirt-2-format", {"dirty-bitmaps": [LEFT, {**LEFT, "name": "checkpoint"}]}),
        ("libvirt-2-format", {"dirty-bitmaps": [{**LEFT, "persistent": True}]}),
        ("libvirt-2-format", {"dirty-bitmaps": [{**LEFT, "busy": True}]}),
        ("libvirt-2-format", {"dirty-bitmaps": [{}]}),
        ("libvirt-2-storage", {"drv": "host_device"}),
    ],
)
def test_a_node_that_is_not_as_we_would_make_it_is_refused(
    tmp_path: Path, node: str, facts: dict[str, Any], shape: str
) -> None:
    qemu = FakeQemu(tmp_path, **SHAPES[shape])
    node = qemu.top if node == "libvirt-2-format" else node
    qemu.nodes[node] |= facts
    with pytest.raises(Refused, match=node):
        disks(qemu).lost_file(GUEST, OURS)
    assert qemu.said == []


def test_what_libvirt_forgot_after_a_copy_goes_with_the_old_node(tmp_path: Path) -> None:
    qemu = FakeQemu(tmp_path, **NEWER)
    qemu.nodes[qemu.top]["dirty-bitmaps"] = [LEFT]
    assert disks(qemu).lost_file(GUEST, OURS) == INODE
    renew(qemu)
    assert qemu.written_to() == INODE
    assert "dirty-bitmaps" not in qemu.nodes[qemu.top]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_with_metadata_that_is_written_through_is_given_anew(
    tmp_path: Path, shape: str
) -> None:
    so = {**SHAPES[shape], "bare": False, "xml": WITH_METADATA}
    qemu = FakeQemu(tmp_path, **so)
    assert disks(qemu).lost_file(GUEST, OURS) == INODE
    renew(qemu)
    assert qemu.said == calls_of(qemu)


def test_a_guest_does_not_go_on_while_another_disk_of_it_is_lost(tmp_path: Path) -> None:
    other = "<disk type='file'><source file='/mnt/share/other'/><target dev='vdc'/></disk>"
    qemu = FakeQemu(tmp_path, xml={"disks": other}, elsewhere=[("/other", DEAD_MOUNT, 5)])
    renew(qemu)
    with pytest.raises(Refused, match="/mnt/share/other"):
        disks(qemu).resume(GUEST, fine)
    assert qemu.condition == (3, 5)
    # Its own file, and beside it, for a while, the one that it had lost.
    qemu.elsewhere = [("/other", DEAD_MOUNT, 5), ("/mnt/share/other", MOUNT, 5)]
    disks(qemu).resume(GUEST, fine)
    assert qemu.condition == (1, 1)


def test_a_guest_that_a_person_paused_stays_so(qemu: FakeQemu) -> None:
    renew(qemu)
    qemu.condition = (3, 1)
    disks(qemu).resume(GUEST, fine)
    assert qemu.said == calls_of(qemu)


def test_a_stopped_guest_has_lost_nothing(tmp_path: Path) -> None:
    qemu = FakeQemu(tmp_path, xml={"id": ""})
    assert disks(qemu).lost_file(GUEST, OURS) is None
    renew(qemu)
    assert qemu.said == []


def test_a_guest_whose_process_cannot_be_seen_is_left_alone(qemu: FakeQemu) -> None:
    connection: Any = qemu
    blind = LibvirtDiskRenewal(connection, connection, qemu.root, qemu.root / "none", qemu.say)
    with pytest.raises(Refused, match="cannot be told"):
        blind.lost_file(GUEST, OURS)


BEFOREHAND = sorted(
    {guard for guard, (why, _) in GUARDS.items() if why != "block nodes"}
    - {"two files may be it", "a block job", "not paused"}
)


@pytest.mark.parametrize("guard", BEFOREHAND)
def test_what_would_be_refused_is_told_while_the_share_hangs(tmp_path: Path, guard: str) -> None:
    """Without a question about its nodes: for that QEMU looks at the file, and hangs with it."""
    why, so = GUARDS[guard]
    qemu = FakeQemu(tmp_path, **{"condition": (1, 1), **so})
    qemu.errors = dict.fromkeys(("query-named-block-nodes", "qom-get"), "it hangs")
    expected = "not paused by an I/O error" if so.get("condition") else why
    with pytest.raises(Refused, match=expected):
        disks(qemu).foresee(GUEST, OURS)
    assert qemu.said == []


def test_a_guest_that_is_told_of_errors_is_refused_beforehand(tmp_path: Path) -> None:
    qemu = FakeQemu(tmp_path, condition=(1, 1))
    disks(qemu).foresee(GUEST, OURS)
    for policy in ("", "report"):
        qemu = FakeQemu(tmp_path, condition=(1, 1), xml={"on_error": policy})
        with pytest.raises(Refused, match="is told to the guest"):
            disks(qemu).foresee(GUEST, OURS)
