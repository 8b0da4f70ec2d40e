"""Each test fails on what its docstring says of Nova 34's own volume drivers (and os-brick 7.1)."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from pathlib import Path
from typing import Any

from nova.tests.functional.libvirt import base
from scene import BOOT, PASSWORD, Scene, until

from lab import host


class TestDefects(Scene):
    def test_d1_a_mount_that_is_not_valid_is_no_success(self) -> None:
        """Nova's Quobyte driver logs that its validation failed after mounting, and goes on: the
        guest is given a path in a directory of the host."""
        server = self.server(self.volume(BOOT))
        for lie in ({"lie": True}, {"other": "tmpfs"}, {"source": "x@y/z", "type": "fuse.sshfs"}):
            with self.subTest(lie):
                sick = self.storage.volume(f"sick-{'-'.join(lie)}")
                sick.command(**lie)
                self.flags(timeout=2, group="moorline")
                bad = self.volume(share=sick)
                self.attach_fails(server, bad)
                assert bad not in self.attached(server)
                assert bad not in self.disks(server)
                for foreign in self.one().mounted()[1:]:
                    host.umount(foreign)  # the operator's to do
                until(lambda bad=bad: bad not in self.one().wanted())

    def test_d2_what_is_connected_and_not_opened_yet_stays(self) -> None:
        """Nova's Quobyte driver knows no users: it unmounts at each disconnect, and relies upon
        umount finding the mount busy. Here nobody has a disk open."""
        a, b = self.volume(BOOT), self.volume()
        server, other = self.server(a), self.server(b)
        path = Path(self.disks(server)[a])
        self._delete_server(other)
        until(lambda: b not in self.one().wanted())
        assert path.exists()
        assert len(self.one().mounted()) == 1

    def test_d3_detaching_one_of_two_is_no_error(self) -> None:
        """Nova's Quobyte driver looks for "Device or resource busy" where umount says "target is
        busy": an error with a traceback at each detach from a share that others use."""
        a, b = self.volume(BOOT), self.volume()
        server = self.server(a)
        self._attach_volume(server, b)
        with Path(self.disks(server)[a]).open("rb"):  # as QEMU has it
            before = self.stdlog.logger.output, self.one().log()
            self.detach(server, b)
            after = self.stdlog.logger.output, self.one().log()
        for was, now in zip(before, after, strict=True):
            told = now.removeprefix(was)
            assert " ERROR " not in told
            assert "Traceback" not in told
        assert not any(view.trouble for view in self.one().client.attachments.list())

    def test_d4_a_cluster_is_unmounted_and_its_path_tells_nothing(self) -> None:
        """os-brick never unmounts a Virtuozzo cluster, leaves a directory in /tmp at each connect,
        and mounts at a hash of the export: it moves with the password and the servers' order."""
        cluster = self.cluster()
        server = self.server(self.volume(BOOT))
        paths = set()
        for password in (PASSWORD, "another"):
            cluster.rotate(password)
            cluster.servers = cluster.servers[::-1]
            data = self.volume(share=cluster)
            self._attach_volume(server, data)
            paths.add(Path(self.disks(server)[data]).parent)
            self.detach(server, data)
            until(lambda: len(self.one().mounted()) == 1)  # the boot volume's, on Quobyte
        assert len(paths) == 1
        assert list(self.one().temporary.iterdir()) == []

    def test_d4_the_password_is_nowhere(self) -> None:
        """Nova names a lock after the export, password included, os-brick's trace logs it; and
        Nova keeps the mount options in the connection."""
        heard = Heard()
        logging.getLogger().addHandler(heard)
        self.addCleanup(logging.getLogger().removeHandler, heard)
        cluster = self.cluster()
        data = self.volume(share=cluster)
        server = self.server(self.volume(BOOT))
        self._attach_volume(server, data)
        kept = self.kept(server, data)
        assert set(kept["data"]) == {*self.connections[data]["data"], *ADDED}
        assert kept["data"].pop("export") == cluster.export  # Cinder's: it must be there
        said = json.dumps(kept) + "".join(heard.told) + self.one().log() + host.command_lines()
        said += json.dumps(cluster.owner.calls()) + json.dumps(self.disks(server))
        cluster.command(auth={"fail": {"code": 1, "stderr": f"wrong: {PASSWORD}"}})
        self.detach(server, data)
        said += "".join(heard.told) + self.one().log()
        assert len(heard.told) > 100
        assert PASSWORD not in said
        files = [path for path in self.one().state.rglob("*") if path.is_file()]
        assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []

    def test_d4_a_cluster_that_is_not_named_right_is_refused(self) -> None:
        """os-brick searches the export for a pattern that is not anchored: of "clu.ster" it mounts
        the cluster "clu", and drops the password."""
        self.virtuozzo.cluster("clu", servers=["mds1"])
        server = self.server(self.volume(BOOT))
        calls = self.virtuozzo.calls()
        bad = self.volume(share=self.cluster(), export="mds1:/clu.ster:pw")
        self.attach_fails(server, bad)
        assert self.virtuozzo.calls() == calls
        assert bad not in self.disks(server)

    def test_d5_a_name_that_leaves_the_share_reaches_no_guest(self) -> None:
        """Nova joins mount point and name: /etc/shadow reaches the domain's XML."""
        server = self.server(self.volume(BOOT))
        before = self.disks(server)
        for share in (self.share, self.cluster()):
            for name in ("/etc/shadow", "../../../../etc/shadow", ".."):
                with self.subTest(name, share=share.name):
                    bad = self.volume(share=share, name=name)
                    self.attach_fails(server, bad)
                    assert self.disks(server) == before
                    assert bad not in self.attached(server)
                    assert bad not in self.one().wanted()

    def test_d6_volumes_are_extended(self) -> None:
        """Nova's drivers for Quobyte and Virtuozzo have no extend_volume: the guest goes on with
        the old size."""
        server = self.server(self.volume(BOOT))
        for share in (self.share, self.cluster()):
            with self.subTest(share=share.name):
                data = self.volume(share=share)
                self._attach_volume(server, data)
                self.extend(server, data, gibibytes=2)
                assert self.resized[-1][1] == 2 << 30

    def test_d7_a_busy_share_delays_nobody(self) -> None:
        """Nova's NFS driver holds the share's lock through the retries of a busy umount: whoever
        would attach from that share waits."""
        boot = self.volume(BOOT)
        fine = self.storage.volume("fine")
        server = self.server(self.volume(share=fine))
        other = self.server(boot)
        with Path(self.disks(other)[boot]).open("rb"):
            self._delete_server(other)
            assert len(self.one().mounted()) == 2
            began = time.monotonic()
            data = self.volume()
            self._attach_volume(server, data)
            took = time.monotonic() - began
            assert Path(self.disks(server)[data]).exists()
        assert took < 10
        self.detach(server, data)
        until(lambda: len(self.one().mounted()) == 1)

    def test_d8_an_image_that_refers_to_the_host_reaches_no_guest(self) -> None:
        """Nova looks neither at backing nor at data files when it attaches (CVE-2024-32498,
        CVE-2022-47951 are of that family)."""
        secret = self.base / "secret.raw"
        secret.write_bytes(b"root:x:0:0" * 1000 + bytes(1 << 20))
        server = self.server(self.volume(BOOT))
        before = self.disks(server)
        for reference in (
            ["-b", str(secret), "-F", "raw"],
            ["-o", f"data_file={secret},data_file_raw=on"],
        ):
            with self.subTest(reference):
                bad = self.volume(format="qcow2")
                image = self.share.path / f"volume-{bad}"
                image.unlink()
                command = ["qemu-img", "create", "-q", "-f", "qcow2", *reference, str(image), "1M"]
                subprocess.run(command, check=True)
                self.attach_fails(server, bad)
                assert self.disks(server) == before
                assert bad not in self.one().wanted()


