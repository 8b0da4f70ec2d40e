"""Which datastore is chosen, and what is refused in words; what goes wrong on Virtual Volumes."""

from __future__ import annotations

import re
import unittest
from typing import Any
from unittest import mock

from cloudcase import CONTEXT, GIB, LAB, MIB, Cloud, cloud
from nova import exception
from nova.virt.vmwareapi import vm_util
from oslo_vmware import exceptions as vexc


class Words(Cloud):
    """Has what is common to those below."""

    def refused(self, *args: Any, **named: Any) -> str:
        before = LAB.calls()
        with self.assertRaises(exception.InstanceUnacceptable) as caught:
            self.spawn(*args, **named)
        for made in ("CreateVM_Task", "ImportVApp"):
            self.assertEqual(LAB.calls().get(made), before.get(made))
        return str(caught.exception)

    def place(self, *args: Any, **named: Any) -> str:
        made = self.spawn(*args, **named)
        where = {store for store, _ in self.disks(made)}
        self.driver.destroy(CONTEXT, made, [], named.get("info"))
        self.assert_gone(made)
        self.assertEqual(len(where), 1)
        return where.pop()


class AmongTwo(Words):
    """The one of Virtual Volumes has more free space."""

    regex = "(vvol1|nfs1)$"

    def test_the_best_is_taken_for_what_can_be_there(self) -> None:
        self.assertEqual(self.place(self.image()), "vvol1")

    def test_an_odd_image_goes_to_the_next_best(self) -> None:
        for root_gb in (0, 1):
            self.assertEqual(self.place(self.image(8 + 1 / 16), root_gb), "nfs1")

    def test_an_odd_ova_does_too(self) -> None:
        self.assertEqual(self.place(self.image(8 + 1 / 16, as_ova=True), 0), "nfs1")

    def test_an_odd_volume_to_boot_from_does_too(self) -> None:
        info = cloud.devices(self.volume("nfs1", 8 + 1 / 16), boot=True)
        self.assertEqual(self.place(None, 0, info=info), "nfs1")
        info = cloud.devices(self.volume("nfs1", 8), boot=True)
        self.assertEqual(self.place(None, 0, info=info), "vvol1")

    def test_a_machine_that_migrates_goes_where_its_disks_can_be(self) -> None:
        elsewhere = re.compile("(vvol1|vmfs1)$")
        for mib, store in ((8, "vvol1"), (8 + 1 / 16, "vmfs1")):
            info = cloud.devices(self.volume("nfs1", mib), boot=True)
            LAB.datastore("vvol1", Accessible=False)
            made = self.spawn(None, 0, info)
            LAB.datastore("vvol1", Accessible=True)
            ref = vm_util.get_vm_ref(self.driver._session, made)
            found = self.driver._vmops._find_datastore_for_migration(
                made, ref, self.driver._cluster_ref, elsewhere
            )
            self.assertEqual(found.name, store)
            self.driver.destroy(CONTEXT, made, [], info)

    def test_both_are_in_the_inventory(self) -> None:
        tree = mock.Mock()
        tree.data.return_value.inventory = {}
        self.driver.update_provider_tree(tree, "node")
        (_, told), _ = tree.update_inventory.call_args
        self.assertEqual(told["DISK_GB"]["total"], 2000)


