"""The plug-in in the environment that Nova runs in: what it loads, and its two commands."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest
import venv
from pathlib import Path
from typing import Any

from hosts import ComputeHost

SITE = Path(sysconfig.get_path("purelib"))
BIN = Path(sys.executable).parent
LIGHT = ("moorline", "moorline_nova", "nova.virt.moorline")
HEAVY = ("moorline.wiring", "moorline.backends", "moorline.hypervisors", "moorline.host")

THREADS = "from nova import monkey_patch; monkey_patch.patch(); import {}; print(*sys.modules)"
TWICE = """
import os, sys
from moorline_nova.check import main
def check():
    try:
        main(["check", *sys.argv[1:]])
    except SystemExit:
        pass
check()  # as root; what it needs is loaded then
print("---")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
check()
"""
# moorline-nova-compute up to where nova-compute would ask its conductor for work.
COMPUTE = """
import sys
from nova import monkey_patch
from moorline_nova.compute import main
def patch(*args, **named):
    loaded = [name for name in sys.modules if name.partition(".")[0].startswith("moorline")]
    print("before the patch:", *sorted(loaded))
    nova_s_own(*args, **named)
    from nova import service
    service.Service.create = begin
def begin(**named):
    import nova.conf
    from oslo_utils import importutils
    found = importutils.import_class(f"nova.virt.{nova.conf.CONF.compute_driver}")
    print("driver:", found.__module__)
    print("patched:", monkey_patch.is_patched())
    print("argv:", *sys.argv, nova.conf.CONF.host)
    sys.exit()