class TestForgetting(base.LibvirtMigrationMixin, Scene):
    """The other half of the seventh."""

    def setUp(self) -> None:
        super().setUp()
        self.compute_host("two")
        self.boot, self.data = self.volume(BOOT), self.volume()
        self.server = Scene.server(self, self.boot)
        self.other = Scene.server(self, self.volume(), host="two")
        self.src, self.dest = self.computes["one"], self.computes["two"]

    def _migrate_stub(self, domain: Any, destination: str, params: Any, flags: int) -> None:
        """It is connected there, and no guest there names it yet."""
        self.plug(self.hosts["two"])
        self.dest = self.restart_compute_service("two")
        self._delete_server(self.other)
        until(lambda: len(self.hosts["two"].attachments()) == 1)
        (mount,) = self.hosts["two"].mounted()
        self.kept_through = (Path(mount) / f"volume-{self.boot}").exists()
        super()._migrate_stub(domain, destination, params, flags)

    def test_d7_what_is_connected_for_a_guest_to_come_outlives_nova_compute(self) -> None:
        """Nova's NFS driver rebuilds who uses a mount from the domains when it starts: what was
        connected for a migration is forgotten, and unmounted at another's detach."""
        self._live_migrate(self.server, host="two")
        assert self.kept_through
        until(lambda: not self.hosts["one"].attachments())
        assert self.hosts["one"].mounted() == []


ADDED = ("volume_id", "attachment_id", "moorline")
"""By Cinder's fixture, and by the plug-in."""


class Heard(logging.Handler):
    """All that is logged in this process, of any level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))
