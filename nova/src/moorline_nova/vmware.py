"""Nova's VMware driver, with datastores of Virtual Volumes (VVOL).

Nova's knowledge of datastores is bound in three places. They are replaced when a driver is made,
after a check that they are as expected. All else is done by overriding.
"""

from __future__ import annotations

from typing import Any

from nova.virt.vmwareapi import driver, ds_util, vim_util, vmops
from oslo_vmware import vim_util as vutil

from moorline_nova import vmware_known
from moorline_nova.vmware_ops import ConfigInfo, VMOps
from moorline_nova.vmware_stores import WIDE


def install() -> None:
    """Let Nova's modules know Virtual Volumes. Repeating it is harmless.

    Raises NovaException, and changes nothing, if they are others than those that are known.
    """
    if ds_util.ALL_SUPPORTED_DS_TYPES == WIDE:
        return
    vmware_known.require()
    # The inventory and the ageing of images read this at each call.
    ds_util.ALL_SUPPORTED_DS_TYPES = WIDE
    # The host's statistics and live migration give no types: the default is bound to the function.
    ds_util.get_datastore.__defaults__ = (None, None, WIDE)
    vmops.VirtualMachineInstanceConfigInfo = ConfigInfo
    # Nova 32 to 34 ask the wrong module for this function; each spawn with a storage policy fails.
    if not hasattr(vim_util, "get_moref_value"):
        vim_util.get_moref_value = vutil.get_moref_value


class VMwareVCDriver(driver.VMwareVCDriver):  # type: ignore[misc]
    """Nova's own driver, whose instances may be on Virtual Volumes."""

    def __init__(self, virtapi: Any, *args: Any, **named: Any) -> None:
        install()
        super().__init__(virtapi, *args, **named)
        self._vmops = VMOps(
            self._session,
            virtapi,
            self._volumeops,
            self._cluster_ref,
            datastore_regex=self._datastore_regex,
        )
