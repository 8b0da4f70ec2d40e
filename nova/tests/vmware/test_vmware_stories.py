"""The life of instances on each of the five types of datastores."""

from __future__ import annotations

import unittest
from typing import Any
from unittest import mock

from cloudcase import CONTEXT, GIB, LAB, MIB, STORES, Cloud, cloud


class Stories:
    """What is the same for each type of datastore; mixed into a test case."""

    store: str

    def test_resources_are_told(self: Any) -> None:
        self.assertGreater(self.driver.get_available_resource("node")["local_gb"], 0)

    def test_spawn_from_a_stream_optimized_image_and_again_from_the_cache(self: Any) -> None:
        meta = self.image()
        first = self.spawn(meta, ephemeral_gb=1, swap=64)
        imports = LAB.calls()["ImportVApp"]
        second = self.spawn(meta, 2)
        self.assertEqual(LAB.calls()["ImportVApp"], imports)
        self.assertEqual(
            self.disks(first), [(self.store, GIB), (self.store, GIB), (self.store, 64 * MIB)]
        )
        self.assertEqual(self.disks(second), [(self.store, 2 * GIB)])
        for each in (first, second):
            self.assertEqual(self.driver.get_info(each).state, 1)
            self.assertIn(each.uuid, self.driver.list_instances())
            self.driver.destroy(CONTEXT, each, [])
            self.assert_gone(each)
        third = self.spawn(meta)
        self.assertEqual(LAB.calls()["ImportVApp"], imports)
        self.driver.destroy(CONTEXT, third, [])

    def test_spawn_from_an_ova(self: Any) -> None:
        made = self.spawn(self.image(as_ova=True), 0)
        self.assertEqual(self.disks(made), [(self.store, 8 * MIB)])
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)

    def test_boot_from_a_volume_and_delete_the_instance(self: Any) -> None:
        connection = self.volume(self.store)
        info = cloud.devices(connection, boot=True)
        made = self.spawn(None, 0, info)
        self.assertEqual(self.disks(made), [(self.store, 8 * MIB)])
        self.driver.destroy(CONTEXT, made, [], info)
        self.assert_gone(made)
        self.assertEqual(len(LAB.disks_of(connection["data"]["name"])), 1)

    def test_volumes_come_and_go(self: Any) -> None:
        made = self.spawn(self.image())
        connection = self.volume(self.store, 16)
        self.driver.attach_volume(CONTEXT, connection, made, "/dev/sdb")
        self.assertEqual(self.disks(made)[1:], [(self.store, 16 * MIB)])
        self.driver.detach_volume(CONTEXT, connection, made, "/dev/sdb")
        self.assertEqual(len(self.disks(made)), 1)
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)
        self.assertEqual(len(LAB.disks_of(connection["data"]["name"])), 1)

    def test_a_volume_that_is_still_attached_outlives_the_instance(self: Any) -> None:
        made = self.spawn(self.image())
        connection = self.volume(self.store, 16)
        self.driver.attach_volume(CONTEXT, connection, made, "/dev/sdb")
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)
        self.assertEqual(len(LAB.disks_of(connection["data"]["name"])), 1)

    def test_resize_and_confirm(self: Any) -> None:
        made = self.spawn(self.image(), 1)
        larger = cloud.flavor(2)
        self.driver.migrate_disk_and_power_off(CONTEXT, made, "compute1", larger, [])
        made.flavor = larger
        self.driver.finish_migration(
            CONTEXT, None, made, "", [], made.image_meta, True, {}, power_on=True
        )
        self.assertEqual(self.disks(made), [(self.store, 2 * GIB)])
        self.driver.confirm_migration(CONTEXT, None, made, [])
        left = [disk for disk in LAB.disks() if disk.endswith("original.vmdk")]
        self.assertEqual(left, [])
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)

    def test_resize_and_delete_without_confirming(self: Any) -> None:
        made = self.spawn(self.image(), 1)
        self.driver.migrate_disk_and_power_off(CONTEXT, made, "compute1", cloud.flavor(2), [])
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)
        self.assertEqual([disk for disk in LAB.disks() if "original" in disk], [])

    def test_snapshot(self: Any) -> None:
        made = self.spawn(self.image())
        self.driver.snapshot(CONTEXT, made, "snapshot", mock.Mock())
        self.assertEqual(self.glance.uploaded["snapshot"][:4], b"KDMV")
        self.assertEqual(LAB.calls()["RemoveSnapshot_Task"], 1)
        self.assertEqual(self.named("OSTACK_SNAP"), [])
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)

    def test_rescue_and_unrescue(self: Any) -> None:
        meta = self.image()
        made = self.spawn(meta)
        self.driver.rescue(CONTEXT, made, [], meta, None, None, [])
        self.assertEqual(len(self.disks(made)), 2)
        self.driver.unrescue(CONTEXT, made)
        self.assertEqual(self.disks(made), [(self.store, GIB)])
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)


def on(kind: str, *more: type) -> type:
    """The stories on one type of datastores."""
    inside = {"regex": f"{STORES[kind]}$", "store": STORES[kind]}
    return type(f"On{kind}", (Stories, *more, Cloud), inside)


OnVMFS, OnNFS, OnNFS41, OnVSAN = on("VMFS"), on("NFS"), on("NFS41"), on("vsan")
OnVVOL = on("VVOL")

if __name__ == "__main__":
    unittest.main()
