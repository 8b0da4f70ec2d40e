"""Nova's libvirt driver, with Moorline for the kinds of volumes that are configured.

Nova looks a volume's driver up in a module-level table at each call, so adding
to the table is all that it takes; nothing of Nova is changed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import nova.conf
from nova import context, exception, objects
from nova.virt.libvirt import driver

from moorline_nova import options
from moorline_nova.pending import Use
from moorline_nova.volume import MoorlineVolumeDriver

CONF = nova.conf.CONF
NOVAS = dict(driver.VOLUME_DRIVERS)
"""Nova's own driver for each kind."""
_OURS = f"{MoorlineVolumeDriver.__module__}.{MoorlineVolumeDriver.__qualname__}"

_OVER = frozenset({"cancelled", "completed", "confirmed", "done", "error", "failed", "reverted"})
"""How a migration may have ended."""


class LibvirtDriver(driver.LibvirtDriver):  # type: ignore[misc]
    """Nova's own driver, but for the volumes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options.register(CONF)
        ours = MoorlineVolumeDriver(self._host, NOVAS, partial(knows, CONF.host))
        # Nova looks a kind up in the table, where our driver is made already.
        driver.VOLUME_DRIVERS.update(dict.fromkeys(CONF.moorline.volume_types, _OURS))
        self.volume_drivers.update(dict.fromkeys(CONF.moorline.volume_types, ours))
        self._moorline = ours

    def init_host(self, host: str) -> None:
        super().init_host(host)
        self._moorline.controller.start()

    def cleanup_host(self, host: str) -> None:
        self._moorline.controller.stop()
        super().cleanup_host(host)

    def cleanup(self, context: Any, instance: Any, *given: Any, **how: Any) -> Any:
        try:
            return super().cleanup(context, instance, *given, **how)
        finally:
            self._moorline.controller.left(instance.uuid)

    def _should_disconnect_target(
        self, context: Any, instance: Any, multiattach: Any, vol_driver: Any, volume_id: str
    ) -> bool:
        """Pass every disconnect on to the agent.

        Nova keeps back all but the last of a multi-attached volume on this host,
        counted by an unlocked read of Cinder; the agent knows each instance's attachment.
        """
        if isinstance(vol_driver, MoorlineVolumeDriver):
            return True
        needed: bool = super()._should_disconnect_target(
            context, instance, multiattach, vol_driver, volume_id
        )
        return needed


def knows(host: str, use: Use) -> bool:
    """Whether the instance has the volume, or is to have it, and is on *host* or on its way.

    An instance that went away is known no more, though Nova has it elsewhere; one that comes,
    goes, or may come back is, until its migration is over.
    """
    admin = context.get_admin_context()
    try:
        objects.BlockDeviceMapping.get_by_volume_and_instance(admin, use.volume, use.instance)
        instance = objects.Instance.get_by_uuid(admin, use.instance, expected_attrs=[])
    except exception.NotFound:
        return False
    if instance.host == host:
        return True
    moves = objects.MigrationList.get_by_filters(
        admin, {"host": host, "instance_uuid": use.instance}
    )
    return any(move.status not in _OVER for move in moves)
