"""A guest moves to another host; libvirt does not know that the images' file system is shared.

Two libvirtds on this machine, each with a mount of its own. The FUSE daemon is
the lab's, and lets owners be changed, which Virtuozzo's may not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from lab import guest as guests
from lab import host
from lab.second_host import SecondHost
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import Caching, DiskOptions, ImageFile, VolumeId

FIXED, FREE = (VolumeId(f"{n}0000000-0000-4000-8000-00000000000{n}") for n in (1, 2))
MIGRATE = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_PERSIST_DEST
)


class Site:
    """Two hosts, one cluster, and a guest that is on the first."""

    def __init__(self, connection: libvirt.virConnect, directory: Path) -> None:
        self.content, self.at = directory / "content", directory / "at"
        sockets = directory / "sockets"
        for each in (self.content, self.at, sockets, directory / "second_host"):
            each.mkdir()
        sockets.chmod(0o1777)
        self.channel = directory / "sockets-of-both"
        self.channel.mkdir()
        self.channel.chmod(0o1777)
        self.second_host = SecondHost(directory / "second_host", (sockets, self.at))
        self.there = libvirt.open(self.second_host.uri)
        mount = (sys.executable, "-m", "lab.fuse.daemon", "--type", "fuse.vstorage")
        mount += ("--source", "vstorage://vault", str(self.content), str(self.at))
        subprocess.run(mount, check=True, timeout=30)
        self.second_host.run(*mount)
        (self.guest,) = guests.boot(connection, ["moves"], host.images(), sockets)
        self.agent_there = guests.GuestAgent(directory / "second_host/own-1/moves.agent")

    def disk(self, volume: VolumeId, *, relabel: bool) -> Path:
        """Give the guest a disk; return its file behind the mounts."""
        file = self.content / volume
        file.touch()
        os.truncate(file, 1 << 20)
        os.chown(file, host.qemu_user(), -1)
        image = ImageFile(self.at / volume, "raw", Caching.DIRECT, relabel=relabel)
        hypervisor = Libvirt()
        try:
            id = hypervisor.find(self.guest.name).id
            hypervisor.attach(id, volume, image, DiskOptions())
        finally:
            hypervisor.close()
        self.guest.wait_for(volume)
        return file

    def migrate(self, flags: int) -> None:
        where = {"migrate_uri": f"unix://{self.channel}/moves"}
        self.guest.domain.migrateToURI3(self.second_host.uri, where, flags)
        self.guest.agent.close()
        self.guest = guests.Guest(self.there.lookupByName("moves"), self.agent_there)

    def close(self) -> None:
        guests.remove(self.guest)
        self.there.close()
        self.second_host.run("umount", str(self.at))
        subprocess.run(["umount", str(self.at)], check=True)
        self.second_host.close()


@pytest.fixture
def site(lab: Path, libvirt_conn: libvirt.virConnect, leftovers_check: None) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(dir=lab, prefix="site-") as directory:
        Path(directory).chmod(0o755)
        site = Site(libvirt_conn, Path(directory))
        yield site
        site.close()


def test_a_migration_leaves_the_image_to_the_guest(site: Site) -> None:
    fixed = site.disk(FIXED, relabel=False)
    free = site.disk(FREE, relabel=True)
    with pytest.raises(libvirt.libvirtError) as refused:
        site.migrate(MIGRATE)
    assert refused.value.get_error_code() == libvirt.VIR_ERR_MIGRATE_UNSAFE
    site.guest.write(FIXED, "before")
    site.migrate(MIGRATE | libvirt.VIR_MIGRATE_UNSAFE)
    assert fixed.stat().st_uid == host.qemu_user()
    # What happens without our label: the test would notice if libvirt learnt better.
    assert free.stat().st_uid == 0
    site.guest.write(FIXED, "after", offset=64 << 10)
    assert fixed.read_bytes()[: 128 << 10] == guests.pattern("before") + guests.pattern("after")
