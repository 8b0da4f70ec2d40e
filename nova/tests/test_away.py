"""Nova goes on while the agent is away: what it needs no more is let go when the agent is back."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress

from nova.tests.functional.api.client import OpenStackApiException
from nova.tests.functional.libvirt import base
from scene import BOOT, Scene, until, virsh

from moorline.model import Level


class Away(Scene):
    def pending(self) -> list[str]:
        """What nova-compute remembers."""
        return [path.name for path in (self.base / "pending").rglob("*_*")]

    def restart_nova(self, host: str = "one") -> None:
        self.plug(self.hosts[host])
        self.restart_compute_service(host)

    def back(self) -> None:
        """The agent is started again, and lets go of all."""
        self.one().start()
        self.all_is_gone()

    def all_is_gone(self) -> None:
        until(lambda: not self.one().attachments())
        until(lambda: not self.one().mounted())
        until(lambda: not self.pending())


class TestAway(Away):
    def test_an_instance_is_deleted(self) -> None:
        server = self.server(self.volume(BOOT), self.volume(), self.volume())
        self.one().kill()
        begun = time.monotonic()
        self._delete_server(server)
        assert time.monotonic() - begun < 14  # a restart's time is waited once, not for each
        assert len(self.pending()) == 3
        self.back()

    def test_another_instance_gets_the_volume_at_once(self) -> None:
        data = self.volume()
        first, other = self.server(self.volume(BOOT), data), self.server(self.volume())
        self.one().kill()
        self._delete_server(first)
        self.one().start()
        self._attach_volume(other, data)
        assert (data, other["id"]) in self.one().attachments()
        assert (data, first["id"]) not in self.one().attachments()

    def test_nova_compute_is_restarted_before_the_agent(self) -> None:
        server = self.server(self.volume(BOOT))
        self.one().kill()
        self._delete_server(server)
        self.restart_nova()
        self.back()

    def test_nova_compute_is_killed_and_what_it_remembered_lost(self) -> None:
        server = self.server(self.volume(BOOT))
        self.one().kill()
        self._delete_server(server)
        shutil.rmtree(self.base / "pending", ignore_errors=True)
        self.restart_nova()
        self.back()

    def test_there_is_no_room_to_remember(self) -> None:
        server = self.server(self.volume(BOOT))
        (self.base / "pending").write_text("in the way of a directory")
        self.one().kill()
        self._delete_server(server)
        assert "could not be written down" in self.stdlog.logger.output
        self.back()

    def test_an_attach_that_was_lost_is_let_go(self) -> None:
        server = self.server(self.volume(BOOT))
        share = self.storage.volume("slow")
        share.command(slow=3)
        data = self.volume(share=share)
        self.flags(timeout=2, group="moorline")
        self.attach_fails(server, data)
        until(lambda: data not in self.one().wanted())
        until(lambda: len(self.one().mounted()) == 1)

    def test_an_attach_takes_no_longer_than_it_may(self) -> None:
        server = self.server(self.volume(BOOT))
        share = self.storage.volume("slow")
        share.command(slow=30)
        data = self.volume(share=share)
        self.flags(timeout=5, group="moorline")
        begun = time.monotonic()
        self.attach_fails(server, data)
        assert time.monotonic() - begun < 20
        share.command()
        until(lambda: data not in self.one().wanted())

    def test_a_volume_that_is_attached_again_is_not_let_go(self) -> None:
        boot, data = self.volume(BOOT), self.volume()
        server = self.server(boot, data)
        self.one().kill()
        with suppress(OpenStackApiException):
            self.api.delete_server_volume(server["id"], data)
        until(self.pending)
        self.make_directory(server)
        self.one().start()
        self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})
        until(lambda: self.api.get_server(server["id"])["status"] == "ACTIVE")
        until(lambda: not self.pending())
        both = {(boot, server["id"]): "connected", (data, server["id"]): "connected"}
        until(lambda: self.one().attachments() == both)
        self.restart_nova()  # it compares
        time.sleep(2)
        assert self.one().attachments() == both

    def test_what_nova_does_not_know_is_let_go_and_what_was_attached_by_hand_stays(self) -> None:
        boot, mine = self.volume(BOOT), self.volume()
        server = self.server(boot)
        nobody = "7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f"
        for guest, volume in ((nobody, self.volume()), (server["id"], self.volume())):
            self.one().client.attachments.attach(
                guest,
                self.connections[volume],
                volume=volume,
                level=Level.CONNECTED,
                hands_off=True,
            )
        file = self.base / "mine.xml"
        file.write_text(
            "<domain type='qemu'><name>mine</name><memory>65536</memory>"
            "<os><type>hvm</type></os></domain>"
        )
        virsh("define", str(file))
        self.addCleanup(virsh, "undefine", "mine")
        made = self.one().client.attachments.attach("mine", self.connections[mine], volume=mine)
        self.addCleanup(self.one().client.attachments.detach, "mine", mine)
        assert len(self.one().attachments()) == 4
        self.restart_nova()
        stay = {(boot, server["id"]): "connected", (mine, made.view.guest_id): "attached"}
        until(lambda: self.one().attachments() == stay)

    def test_an_instance_is_shelved(self) -> None:
        server = self.server(self.volume(BOOT))
        self.one().kill()
        self._shelve_server(server)
        self.back()

    def test_a_detach_has_taken_the_disk_and_is_repeated(self) -> None:
        boot, data = self.volume(BOOT), self.volume()
        server = self.server(boot, data)
        self.one().kill()
        with suppress(OpenStackApiException):
            self.api.delete_server_volume(server["id"], data)
        until(self.pending)
        assert data in self.attached(server)
        assert data not in self.disks(server)
        self.one().start()
        until(lambda: self.one().wanted() == {boot})
        self.detach(server, data)

    def test_a_hard_reboot_ends_in_error_and_is_repeated(self) -> None:
        boot = self.volume(BOOT)
        server = self.server(boot)
        self.make_directory(server)
        reboot = {"reboot": {"type": "HARD"}}
        self.one().kill()
        with suppress(OpenStackApiException):  # in this harness the API waits for the host
            self.api.post_server_action(server["id"], reboot)
        self._wait_for_state_change(server, "ERROR")
        self.one().start()
        self.api.post_server_action(server["id"], reboot)
        self._wait_for_state_change(server, "ACTIVE")
        until(lambda: not self.pending())
        assert self.one().attachments() == {(boot, server["id"]): "connected"}


class TestTwoHostsAway(base.LibvirtMigrationMixin, Away):
    def setUp(self) -> None:
        super().setUp()
        self.second_host()

    def wanted_on(self, host: str) -> bool:
        return (self.boot, self.server["id"]) in self.hosts[host].attachments()

    def migrate(self, to: str) -> None:
        self.src, self.dest = self.dest, self.src
        self._live_migrate(self.server, host=to)

    def test_an_instance_migrates_away(self) -> None:
        self.one().kill()
        self._live_migrate(self.server, host="two")
        self.back()
        assert self.wanted_on("two")

    def test_an_instance_migrates_away_and_that_is_not_remembered(self) -> None:
        self.one().kill()
        self._live_migrate(self.server, host="two")
        shutil.rmtree(self.base / "pending", ignore_errors=True)
        self.restart_nova()
        self.back()
        assert self.wanted_on("two")

    def test_an_instance_migrates_away_and_comes_back(self) -> None:
        self.one().kill()
        self._live_migrate(self.server, host="two")
        assert self.pending()
        self.one().start()
        self.migrate("one")
        assert self.wanted_on("one")
        until(lambda: not self.wanted_on("two"))
        until(lambda: not self.pending())
        assert self.wanted_on("one")
        self.restart_nova()
        time.sleep(2)
        assert self.wanted_on("one")

    def test_an_instance_is_evacuated(self) -> None:
        self.computes["one"].stop()
        self.api.put_service_force_down(self.api.get_services("nova-compute", "one")[0]["id"], True)
        self._evacuate_server(self.server, expected_host="two")
        self.one().kill()
        self.restart_nova()
        self.back()
        assert self.wanted_on("two")
