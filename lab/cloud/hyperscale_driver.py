"""A driver of Cinder's for the lab's HyperScale: Cinder has none any more since 2020.

What it says of a volume is what that one said (``lab/hyperscale/installation.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cinder.volume import driver

from lab.hyperscale.installation import HyperScale, HyperScaleVolume

_LAB = Path("/run/moorline-lab")
_GIB = 1 << 30
KIND = "hyperscale"


class HyperScaleDriver(driver.VolumeDriver):  # type: ignore[misc]
    """Volumes are the lab's."""

    VERSION = "1.0"

    def do_setup(self, context: Any) -> None:
        self._product = HyperScale(_LAB)

    def check_for_setup_error(self) -> None:
        pass

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        return {
            "volume_backend_name": KIND,
            "vendor_name": "the lab",
            "driver_version": self.VERSION,
            "storage_protocol": "veritas_hyperscale",
            "total_capacity_gb": "infinite",
            "free_capacity_gb": "infinite",
            "multiattach": True,
        }

    def create_volume(self, volume: Any) -> None:
        self._product.volume(volume.size * _GIB, id=volume.id)

    def delete_volume(self, volume: Any) -> None:
        self._volume(volume).remove()

    def extend_volume(self, volume: Any, new_size: int) -> None:
        self._volume(volume).grow(new_size * _GIB)

    def initialize_connection(self, volume: Any, connector: Any) -> dict[str, Any]:
        return self._volume(volume).connection()

    def terminate_connection(self, volume: Any, connector: Any, **_: Any) -> None:
        pass

    def create_export(self, context: Any, volume: Any, connector: Any) -> None:
        pass

    def ensure_export(self, context: Any, volume: Any) -> None:
        pass

    def remove_export(self, context: Any, volume: Any) -> None:
        pass

    def _volume(self, volume: Any) -> HyperScaleVolume:
        return HyperScaleVolume(self._product, f"{{{volume.id}}}")
