"""Which guests a survey need not ask again, by the files in which libvirtd has saved them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

libvirt = pytest.importorskip("libvirt")

from moorline.hypervisors.libvirt.saved_files import CONFIG, LIVE, URI, SavedFiles  # noqa: E402
from moorline.hypervisors.libvirt.survey import GuestSurvey  # noqa: E402

BOTH = LIVE | CONFIG


class Libvirtd:
    """A libvirtd: its guests, what it has saved of them, and what it was asked."""

    def __init__(self, at: Path) -> None:
        self.status, self.definitions = at / "status", at / "definitions"
        for directory in (self.status, self.definitions):
            directory.mkdir(parents=True)
        self.domains: dict[str, Domain] = {}
        self.asked: list[str] = []

    def isAlive(self) -> bool:
        return True

    def listAllDomains(self, flags: int = 0) -> list[Domain]:
        saved = libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE
        if flags == libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED:
            return []
        return [each for each in self.domains.values() if flags != saved or each.saved]

    def files(self, uri: str = URI) -> SavedFiles:
        return SavedFiles(uri, (self.status, self.definitions))

    def run(self, name: str, *disks: str, id: int = 1) -> Domain:
        """Let a guest run with *disks*, and with the same in its definition."""
        domain = self.domains.setdefault(name, Domain(self, name))
        domain.id = id
        domain.live, domain.defined = _xml(name, disks, id), _xml(name, disks)
        domain.save()
        return domain

    def stop(self, name: str) -> Domain:
        domain = self.domains[name]
        domain.id, domain.live = -1, ""
        domain.save()
        return domain


@dataclass(eq=False)
class Domain:
    libvirtd: Libvirtd
    called: str
    id: int = -1
    live: str = ""
    defined: str = ""
    saved: bool = False

    def name(self) -> str:
        return self.called

    def UUIDString(self) -> str:
        return f"uuid-{self.called}"

    def ID(self) -> int:
        return self.id

    def connect(self) -> Libvirtd:
        return self.libvirtd

    def XMLDesc(self, flags: int = 0) -> str:
        self.libvirtd.asked.append(self.called)
        return self.defined if flags or not self.live else self.live

    def hasManagedSaveImage(self) -> bool:
        return self.saved

    def managedSaveGetXMLDesc(self) -> str:
        return self.defined

    def save(self) -> None:
        """As libvirtd does: a new file in place of the old one."""
        for directory, xml in (
            (self.libvirtd.status, self.live),
            (self.libvirtd.definitions, self.defined),
        ):
            path = directory / f"{self.called}.xml"
            if not xml:
                path.unlink(missing_ok=True)
                continue
            new = path.with_suffix(".xml.new")
            new.write_text(xml)
            new.replace(path)


def _xml(name: str, disks: tuple[str, ...], id: int = 0) -> str:
    sources = "".join(
        f"<disk><alias name='ua-{disk}'/><serial>{disk}</serial><source file='/mnt/{disk}'/>"
        "<target dev='sda' bus='scsi'/></disk>"
        for disk in disks
    )
    mark = f" id='{id}'" if id else ""
    return f"<domain type='qemu'{mark}><name>{name}</name><devices>{sources}</devices></domain>"


@dataclass
class Rig:
    libvirtd: Libvirtd
    files: SavedFiles
    survey: GuestSurvey = field(init=False)

    def __post_init__(self) -> None:
        self.survey = GuestSurvey(self.files)

    def look(self) -> dict[str, set[str]]:
        """The volumes of all guests, as they are believed to be."""
        self.libvirtd.asked.clear()
        guests = self.survey.guests(self.libvirtd, afresh=False)
        return {guest.name: set(guest.disks) for guest in guests}

    def settled(self) -> None:
        """All that was saved is so old that it counts, and was looked at."""
        time.sleep(0.03)
        self.look()


def prove(libvirtd: Libvirtd, files: SavedFiles, name: str = "one") -> None:
    """Make a change of ours."""
    domain = libvirtd.domains[name]
    with files.changing(libvirtd, name, BOTH):
        domain.save()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    libvirtd = Libvirtd(tmp_path)
    libvirtd.run("one", "v")
    libvirtd.run("two", "w", id=2)
    files = libvirtd.files()
    prove(libvirtd, files)
    made = Rig(libvirtd, files)
    made.settled()
    return made


def test_guests_that_did_not_change_are_not_asked(rig: Rig) -> None:
    assert rig.look() == {"one": {"v"}, "two": {"w"}}
    assert rig.libvirtd.asked == []


def test_the_survey_that_asks_everything_does(rig: Rig) -> None:
    rig.libvirtd.asked.clear()
    rig.survey.guests(rig.libvirtd)
    assert set(rig.libvirtd.asked) == {"one", "two"}


CHANGES: dict[str, Callable[[Libvirtd], Any]] = {
    "another disk": lambda libvirtd: libvirtd.run("one", "x"),
    "stopped": lambda libvirtd: libvirtd.stop("one"),
    "started again": lambda libvirtd: libvirtd.run("one", "v", id=7),
    "its file is gone": lambda libvirtd: (libvirtd.status / "one.xml").unlink(),
    "its definition is gone": lambda libvirtd: (libvirtd.definitions / "one.xml").unlink(),
    "libvirt says that it is stopped": lambda libvirtd: setattr(libvirtd.domains["one"], "id", -1),
    "its file has another name": lambda libvirtd: (libvirtd.status / "one.xml").rename(
        libvirtd.status / "three.xml"
    ),
    "the same, dated as before": lambda libvirtd: _replaced_alike(libvirtd.status / "one.xml"),
    "written in place": lambda libvirtd: (libvirtd.status / "one.xml").write_text("<new/>"),
    "saved by libvirt": lambda libvirtd: (
        libvirtd.stop("one"),
        setattr(libvirtd.domains["one"], "saved", True),
    ),
}


def _replaced_alike(path: Path) -> None:
    st, text = path.stat(), path.read_text()
    new = path.with_suffix(".new")
    new.write_text(text)
    os.utime(new, ns=(st.st_atime_ns, st.st_mtime_ns))
    new.replace(path)


@pytest.mark.parametrize("change", CHANGES)
def test_a_guest_that_changed_is_asked_alone(rig: Rig, change: str) -> None:
    CHANGES[change](rig.libvirtd)
    rig.look()
    assert set(rig.libvirtd.asked) == {"one"}


def test_a_saved_state_is_asked_for_each_time(rig: Rig) -> None:
    rig.libvirtd.stop("one").saved = True
    for _ in range(2):
        rig.settled()
    assert set(rig.libvirtd.asked) == {"one"}


def test_what_changed_a_moment_ago_may_change_again(rig: Rig) -> None:
    """Two changes within one tick of the clock may have equal files."""
    rig.libvirtd.run("one", "x")
    for _ in range(3):
        path = rig.libvirtd.status / "one.xml"
        now = time.time_ns() + 3_600_000_000_000  # the clock was set back
        os.utime(path, ns=(now, now))
        assert rig.look()["one"] == {"x"}
        assert set(rig.libvirtd.asked) == {"one"}


def test_what_changes_while_it_is_asked_is_asked_again(rig: Rig) -> None:
    """The files were looked at before: they are older than what was read."""
    domain = rig.libvirtd.run("one", "x")
    time.sleep(0.03)
    read = domain.XMLDesc

    def changes_then(flags: int = 0) -> str:
        xml = read(flags)
        if not flags:
            rig.libvirtd.run("one", "y")
        return xml

    domain.XMLDesc = changes_then  # type: ignore[method-assign]
    rig.look()
    domain.XMLDesc = read  # type: ignore[method-assign]
    time.sleep(0.03)
    assert rig.look()["one"] == {"y"}


def test_a_guest_that_is_doubted_is_asked(rig: Rig) -> None:
    one = rig.libvirtd.domains["one"]
    rig.survey.doubt(one.UUIDString())  # type: ignore[arg-type]
    rig.look()
    assert set(rig.libvirtd.asked) == {"one"}
    rig.look()
    assert rig.libvirtd.asked == []


def test_nothing_is_believed_before_a_change_of_ours_was_saved(tmp_path: Path) -> None:
    libvirtd = Libvirtd(tmp_path)
    libvirtd.run("one", "v")
    rig = Rig(libvirtd, libvirtd.files())
    for _ in range(3):
        rig.settled()
        assert set(libvirtd.asked) == {"one"}


@pytest.mark.parametrize("uri", ["qemu:///session", "qemu+ssh://far/system", "test:///default"])
def test_of_another_libvirtd_nothing_is_believed(tmp_path: Path, uri: str) -> None:
    libvirtd = Libvirtd(tmp_path)
    libvirtd.run("one", "v")
    rig = Rig(libvirtd, libvirtd.files(uri))
    prove(libvirtd, rig.files)
    for _ in range(2):
        rig.settled()
        assert set(libvirtd.asked) == {"one"}


@pytest.mark.parametrize("half", [LIVE, CONFIG])
def test_a_change_of_one_half_proves_nothing_of_the_other(tmp_path: Path, half: int) -> None:
    libvirtd = Libvirtd(tmp_path)
    libvirtd.run("one", "v")
    files = libvirtd.files()
    with files.changing(libvirtd, "one", half):
        libvirtd.domains["one"].save()
    time.sleep(0.03)
    assert not files.settled(libvirtd)


@pytest.mark.parametrize("kept", ["status", "definitions"])
def test_a_change_of_ours_that_is_not_saved_here_ends_the_belief(rig: Rig, kept: str) -> None:
    elsewhere = getattr(rig.libvirtd, kept)
    before = (elsewhere / "one.xml").stat()
    with rig.files.changing(rig.libvirtd, "one", BOTH):
        other = "definitions" if kept == "status" else "status"
        path = getattr(rig.libvirtd, other) / "one.xml"
        _replaced_alike(path)
    assert (elsewhere / "one.xml").stat().st_ino == before.st_ino
    rig.look()
    assert set(rig.libvirtd.asked) == {"one", "two"}


def test_a_change_that_failed_proves_nothing(tmp_path: Path) -> None:
    libvirtd = Libvirtd(tmp_path)
    libvirtd.run("one", "v")
    files = libvirtd.files()
    with suppress(OSError), files.changing(libvirtd, "one", BOTH):
        libvirtd.domains["one"].save()
        raise OSError
    time.sleep(0.03)  # else it would be left out as one that changed a moment ago
    assert not files.settled(libvirtd)
    prove(libvirtd, files)
    time.sleep(0.03)
    assert set(files.settled(libvirtd)) == {"one"}


@pytest.mark.parametrize("half", ["status", "definitions"])
def test_one_file_that_may_look_the_same_again_is_enough(rig: Rig, half: str) -> None:
    """By whichever of its dates: a clock may have been set back since."""
    later = time.time_ns() + 3_600_000_000_000
    os.utime(getattr(rig.libvirtd, half) / "one.xml", ns=(later, later))
    time.sleep(0.03)
    assert set(rig.files.settled(rig.libvirtd)) == {"two"}


def test_a_guest_that_went_with_our_change_proves_nothing(tmp_path: Path) -> None:
    libvirtd = Libvirtd(tmp_path)
    for name in ("one", "two"):
        libvirtd.run(name, "v")
    files = libvirtd.files()
    with files.changing(libvirtd, "one", BOTH):
        for directory in (libvirtd.status, libvirtd.definitions):
            (directory / "one.xml").unlink()
    time.sleep(0.03)
    assert not files.settled(libvirtd)


def test_of_one_guest_its_files_alone_are_told(rig: Rig) -> None:
    everyone = rig.files.settled(rig.libvirtd)
    assert set(everyone) == {"one", "two"}
    assert rig.files.settled(rig.libvirtd, "two") == {"two": everyone["two"]}
    assert rig.files.settled(rig.libvirtd, "three") == {}


def test_another_connection_proves_for_itself(rig: Rig, tmp_path: Path) -> None:
    """libvirtd may have been started again elsewhere since."""
    again = Libvirtd(tmp_path / "again")
    assert not rig.files.settled(again)


def test_where_the_directories_are_not_seen_all_are_asked(rig: Rig) -> None:
    rig.libvirtd.status.rename(rig.libvirtd.status.with_name("away"))
    rig.look()
    assert set(rig.libvirtd.asked) == {"one", "two"}
