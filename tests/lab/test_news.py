"""What tells that the world changed: libvirt's events, and the kernel's mount table."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import CONFIG, id_of, small_xml, until
from scene import Scene, small_guest, start_paused

from lab import host
from lab.guest import Guest
from moorline.host.mount.watch import MountTable
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import GuestId
from moorline.ports import Watching


class News:
    """What was told, in order."""

    def __init__(self) -> None:
        self.told: list[GuestId | None] = []

    @contextmanager
    def of(self, watching: Watching) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=watching.watch, args=[self.told.append, stop])
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5)
            assert not thread.is_alive()

    def after(self, do: Any) -> list[GuestId | None]:
        """What is told because of *do*; waits until something is."""
        self.told.clear()
        do()
        until(lambda: self.told)
        return list(self.told)


@pytest.fixture
def news() -> News:
    return News()


def test_guests_that_come_start_stop_and_go_are_told(libvirt_conn: Any, news: News) -> None:
    hypervisor = Libvirt()
    assert isinstance(hypervisor, Watching)
    with news.of(hypervisor):
        until(lambda: news.told == [None])  # it was blind before
        with small_guest(libvirt_conn, "told") as domain:
            me = id_of(domain)
            until(lambda: me in news.told)
            assert me in news.after(lambda: start_paused(domain))
            assert me in news.after(domain.destroy)
            xml = domain.XMLDesc(2)
            assert me in news.after(domain.undefine)
            assert me in news.after(lambda: libvirt_conn.defineXML(xml))
    hypervisor.close()


def test_a_disk_that_a_guest_lets_go_is_told(
    scene: Scene, guest: Guest, news: News, libvirt_conn: Any
) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.wait_for(volume.id)
    with news.of(Libvirt()):
        until(lambda: news.told)
        alias = f"ua-{volume.id}"
        # Of the live half nothing else than the guest's consent tells.
        assert id_of(guest.domain) in news.after(lambda: guest.domain.detachDeviceAlias(alias, 1))
    guest.domain.detachDeviceAlias(f"ua-{volume.id}", CONFIG)
    scene.detach(guest.name, volume)


def test_libvirtd_that_comes_back_is_told_and_listened_to_again(
    leftovers_check: None, news: News
) -> None:
    import libvirt

    with news.of(Libvirt()):
        until(lambda: news.told)
        news.told.clear()
        host.kill_libvirtd()
        host.start_libvirtd()
        until(lambda: news.told == [None])
        anew = libvirt.open("qemu:///system")
        domain = anew.defineXML(small_xml("q35", 6, "virtio-scsi"))
        me = id_of(domain)
        until(lambda: me in news.told)
        domain.undefine()
        anew.close()


def test_mounts_are_told(lab: Path, leftovers_check: None, news: News) -> None:
    at = lab / "told"
    at.mkdir()
    with news.of(MountTable()):
        run = subprocess.run
        assert news.after(lambda: run(["mount", "-t", "tmpfs", "told", at], check=True)) == [None]
        assert None in news.after(lambda: run(["umount", at], check=True))
        news.told.clear()
        (lab / "told").rmdir()
        threading.Event().wait(0.7)
        assert news.told == []
