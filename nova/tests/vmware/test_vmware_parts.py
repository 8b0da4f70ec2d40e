"""The parts of the VMware driver that need no vCenter, with Nova's real modules."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

try:
    from nova import exception
    from nova.virt.vmwareapi import ds_util, images, vim_util, vmops
    from oslo_utils import importutils
except ImportError as e:
    raise unittest.SkipTest(f"Nova with its VMware driver is not installed: {e}") from e

from moorline_nova import vmware, vmware_known
from moorline_nova.vmware_images import virtual_size
from moorline_nova.vmware_stores import Fitness

MIB = 1 << 20
OVF = """<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
 <References><File ovf:id="f1" ovf:href="disk1.vmdk"/></References>
 <DiskSection><Disk ovf:capacity="8" ovf:diskId="d1" ovf:fileRef="f1"/></DiskSection></Envelope>"""


def vmdk(size: int) -> bytes:
    return struct.pack("<4sIIQ", b"KDMV", 3, 3 | 1 << 16, size // 512) + bytes(4076)


def ova(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


class Glance:
    """Has one image, gives it in pieces, and counts them."""

    def __init__(self, data: bytes, piece: int = 512) -> None:
        self.data, self.piece, self.given = data, piece, 0

    def download(self, context: Any, image_id: str) -> Iterator[bytes]:
        for start in range(0, len(self.data), self.piece):
            self.given += 1
            yield self.data[start : start + self.piece]


class WithGlance(unittest.TestCase):
    def glance(self, data: bytes, piece: int = 512) -> Glance:
        glance = Glance(data, piece)
        self.enterContext(mock.patch.object(images, "IMAGE_API", glance))
        return glance


class TestVirtualSize(WithGlance):
    def test_a_stream_tells_it_in_its_header(self) -> None:
        for piece in (1, 7, 512, 65536):
            self.glance(vmdk(8 * MIB + 65536), piece)
            self.assertEqual(virtual_size(None, "image", is_ova=False), 8 * MIB + 65536)

    def test_no_more_is_read_than_it_takes(self) -> None:
        glance = self.glance(vmdk(8 * MIB) + bytes(MIB))
        virtual_size(None, "image", is_ova=False)
        self.assertEqual(glance.given, 1)

    def test_of_an_ova_it_is_the_disk_that_nova_takes(self) -> None:
        other, disk = ("disk0.vmdk", vmdk(3 * MIB)), ("disk1.vmdk", vmdk(5 * MIB))
        glance = self.glance(ova(("vm.ovf", OVF.encode()), other, disk, ("more", bytes(MIB))))
        self.assertEqual(virtual_size(None, "image", is_ova=True), 5 * MIB)
        self.assertLess(glance.given, MIB // 512)

    def test_what_is_no_such_image_is_said_to_be_none(self) -> None:
        no_disk = ova(("vm.ovf", OVF.encode()))
        bad_xml = ova(("vm.ovf", b"<Envelope"), ("disk1.vmdk", vmdk(MIB)))
        for data, is_ova in (
            (b"", False),
            (b"KDMV", False),
            (b"QFI\xfb" + bytes(512), False),
            (no_disk, True),
            (bad_xml, True),
            (b"no archive" * 100, True),
            (ova(("vm.ovf", b"<a xmlns:ovf='b'/>"), ("disk1.vmdk", vmdk(MIB))), True),
        ):
            with self.subTest(data[:10]):
                self.glance(data)
                with self.assertRaises(exception.ImageUnacceptable):
                    virtual_size(None, "image", is_ova=is_ova)


class TestFitness(WithGlance):
    def against(self, **image: Any) -> str:
        usual = {
            "image_id": "image",
            "is_iso": False,
            "is_ova": False,
            "disk_type": "streamOptimized",
        }
        return Fitness(None, None).against_image(None, SimpleNamespace(**{**usual, **image}))

    def test_whole_mebibytes_can_be_there_and_nothing_else(self) -> None:
        for size, fits in ((MIB, True), (8 * MIB, True), (8 * MIB + 512, False), (512, False)):
            self.glance(vmdk(size))
            self.assertEqual(self.against() == "", fits, size)

    def test_the_reason_names_both_sizes_and_what_to_do(self) -> None:
        self.glance(vmdk(8 * MIB + 512))
        reason = self.against()
        for word in (str(8 * MIB + 512), str(9 * MIB), "upload it anew"):
            self.assertIn(word, reason)

    def test_other_kinds_of_images_are_not_even_read(self) -> None:
        glance = self.glance(vmdk(8 * MIB))
        for image in ({"is_iso": True}, {"disk_type": "preallocated"}, {"disk_type": "sparse"}):
            self.assertIn("streamOptimized", self.against(**image))
        self.assertEqual(glance.given, 0)

    def test_an_image_is_read_once(self) -> None:
        glance = self.glance(vmdk(8 * MIB))
        fitness, image = (
            Fitness(None, None),
            SimpleNamespace(
                image_id="image", is_iso=False, is_ova=False, disk_type="streamOptimized"
            ),
        )
        for _ in range(3):
            fitness.against_image(None, image)
        self.assertEqual(glance.given, 1)

    def test_an_iscsi_volume_cannot_be_booted_from_there(self) -> None:
        iscsi = {"driver_volume_type": "iscsi", "data": {}}
        root = {"boot_index": 0, "connection_info": iscsi}
        fitness = Fitness(None, None)
        self.assertIn("iSCSI", fitness.against_volume([root]))
        self.assertEqual(fitness.against_volume([{**root, "boot_index": None}]), "")


class TestKnown(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch.object(ds_util, "ALL_SUPPORTED_DS_TYPES", vmware_known.TYPES))
        info = mock.patch.object(vmops, "VirtualMachineInstanceConfigInfo", NOVAS_INFO)
        self.enterContext(info)
        before = ds_util.get_datastore.__defaults__
        self.addCleanup(setattr, ds_util.get_datastore, "__defaults__", before)
        ds_util.get_datastore.__defaults__ = (None, None, vmware_known.TYPES)

    def test_this_nova_is_known(self) -> None:
        self.assertEqual(vmware_known.unknown(), [])

    def test_installing_lets_nova_know_virtual_volumes_wherever_it_asks(self) -> None:
        vmware.install()
        vmware.install()
        self.assertIn("VVOL", ds_util.ALL_SUPPORTED_DS_TYPES)
        self.assertIn("VVOL", ds_util.get_datastore.__defaults__[-1])
        self.assertTrue(callable(vim_util.get_moref_value))

    def refused(self) -> str:
        with self.assertRaises(exception.NovaException) as caught:
            vmware.install()
        self.assertNotIn("VVOL", ds_util.get_datastore.__defaults__[-1])
        self.assertIs(vmops.VirtualMachineInstanceConfigInfo, NOVAS_INFO)
        return str(caught.exception)

    def test_another_function_is_refused_by_its_name(self) -> None:
        def another(self: Any, instance: Any, image_info: Any, extra_specs: Any) -> None:
            pass

        with mock.patch.object(vmops.VMwareVMOps, "_get_vm_config_info", another):
            self.assertIn("vmops.VMwareVMOps._get_vm_config_info", self.refused())

    def test_what_is_gone_is_refused_by_its_name(self) -> None:
        kept = images.fetch_image_ova
        del images.fetch_image_ova
        self.addCleanup(setattr, images, "fetch_image_ova", kept)
        self.assertIn("images.fetch_image_ova", self.refused())

    def test_other_datastore_types_are_refused(self) -> None:
        more = vmware_known.TYPES | {"PMEM"}
        with mock.patch.object(ds_util, "ALL_SUPPORTED_DS_TYPES", more):
            self.assertIn("ALL_SUPPORTED_DS_TYPES", self.refused())

    def test_other_defaults_are_refused(self) -> None:
        ds_util.get_datastore.__defaults__ = (None, None, vmware_known.TYPES - {"NFS"})
        self.assertIn("defaults", self.refused())


class TestCheck(unittest.TestCase):
    def check(self, *before: str) -> tuple[int, dict[str, Any]]:
        conf = Path(self.enterContext(tempfile.TemporaryDirectory())) / "nova.conf"
        conf.write_text("[DEFAULT]\ncompute_driver = moorline.VMwareVCDriver\n")
        code = "; ".join(
            [*before, "import sys, moorline_nova.check as c", "c.main(['check', *sys.argv[1:]])"]
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, "--config-file", conf, "-o", "json"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertTrue(done.stdout, done.stderr)
        findings = json.loads(done.stdout)["findings"]
        return done.returncode, {each["topic"]: each for each in findings}

    def test_all_is_well_without_an_agent(self) -> None:
        code, findings = self.check()
        self.assertEqual(code, 0, findings)
        self.assertTrue(findings["vmware"]["well"])
        self.assertNotIn("agent", findings)

    def test_another_nova_is_told(self) -> None:
        code, findings = self.check(
            "from nova.virt.vmwareapi import images", "del images.fetch_image_ova"
        )
        self.assertEqual(code, 1)
        self.assertIn("images.fetch_image_ova", findings["vmware"]["what"])

    def test_without_oslo_vmware_it_says_what_to_install(self) -> None:
        code, findings = self.check("import sys", "sys.modules['oslo_vmware'] = None")
        self.assertEqual(code, 1)
        self.assertIn("oslo.vmware", findings["vmware"]["advice"])


class TestLoading(unittest.TestCase):
    def test_nova_finds_the_driver_by_its_name(self) -> None:
        found = importutils.import_class("nova.virt.moorline.VMwareVCDriver")
        self.assertIs(found, vmware.VMwareVCDriver)

    def test_without_oslo_vmware_it_says_what_is_missing(self) -> None:
        from nova.virt import moorline

        with (
            mock.patch.dict("sys.modules", {"moorline_nova.vmware": None}),
            self.assertRaises(RuntimeError) as caught,
        ):
            moorline.VMwareVCDriver  # noqa: B018
        self.assertIn("oslo.vmware", str(caught.exception))


NOVAS_INFO = (
    vmware.ConfigInfo.__mro__[1]
    if issubclass(vmops.VirtualMachineInstanceConfigInfo, vmware.ConfigInfo)
    else vmops.VirtualMachineInstanceConfigInfo
)

if __name__ == "__main__":
    unittest.main()
