"""An instance goes from one compute host to another; each host has an agent of its own."""

from __future__ import annotations

from typing import Any
from unittest import mock

from nova.tests.functional.libvirt import base
from scene import Scene, until


def moved(driver: Any, context: Any, instance: Any, *args: Any, **named: Any) -> str:
    """The first half of Nova's own: what it does about volumes."""
    info = named.get("block_device_info") or args[3]
    driver.power_off(instance, 0, 0)
    for volume in info["block_device_mapping"]:
        driver._disconnect_volume(context, volume["connection_info"], instance)
    return "[]"


class TestTwoHosts(base.LibvirtMigrationMixin, Scene):
    libvirt_refuses = False

    def setUp(self) -> None:
        super().setUp()
        self.second_host()

    def _migrate_stub(self, domain: Any, destination: str, params: Any, flags: int) -> None:
        if not self.libvirt_refuses:
            super()._migrate_stub(domain, destination, params, flags)
            return
        connection = self.src.driver._host.get_connection()
        connection.lookupByUUIDString(self.server["id"]).fail_job()

    def wanted_on(self, host: str) -> bool:
        return (self.boot, self.server["id"]) in self.hosts[host].attachments()

    def test_live_migration_connects_there_and_disconnects_here(self) -> None:
        self._live_migrate(self.server, host="two")
        assert self.wanted_on("two")
        until(lambda: not self.wanted_on("one"))
        assert self.hosts["one"].mounted() == []
        (mount,) = self.hosts["two"].mounted()
        # It is the source that writes the destination's XML, from what the destination said.
        source = self.config(self.server, self.boot, host="one").find("source")
        assert source is not None
        assert source.get("file", "").startswith(f"{mount}/")

    def test_a_destination_that_cannot_connect_leaves_the_source_alone(self) -> None:
        self.hosts["two"].kill()
        self._live_migrate(self.server, migration_expected_state="failed", host="two")
        self.hosts["two"].start()
        assert self.wanted_on("one")
        assert len(self.hosts["one"].mounted()) == 1
        until(lambda: not self.wanted_on("two"))
        assert self.hosts["two"].mounted() == []

    def test_a_migration_that_fails_lets_the_destination_go(self) -> None:
        self.libvirt_refuses = True
        self._live_migrate(self.server, migration_expected_state="failed", host="two")
        assert self.wanted_on("one")
        until(lambda: not self.wanted_on("two"))
        assert self.hosts["two"].mounted() == []

    def test_cold_migration_confirmed_and_reverted(self) -> None:
        # The instance has no directory: its only disk is the volume, and Nova's fixtures make none.
        with mock.patch("nova.virt.libvirt.driver.LibvirtDriver.migrate_disk_and_power_off", moved):
            self._migrate_server(self.server, host="two")
            assert self.wanted_on("two")
            assert not self.wanted_on("one")
            self._revert_resize(self.server)
            until(lambda: self.wanted_on("one") and not self.wanted_on("two"))
            self._migrate_server(self.server, host="two")
            self._confirm_resize(self.server)
        until(lambda: self.wanted_on("two") and not self.wanted_on("one"))
        assert self.hosts["one"].mounted() == []

    def test_evacuation_and_the_dead_host_comes_back(self) -> None:
        self.computes["one"].stop()
        self.api.put_service_force_down(self.api.get_services("nova-compute", "one")[0]["id"], True)
        self._evacuate_server(self.server, expected_host="two")
        assert self.wanted_on("two")
        assert self.wanted_on("one")  # nobody has told its agent
        self.plug(self.hosts["one"])
        self.restart_compute_service("one")
        until(lambda: not self.wanted_on("one"))
        assert self.hosts["one"].mounted() == []
