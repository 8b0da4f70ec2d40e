"""Which changes to a guest libvirtd has saved when the call that makes them returns.

A survey before a plug believes the files of libvirtd. So after each kind of change that can be
made to a guest's disks it must say what a survey says that asks about everything.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import pytest
from libvirt_rig import CONFIG, LIVE, id_of, small_xml, until
from scene import start_paused

from lab.guest import Guest as LabGuest
from lab.second_host import SecondHost
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.hypervisors.libvirt.saved_files import URI, SavedFiles
from moorline.hypervisors.libvirt.survey import GuestSurvey
from moorline.model import DiskOptions, Guest, ImageFile, VolumeId

BOTH = LIVE | CONFIG
SETTLED_SECONDS = 0.05
NAME, OTHER, RENAMED = "changes", "other", "renamed"
WITH_ALL = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA

MIGRATE = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_UNSAFE
)


class Site:
    """A guest that runs, paused, and what is believed and what is so of all guests."""

    domain: Any

    def __init__(self, connection: Any, directory: Path, asked: Counter[str]) -> None:
        self.virt = connection
        self.asked = asked
        self.uuid = str(uuid.uuid4())
        self.directory = directory
        self.files = SavedFiles(URI)
        self._survey = GuestSurvey(self.files)

    def other(self) -> str:
        return self.xml(self.disk("sdd"), name=OTHER, id=str(uuid.uuid4()))

    def prove(self) -> None:
        with self.files.changing(self.virt, self.domain.name(), BOTH):
            self.plug("sdz", BOTH)

    def image(self, name: str, form: str = "raw") -> Path:
        path = self.directory / f"{name}.{form}"
        if not path.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", form, path, "1M"], check=True)
            path.chmod(0o666)
        return path

    def disk(self, target: str, form: str = "raw") -> str:
        return (
            f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/>"
            f"<source file='{self.image(target, form)}'/><target dev='{target}' bus='scsi'/>"
            f"<serial>{target}</serial><alias name='ua-{target}'/></disk>"
        )

    def named(self, name: str) -> Any:
        return self.virt.lookupByName(name)

    def targets(self) -> list[str]:
        xml = ET.fromstring(self.domain.XMLDesc())
        return [target.get("dev", "") for target in xml.iterfind("devices/disk/target")]

    def plug(self, target: str, flags: int, form: str = "raw") -> None:
        self.domain.attachDeviceFlags(self.disk(target, form), flags)

    def believed(self) -> dict[str, Guest]:
        return {each.name: each for each in self._survey.guests(self.virt, afresh=False)}

    def so(self) -> dict[str, Guest]:
        return {each.name: each for each in GuestSurvey().guests(self.virt)}

    def settled(self) -> None:
        """Have all guests believed, but those that have a saved state: they are always asked."""
        time.sleep(SETTLED_SECONDS)
        assert self.believed() == self.so()
        before = self.asked["XMLDesc"]
        self.believed()
        saved = 2 * sum(each.hasManagedSaveImage() for each in self.virt.listAllDomains())
        assert self.asked["XMLDesc"] - before == saved

    def xml(self, *disks: str, name: str = NAME, id: str = "") -> str:
        """A definition with *disks* in place of those that the guest has."""
        xml = ET.fromstring(small_xml("q35", 0, "virtio-scsi"))
        xml.find("name").text = name  # type: ignore[union-attr]
        ET.SubElement(xml, "uuid").text = id or self.uuid
        devices = xml.find("devices")
        assert devices is not None
        devices.extend(ET.fromstring(disk) for disk in disks)
        return ET.tostring(xml, encoding="unicode")


@pytest.fixture(scope="module")
def directory(lab: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="saved-") as made:
        Path(made).chmod(0o777)
        yield Path(made)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often libvirt was asked for a definition."""
    made: Counter[str] = Counter()
    real = libvirt.virDomain.XMLDesc

    def counted(self: Any, flags: int = 0) -> str:
        made["XMLDesc"] += 1
        return str(real(self, flags))

    monkeypatch.setattr(libvirt.virDomain, "XMLDesc", counted)
    return made


