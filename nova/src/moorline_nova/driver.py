"""Nova's libvirt driver, with Moorline for the kinds of volumes that are configured.

Nova looks a volume's driver up in a module-level table at each call, so adding
to the table is all that it takes; nothing of Nova is changed.
"""

from __future__ import annotations

from typing import Any

import nova.conf
from nova import context, exception, objects
from nova.virt.libvirt import driver

from moorline_nova import options
from moorline_nova.volume import MoorlineVolumeDriver

CONF = nova.conf.CONF
NOVAS = dict(driver.VOLUME_DRIVERS)
"""What Nova itself has for each kind."""
_OURS = f"{MoorlineVolumeDriver.__module__}.{MoorlineVolumeDriver.__qualname__}"


class LibvirtDriver(driver.LibvirtDriver):  # type: ignore[misc]
    """Nova's own in all but the volumes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options.register(CONF)
        ours = MoorlineVolumeDriver(self._host, NOVAS)
        # Nova asks the table whether a kind is known, and then finds it made already.
        driver.VOLUME_DRIVERS.update(dict.fromkeys(CONF.moorline.volume_types, _OURS))
        self.volume_drivers.update(dict.fromkeys(CONF.moorline.volume_types, ours))
        self._moorline = ours

    def init_host(self, host: str) -> None:
        super().init_host(host)
        self._moorline.forget(_knows)

    def _should_disconnect_target(
        self, context: Any, instance: Any, multiattach: Any, vol_driver: Any, volume_id: str
    ) -> bool:
        """Tell of every disconnect.

        Nova keeps back all but the last of a multi-attached volume on this host,
        counted by an unlocked read of Cinder; the agent knows each instance's wish.
        """
        if isinstance(vol_driver, MoorlineVolumeDriver):
            return True
        needed: bool = super()._should_disconnect_target(
            context, instance, multiattach, vol_driver, volume_id
        )
        return needed


def _knows(volume: str, instance: str) -> bool:
    """Whether the instance, wherever it is, has the volume or is to have it."""
    try:
        objects.BlockDeviceMapping.get_by_volume_and_instance(
            context.get_admin_context(), volume, instance
        )
    except exception.NotFound:
        return False
    return True
