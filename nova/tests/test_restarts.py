"""The agent is killed, or nova-compute restarted, in the midst of what it does; all ends well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hosts import ComputeHost
from nova.tests.functional.api.client import OpenStackApiException
from nova.tests.functional.libvirt import base
from scene import BOOT, Scene, until

SLOW = 2.0
"""Seconds that a mount takes, before it is made or after."""


class Restarting(Scene):
    def while_mounting(self, strike: Callable[[], None], do: Callable[[], Any]) -> None:
        """Do something that mounts a share, and *strike* while the mount command runs."""
        calls = len(self.storage.calls())
        failed: list[Exception] = []

        def run() -> None:
            try:
                until(lambda: len(self.storage.calls()) > calls)
                strike()
            except Exception as e:  # noqa: BLE001 - raised again by who waits for us
                failed.append(e)

        thread = threading.Thread(target=run)
        thread.start()
        do()
        thread.join()
        assert failed == []

    def restart_agent(self, host: ComputeHost) -> None:
        host.kill()
        host.start()

    def restart_nova(self, host: str) -> None:
        self.plug(self.hosts[host])
        self.restart_compute_service(host)

    def slow_share(self, **how: Any) -> Any:
        share = self.storage.volume("slow")
        share.command(**how)
        return share


class TestOneHost(Restarting):
    def test_the_agent_is_killed_while_it_connects(self) -> None:
        server = self.server(self.volume(BOOT))
        for how in ({"slow": SLOW}, {"slow_after": SLOW}):
            with self.subTest(how):
                data = self.volume(share=self.slow_share(**how))
                self.while_mounting(
                    lambda: self.restart_agent(self.one()),
                    lambda data=data: self._attach_volume(server, data),
                )
                assert Path(self.disks(server)[data]).exists()
                assert len(self.one().mounted()) == 2
                self.detach(server, data)
                until(lambda data=data: data not in self.one().wanted())
                assert len(self.one().mounted()) == 1

    def test_the_agent_is_killed_while_it_connects_and_does_not_come_back_in_time(self) -> None:
        server = self.server(self.volume(BOOT))
        self.flags(timeout=4, group="moorline")
        data = self.volume(share=self.slow_share(slow=SLOW))
        self.while_mounting(self.one().kill, lambda: self.attach_fails(server, data))
        assert data not in self.attached(server)
        self.one().start()
        self.restart_nova("one")
        until(lambda: data not in self.one().wanted())
        until(lambda: len(self.one().mounted()) == 1)

    def test_the_agent_is_killed_while_it_disconnects(self) -> None:
        boot = self.volume(BOOT)
        share = self.storage.volume("slow")
        data = self.volume(share=share)
        server = self.server(boot)
        self._attach_volume(server, data)
        share.daemon(delay=0.5)  # each look at it
        strikes = threading.Thread(target=self.strike_at_detach, args=[server, data])
        strikes.start()
        self.detach(server, data)
        strikes.join()
        share.daemon()
        until(lambda: self.one().wanted() == {boot})
        until(lambda: len(self.one().mounted()) == 1)

    def strike_at_detach(self, server: dict[str, Any], volume: str) -> None:
        until(lambda: volume not in self.disks(server))
        time.sleep(0.2)
        self.restart_agent(self.one())

    def test_a_detach_without_an_agent_is_repeated(self) -> None:
        boot, data = self.volume(BOOT), self.volume()
        server = self.server(boot)
        self._attach_volume(server, data)
        self.one().kill()
        with suppress(OpenStackApiException):
            self.api.delete_server_volume(server["id"], data)
        assert data in self.attached(server)
        self.one().start()
        self.detach(server, data)
        assert self.one().wanted() == {boot}

    def test_nova_compute_is_restarted_while_it_attaches_or_detaches(self) -> None:
        boot = self.volume(BOOT)
        server = self.server(boot)
        data = self.volume(share=self.slow_share(slow_after=SLOW))
        self.while_mounting(
            lambda: self.restart_nova("one"), lambda: self._attach_volume(server, data)
        )
        assert set(self.one().attachments()) == {(boot, server["id"]), (data, server["id"])}
        strikes = threading.Thread(target=self.restart_nova, args=["one"])
        strikes.start()
        self.detach(server, data)
        strikes.join()
        until(lambda: self.one().wanted() == {boot})
        assert len(self.one().mounted()) == 1


class TestTwoHosts(base.LibvirtMigrationMixin, Restarting):
    def setUp(self) -> None:
        super().setUp()
        self.second_host()
        self.share.command(slow=SLOW)

    def settled_on_two(self) -> None:
        two = self.hosts["two"]
        assert two.attachments() == {(self.boot, self.server["id"]): "connected"}
        assert len(two.mounted()) == 1

    def test_the_agent_there_is_killed_while_it_connects_for_a_migration(self) -> None:
        self.while_mounting(
            lambda: self.restart_agent(self.hosts["two"]),
            lambda: self._live_migrate(self.server, host="two"),
        )
        self.settled_on_two()
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []

    def test_the_agent_there_is_killed_while_it_connects_for_an_evacuation(self) -> None:
        self.computes["one"].stop()
        self.api.put_service_force_down(self.api.get_services("nova-compute", "one")[0]["id"], True)
        self.while_mounting(
            lambda: self.restart_agent(self.hosts["two"]),
            lambda: self._evacuate_server(self.server, expected_host="two"),
        )
        self.settled_on_two()
        self.restart_nova("one")
        until(lambda: not self.one().attachments())
        assert self.one().mounted() == []

    def test_nova_compute_there_is_restarted_while_it_connects_for_an_evacuation(self) -> None:
        self.computes["one"].stop()
        self.api.put_service_force_down(self.api.get_services("nova-compute", "one")[0]["id"], True)
        self.while_mounting(
            lambda: self.restart_nova("two"),
            lambda: self._evacuate_server(self.server, expected_host="two"),
        )
        self.settled_on_two()