@pytest.fixture
def site(
    libvirt_conn: Any, directory: Path, asked: Counter[str], leftovers_check: None
) -> Iterator[Site]:
    made = Site(libvirt_conn, directory, asked)
    made.domain = libvirt_conn.defineXML(made.xml(cdrom(None)))
    start_paused(made.domain)
    made.prove()
    made.plug("sdc", LIVE)
    yield made
    for left in libvirt_conn.listAllDomains():
        if left.name() in (NAME, OTHER, RENAMED):
            defined = left.isPersistent()
            if left.isActive():
                left.destroy()
            if defined:
                left.undefineFlags(WITH_ALL)


def virsh(*words: str) -> None:
    subprocess.run(["virsh", "-q", *words], check=True, stdout=subprocess.DEVNULL, timeout=30)


def cdrom(path: Path | None) -> str:
    source = f"<driver name='qemu' type='raw'/><source file='{path}'/>" if path else ""
    return (
        f"<disk type='file' device='cdrom'>{source}<target dev='sdy' bus='scsi'/><readonly/></disk>"
    )


def snapshot(site: Site) -> None:
    others = (f"{each},snapshot=no" for each in site.targets() if each != "sdz")
    above = f"sdz,file={site.directory}/above.{time.monotonic_ns()}"
    specs = [word for spec in (above, *others) for word in ("--diskspec", spec)]
    virsh("snapshot-create-as", NAME, "--disk-only", "--no-metadata", *specs)


def copy(site: Site, *words: str) -> None:
    to = f"{site.directory}/copy.{time.monotonic_ns()}"
    virsh("blockcopy", NAME, "sdz", to, "--format", "raw", "--transient-job", *words)


def managed_save(site: Site) -> None:
    site.domain.managedSave(libvirt.VIR_DOMAIN_SAVE_PAUSED)


def demand_seen(site: Site, changes: dict[str, Callable[[Site], Any]]) -> None:
    """Make *changes*, one after the other, and see that each is believed at once."""
    for what, change in changes.items():
        site.settled()
        before = site.believed()
        change(site)
        seen = site.believed()
        assert seen == site.so(), f"{what}: what is believed is not so"
        assert seen != before, f"{what}: nothing changed that a survey tells"


def test_changes_to_a_guest_that_runs(site: Site) -> None:
    medium, other = site.image("medium"), site.image("other")
    demand_seen(
        site,
        {
            "plugged live": lambda site: site.plug("sdb", LIVE),
            "plugged in the definition": lambda site: site.plug("sdd", CONFIG),
            "plugged in both": lambda site: site.plug("sde", BOTH),
            "taken out of the definition": lambda site: site.domain.detachDeviceAlias(
                "ua-sdd", CONFIG
            ),
            "medium": lambda site: site.domain.updateDeviceFlags(cdrom(medium), LIVE),
            "medium defined": lambda site: site.domain.updateDeviceFlags(cdrom(other), CONFIG),
            "snapshot": snapshot,
            "committed and pivoted to": lambda site: virsh(
                "blockcommit", NAME, "sdz", "--active", "--wait", "--pivot"
            ),
            "snapshot again": snapshot,
            "pulled": lambda site: virsh("blockpull", NAME, "sdz", "--wait"),
            "copied and pivoted to": lambda site: copy(site, "--wait", "--pivot"),
            "being copied": copy,
            "copied no more": lambda site: virsh("blockjob", NAME, "sdz", "--abort"),
            "another is defined": lambda site: site.virt.defineXML(site.other()),
            "another is undefined": lambda site: site.named(OTHER).undefine(),
            "another has no definition": lambda site: site.virt.createXML(
                site.other(), libvirt.VIR_DOMAIN_START_PAUSED
            ),
            "another ends": lambda site: site.named(OTHER).destroy(),
            "defined anew": lambda site: site.virt.defineXML(site.xml(site.disk("sdf"))),
            "undefined": lambda site: site.domain.undefine(),
            "defined again": lambda site: site.virt.defineXML(site.xml(site.disk("sdz"))),
            "restarted": lambda site: (site.domain.destroy(), start_paused(site.domain)),
            "saved": lambda site: site.domain.save(f"{site.directory}/state"),
            "restored": lambda site: site.virt.restoreFlags(
                f"{site.directory}/state", None, libvirt.VIR_DOMAIN_SAVE_PAUSED
            ),
            "saved by libvirt": managed_save,
            "restored by libvirt": lambda site: start_paused(site.domain),
            "stopped": lambda site: site.domain.destroy(),
        },
    )


