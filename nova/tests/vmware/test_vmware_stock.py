"""Nova as it is, without the plug-in, on the same vCenter: it has no Virtual Volumes.

To be run in a process of its own: where the plug-in's driver was made, Nova is not as it was.
"""

from __future__ import annotations

import unittest

from cloudcase import CONTEXT, Cloud, cloud
from nova import exception


class Stock(Cloud):
    regex = "vvol1$"
    kind = cloud.STOCK

    def test_it_never_chooses_them(self) -> None:
        for kind in ("streamOptimized", "preallocated", "sparse"):
            with self.assertRaises(exception.DatastoreNotFound):
                self.spawn(self.image(hw_disk_type=kind))

    def test_the_host_has_no_space(self) -> None:
        self.assertEqual(self.driver.get_available_resource("node")["local_gb"], 0)


class StockOnVmfs(Cloud):
    regex = "vmfs1$"
    kind = cloud.STOCK

    def test_it_lives_on_the_others(self) -> None:
        made = self.spawn(self.image())
        self.driver.destroy(CONTEXT, made, [])
        self.assert_gone(made)

    def test_it_imports_no_ova(self) -> None:
        with self.assertRaises(Exception) as caught:
            self.spawn(self.image(as_ova=True))
        self.assertIn("Incomplete", str(caught.exception))


class StockByPolicy(Cloud):
    kind = cloud.STOCK

    @classmethod
    def setUpClass(cls) -> None:
        cls.driver = cloud.start(
            ".", cls.kind, pbm_enabled=True, pbm_default_policy="vSAN Default Storage Policy"
        )
        cls.addClassCleanup(cls.driver.cleanup_host, "compute1")

    def test_it_spawns_nothing_by_a_policy(self) -> None:
        with self.assertRaises(AttributeError):
            self.spawn(self.image())


if __name__ == "__main__":
    unittest.main()