class OnlyVvol(Words):
    regex = "vvol1$"

    def test_an_odd_image_is_refused_with_what_to_do(self) -> None:
        said = self.refused(self.image(8 + 1 / 16), 0)
        for word in ("vvol1", str(8 * MIB + 65536), str(9 * MIB), "resize it"):
            self.assertIn(word, said)

    def test_an_odd_volume_is_refused_with_what_to_do(self) -> None:
        info = cloud.devices(self.volume("nfs1", 8 + 1 / 16), boot=True)
        self.assertIn("extend it", self.refused(None, 0, info=info))

    def test_other_disk_types_are_refused_with_what_to_do(self) -> None:
        for kind in ("preallocated", "sparse", "thin"):
            said = self.refused(self.image(hw_disk_type=kind))
            self.assertIn("streamOptimized", said)
        self.assertIn("ISO", self.refused(self.image(disk_format="iso")))

    def test_a_broken_stream_leaves_nothing(self) -> None:
        meta = self.image()
        self.glance.data[meta.id] = b"QFI\xfb" + bytes(1000)
        with self.assertRaises(exception.ImageUnacceptable):
            self.spawn(meta)

    def test_the_inventory_is_told(self) -> None:
        tree = mock.Mock()
        tree.data.return_value.inventory = {}
        self.driver.update_provider_tree(tree, "node")
        (_, told), _ = tree.update_inventory.call_args
        self.assertEqual(told["DISK_GB"]["total"], 1000)

    def test_there_are_no_linked_clones(self) -> None:
        made = self.spawn(self.image(img_linked_clone=True))
        disk = next(
            each
            for each in self.machine(made).config.hardware.device
            if each.backing and hasattr(each.backing, "diskMode")
        )
        self.assertIsNone(disk.backing.parent)
        self.driver.destroy(CONTEXT, made, [])

    def test_an_import_that_is_cut_is_never_taken_for_the_image(self) -> None:
        for cut in ({"Drop": True}, {"DropAfter": True}, {"Status": 507}):
            with self.subTest(cut):
                meta = self.image()
                LAB.fault("upload", **cut)
                with self.assertRaises(Exception):  # noqa: B017 - whatever the client makes of it
                    self.spawn(meta)
                imports = LAB.calls()["ImportVApp"]
                made = self.spawn(meta)
                self.assertEqual(LAB.calls()["ImportVApp"], imports + 1)
                self.assertEqual(self.disks(made), [("vvol1", GIB)])
                self.driver.destroy(CONTEXT, made, [])

    def test_an_image_that_cannot_be_noted_leaves_no_machine(self) -> None:
        before = self.named("OSTACK_IMG")
        LAB.fault("ReconfigVM_Task", Match="moorline.image", Fault="TaskInProgress")
        with self.assertRaises(vexc.VimException):
            self.spawn(self.image())
        self.assertEqual(self.named("OSTACK_IMG"), before)

    def test_what_cannot_be_destroyed_is_not_said_to_be_gone(self) -> None:
        made = self.spawn(self.image())
        LAB.fault("Destroy_Task", Fault="TaskInProgress")
        with self.assertRaises(vexc.VimException):
            self.driver.destroy(CONTEXT, made, [])
        self.assertTrue(self.driver.instance_exists(made))
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)
        self.driver.destroy(CONTEXT, made, [])

    def test_what_a_resize_left_is_deleted_as_a_disk(self) -> None:
        made = self.spawn(self.image())
        self.driver.migrate_disk_and_power_off(CONTEXT, made, "compute1", cloud.flavor(2), [])
        before = LAB.calls().get("DeleteVirtualDisk_Task", 0)
        self.driver.destroy(CONTEXT, made, [])
        self.assertEqual(LAB.calls().get("DeleteVirtualDisk_Task", 0), before + 1)
        self.assert_gone(made)

    def test_an_image_for_rescue_that_cannot_be_there_does_not_stop_the_instance(self) -> None:
        made = self.spawn(self.image())
        for other in (self.image(8 + 1 / 16), self.image(hw_disk_type="preallocated")):
            with self.assertRaises(exception.InstanceNotRescuable):
                self.driver.rescue(CONTEXT, made, [], other, None, None, [])
            self.assertEqual(self.driver.get_info(made).state, 1)
        self.driver.destroy(CONTEXT, made, [])

    def test_another_image_for_rescue_is_fetched_as_itself(self) -> None:
        made, other = self.spawn(self.image()), self.image(16)
        self.driver.rescue(CONTEXT, made, [], other, None, None, [])
        self.assertEqual(self.disks(made), [("vvol1", GIB), ("vvol1", 16 * MIB)])
        self.driver.unrescue(CONTEXT, made)
        self.driver.destroy(CONTEXT, made, [])


class Ageing(Cloud):
    regex = "vvol1$"

    def age(self, *used: Any) -> None:
        """What nova-compute does from time to time, for the images that are *used*."""
        running = {"used_images": {meta.id: None for meta in used}}
        with mock.patch.object(
            self.driver._vmops._imagecache, "_list_running_instances", return_value=running
        ):
            self.driver.manage_image_cache(CONTEXT, [])

    def test_an_unused_image_goes_when_it_is_old_enough(self) -> None:
        self.age()
        self.age()
        before = set(self.named("OSTACK_IMG"))
        used, unused = self.image(), self.image()
        for meta in (used, unused):
            self.driver.destroy(CONTEXT, self.spawn(meta), [])
        kept = set(self.named("OSTACK_IMG")) - before
        self.assertEqual(len(kept), 2)
        self.age(used)
        self.age(used)
        self.assertEqual(len(set(self.named("OSTACK_IMG")) & kept), 2)
        self.enterContext(_override("remove_unused_original_minimum_age_seconds", 0))
        self.age(used)
        self.assertEqual(len(set(self.named("OSTACK_IMG")) & kept), 1)
        imports = LAB.calls()["ImportVApp"]
        self.driver.destroy(CONTEXT, self.spawn(used), [])
        self.assertEqual(LAB.calls()["ImportVApp"], imports)

    def test_an_image_that_is_used_again_is_not_old(self) -> None:
        meta = self.image()
        self.driver.destroy(CONTEXT, self.spawn(meta), [])
        self.age()
        made = self.spawn(meta)
        self.enterContext(_override("remove_unused_original_minimum_age_seconds", 0))
        self.age()
        imports = LAB.calls()["ImportVApp"]
        self.driver.destroy(CONTEXT, made, [])
        self.driver.destroy(CONTEXT, self.spawn(meta), [])
        self.assertEqual(LAB.calls()["ImportVApp"], imports)


class ByPolicy(Cloud):
    @classmethod
    def setUpClass(cls) -> None:
        cls.driver = cloud.start(
            ".", pbm_enabled=True, pbm_default_policy="VVol No Requirements Policy"
        )
        cls.addClassCleanup(cls.driver.cleanup_host, "compute1")

    def test_the_policy_decides(self) -> None:
        made = self.spawn(self.image())
        self.assertEqual(self.disks(made), [("vvol1", GIB)])
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)

    def test_what_no_datastore_of_the_policy_takes_is_refused(self) -> None:
        with self.assertRaises(exception.InstanceUnacceptable) as caught:
            self.spawn(self.image(hw_disk_type="preallocated"))
        self.assertIn("streamOptimized", str(caught.exception))


class _override:
    """An option of [image_cache], for a while."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value

    def __enter__(self) -> None:
        cloud.CONF.set_override(self.name, self.value, group="image_cache")

    def __exit__(self, *_: object) -> None:
        cloud.CONF.clear_override(self.name, group="image_cache")


if __name__ == "__main__":
    unittest.main()