def test_changes_to_a_guest_that_is_stopped(site: Site) -> None:
    site.domain.destroy()
    demand_seen(
        site,
        {
            "plugged": lambda site: site.plug("sdb", CONFIG),
            "unplugged": lambda site: site.domain.detachDeviceAlias("ua-sdb", CONFIG),
            "defined anew": lambda site: site.virt.defineXML(
                site.xml(site.disk("sdz"), site.disk("sdd"))
            ),
            "snapshot": snapshot,
            "renamed": lambda site: site.domain.rename(RENAMED),
            "started": lambda site: start_paused(site.named(RENAMED)),
            "stopped": lambda site: site.named(RENAMED).destroy(),
            "started and saved": lambda site: (
                start_paused(site.named(RENAMED)),
                site.plug("sdc", LIVE),
                managed_save(site),
            ),
            "no more saved": lambda site: site.named(RENAMED).managedSaveRemove(),
            "undefined": lambda site: site.named(RENAMED).undefine(),
        },
    )


def test_a_disk_that_the_guest_lets_go(
    guest: LabGuest, libvirt_conn: Any, directory: Path, asked: Counter[str]
) -> None:
    """libvirt tells of it before it has saved it: who took it away himself asks again."""
    site = Site(libvirt_conn, directory, asked)
    site.domain = guest.domain
    site.prove()
    hypervisor, id = Libvirt(), id_of(guest.domain)
    try:
        for _ in range(2):
            volume, image = VolumeId("let-go"), ImageFile(site.image("let-go"), "raw")
            hypervisor.attach(id, volume, image, DiskOptions(bus="scsi"))
            guest.wait_for(volume)
            time.sleep(SETTLED_SECONDS)
            assert volume in {each.id: each for each in hypervisor.survey_changes()}[id].disks
            while volume in hypervisor.disks(id):
                hypervisor.detach(id, volume)
            assert volume not in {each.id: each for each in hypervisor.survey_changes()}[id].disks
        site.settled()
        guest.domain.detachDeviceAlias("ua-sdz", BOTH)
        until(lambda: "ua-sdz" not in guest.domain.XMLDesc())
        until(lambda: site.believed() == site.so())
    finally:
        hypervisor.close()


def test_a_guest_that_comes_from_another_host(lab: Path, site: Site) -> None:
    with tempfile.TemporaryDirectory(dir=lab, prefix="site-") as made:
        directory, channel = Path(made), Path(made, "channel")
        directory.chmod(0o755)
        (directory / "second").mkdir()
        channel.mkdir()
        channel.chmod(0o1777)
        second = SecondHost(directory / "second")
        there = libvirt.open(second.uri)
        try:
            guest = there.defineXML(site.other())
            start_paused(guest)
            site.settled()
            where = {"migrate_uri": f"unix://{channel}/moves"}
            guest.migrate3(site.virt, where, MIGRATE)
            assert site.believed() == site.so()
            assert "sdd" in site.believed()[OTHER].disks
        finally:
            there.close()
            second.close()


def test_another_libvirtd_is_not_believed(lab: Path, site: Site) -> None:
    """Nor the one that was, once a change of ours was not seen where its guests were saved."""
    with tempfile.TemporaryDirectory(dir=lab, prefix="site-") as made:
        Path(made).chmod(0o755)
        second = SecondHost(Path(made))
        there = libvirt.open(second.uri)
        try:
            time.sleep(SETTLED_SECONDS)
            assert site.files.settled(site.virt)
            guest = there.defineXML(site.other())
            start_paused(guest)
            with site.files.changing(there, OTHER, BOTH):
                guest.attachDeviceFlags(site.disk("sdb"), BOTH)
            assert not site.files.settled(there)
            assert not site.files.settled(site.virt)
            guest.destroy()
            guest.undefine()
        finally:
            there.close()
            second.close()