nova_s_own, monkey_patch.patch = monkey_patch.patch, patch
main()
"""


def python(*words: str | Path, at: Path | None = None, **environment: str) -> Any:
    program = str(at or sys.executable)
    return subprocess.run(
        [program, "-W", "ignore", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def links(at: Path, to: Path, *but: str) -> None:
    """Make *at* a directory of links to all in *to*, but for some."""
    at.mkdir()
    for entry in to.iterdir():
        if not entry.name.startswith(but):
            (at / entry.name).symlink_to(entry)


def elsewhere(base: Path, *, nova: bool) -> Path:
    """A Python whose own site-packages have the plug-in alone; what else it has lies elsewhere."""
    venv.create(base / "venv")
    site = Path(sysconfig.get_path("purelib", vars={"base": str(base / "venv")}))
    ours = importlib.metadata.distribution("moorline-nova").files or []
    for file in ours:
        if file.parts[0] != "..":
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.locate(), site / file)
    links(base / "other", SITE, "moorline_nova", "nova")
    if nova:
        links(base / "other/nova", SITE / "nova", "virt")
        links(base / "other/nova/virt", SITE / "nova/virt", "moorline")
        (base / "other/nova.dist-info").symlink_to(next(SITE.glob("nova-*.dist-info")))
    (site / "other.pth").write_text(f"import site; site.addsitedir({str(base / 'other')!r})\n")
    return base / "venv/bin/python"


class TestLoading(unittest.TestCase):
    def loaded(self, module: str, threads: str = "true") -> set[str]:
        code = "import sys; " + THREADS.format(module)
        done = python("-c", code, OS_NOVA_DISABLE_EVENTLET_PATCHING=threads)
        self.assertEqual(done.returncode, 0, done.stderr)
        return set(done.stdout.split())

    def test_it_loads_nothing_but_itself(self) -> None:
        for threads in ("true", "false"):
            more = self.loaded("nova.virt.moorline", threads) - self.loaded(
                "nova.virt.libvirt, nova.virt.libvirt.volume.volume", threads
            )
            self.assertIn("moorline_nova.volume", more)
            ours = {name for name in more if name.startswith(LIGHT)}
            self.assertEqual(more, ours)
            self.assertEqual([name for name in ours if name.startswith(HEAVY)], [])


class TestCompute(unittest.TestCase):
    def setUp(self) -> None:
        self.conf = Path(self.enterContext(tempfile.TemporaryDirectory())) / "nova.conf"
        self.conf.write_text(
            "[DEFAULT]\ncompute_driver = moorline.LibvirtDriver\ntransport_url = fake:///\n"
            f"host = kvm7\nlog_file = {self.conf}.log\n"
        )

    def start(self, at: Path | None = None, **environment: str) -> str:
        done = python("-c", COMPUTE, "--config-file", self.conf, at=at, **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        told: str = done.stdout
        return told

    def test_nova_patches_the_process_first_and_finds_our_driver(self) -> None:
        for threads, patched in (("true", False), ("false", True)):
            told = self.start(OS_NOVA_DISABLE_EVENTLET_PATCHING=threads).splitlines()
            self.assertEqual(
                told,
                [
                    "before the patch: moorline_nova moorline_nova.compute",
                    "driver: moorline_nova.driver",
                    f"patched: {patched}",
                    f"argv: nova-compute --config-file {self.conf} kvm7",
                ],
            )

    def test_it_serves_where_nova_is_elsewhere(self) -> None:
        told = self.start(elsewhere(self.conf.parent, nova=True))
        self.assertIn("driver: moorline_nova.driver\n", told)

    def test_without_nova_it_says_what_to_do(self) -> None:
        there = elsewhere(self.conf.parent, nova=False)
        done = python("-m", "moorline_nova.compute", at=there)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot be imported by {there}: install moorline-nova into", done.stderr)
        self.assertNotIn("Traceback", done.stderr)


class TestCheck(unittest.TestCase):
    def setUp(self) -> None:
        self.base = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.base.chmod(0o755)
        self.agent = ComputeHost(self.base, "one")
        self.conf = self.base / "nova.conf"
        self.write()

    def write(self, driver: str = "moorline.LibvirtDriver", **ours: str) -> None:
        lines = ["[DEFAULT]", f"compute_driver = {driver}", self.agent.config.read_text()]
        options = {"socket": self.agent.socket, **ours}
        lines += ["[moorline]", *(f"{name} = {value}" for name, value in options.items())]
        self.conf.write_text("\n".join(lines))

    def start(self) -> None:
        self.agent.start()
        self.addCleanup(self.agent.stop)

    def check(
        self, *more: str | Path, well: bool, at: Path | None = None
    ) -> dict[str, dict[str, Any]]:
        """The findings by topic."""
        words = ["-m", "moorline_nova.check", "check", "-o", "json", "--config-file", self.conf]
        words += more
        done = python(*words, at=at)
        self.assertEqual(done.stderr, "")
        told = json.loads(done.stdout)
        self.assertEqual((told["well"], done.returncode), (well, 0 if well else 1), done.stdout)
        return {finding["topic"]: finding for finding in told["findings"]}

    def bad(self, *more: str | Path, at: Path | None = None) -> str:
        """The one finding that is bad."""
        found = self.check(*more, well=False, at=at)
        (bad,) = (each for each in found.values() if not each["well"])
        return f"{bad['topic']}: {bad['what']}; {bad['advice']}"

    def test_all_fits(self) -> None:
        self.start()
        found = self.check(well=True)
        self.assertIn("quobyte_mount_point_base", found["options"]["what"])
        self.assertIn("start nova-compute", found["plugin"]["what"])
        self.assertIn("veritas_hyperscale, vzstorage, quobyte", found["volume_types"]["what"])
        told = python(BIN / "moorline-nova", "check", "--config-file", self.conf)
        self.assertEqual(told.stdout.count("ok  "), len(found))
        self.assertEqual(self.agent.attachments(), {})

    def test_no_agent(self) -> None:
        self.assertRegex(self.bad(), "agent: no agent answers at .*one.sock.*systemctl")

    def test_an_agent_that_listens_where_the_configuration_says(self) -> None:
        self.write(socket=self.base / "other.sock")
        there = self.agent.socket
        self.assertRegex(
            self.bad(), f"by agent_socket the agent .* at {there}: set socket = {there}"
        )
        self.write(socket=self.base / "other.sock", state_dir=self.base / "s")
        text = self.conf.read_text().replace(f"agent_socket = {there}\n", "")
        self.conf.write_text(text)
        self.assertRegex(self.bad(), f"set socket = {self.base}/s/agent.sock")

    def test_more_files_and_a_directory_of_them(self) -> None:
        self.start()
        more = self.base / "more.conf"
        more.write_text("[libvirt]\nsmbfs_mount_point_base = /a\n")
        directory = self.base / "nova.conf.d"
        directory.mkdir()
        (directory / "10.conf").write_text("[libvirt]\nnfs_mount_point_base = /b\n")
        (directory / "20.conf").write_text("[libvirt]\nnfs_mount_point_base = /c\n")
        self.assertRegex(self.bad("--config-file", more), f"smbfs_.*--config-file {more}")
        given = ("--config-file", more, "--config-dir", directory)
        bad = self.bad(*given)
        self.assertRegex(bad, "options: .*nfs_mount_point_base.*smbfs_mount_point_base")
        self.agent.stop()
        files = [more, directory / "10.conf", directory / "20.conf"]
        self.agent.start(*files)
        found = self.check(*given, well=True)
        self.assertIn(str(directory / "20.conf"), found["configuration"]["what"])

    def test_a_user_without_rights(self) -> None:
        self.start()
        told = python("-c", TWICE, "--config-file", self.conf).stdout
        root, user = told.split("---")
        self.assertNotIn("BAD", root)
        self.assertRegex(user, "BAD  the agent's socket .* cannot be opened: Permission denied")
        self.assertIn("add nova-compute's user to the agent's group", user)

    def test_nova_s_own_driver(self) -> None:
        self.start()
        self.write(driver="libvirt.LibvirtDriver")
        self.assertRegex(self.bad(), "compute_driver = libvirt.Lib.*set compute_driver = moorline.")

    def test_a_type_of_volumes_that_there_is_not(self) -> None:
        self.write(volume_types="quobyt")
        self.assertRegex(self.bad(), "configuration: .*volume_types.*quobyt")

    def test_an_agent_that_goes_by_other_options(self) -> None:
        self.start()
        with self.agent.config.open("a") as config:
            config.write("quobyte_client_cfg = /etc/quobyte/client.cfg\n")
        self.write()
        self.assertRegex(self.bad(), f"options: .*quobyte_client_cfg.*--config-file {self.conf}")

    def test_an_option_that_the_agent_cannot_read(self) -> None:
        self.start()
        text = self.conf.read_text()
        self.conf.write_text(text.replace("[libvirt]", "[libvirt]\nsmbfs_mount_point_base = $x/y"))
        self.assertRegex(self.bad(), "smbfs_mount_point_base")

    def test_nova_elsewhere_and_nova_nowhere(self) -> None:
        self.start()
        there = elsewhere(self.base / "there", nova=True)
        found = self.check(well=True, at=there)
        self.assertIn("start moorline-nova-compute", found["plugin"]["what"])
        nowhere = elsewhere(self.base / "nowhere", nova=False)
        self.assertRegex(self.bad(at=nowhere), f"nova: .* cannot be imported by {nowhere}; install")
