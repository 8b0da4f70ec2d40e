"""Nova's ageing of cached images, also for images that machines keep on Virtual Volumes."""

from __future__ import annotations

from typing import Any

from nova import utils
from nova.virt.vmwareapi import imagecache
from oslo_config import cfg
from oslo_log import log
from oslo_utils import timeutils

from moorline_nova.vmware_kept import KeptImages
from moorline_nova.vmware_stores import Stores

CONF = cfg.CONF
LOG = log.getLogger(__name__)
_FORMAT = imagecache.TIMESTAMP_FORMAT


class ImageCache(imagecache.ImageCacheManager):  # type: ignore[misc]
    """Nova's own; on Virtual Volumes an image's machine has a note since when it is unused."""

    def __init__(self, session: Any, base_folder: str, stores: Stores, kept: KeptImages) -> None:
        super().__init__(session, base_folder)
        self._stores = stores
        self._kept = kept

    def enlist_image(self, image_id: str, datastore: Any, dc_ref: Any) -> None:
        if not self._stores.is_vvol(datastore.ref):
            super().enlist_image(image_id, datastore, dc_ref)
            return
        _in_turn(datastore, image_id)(self._kept.used)(image_id, datastore)

    def _list_datastore_images(self, ds_path: Any, datastore: Any) -> Any:
        if not self._stores.is_vvol(datastore.ref):
            return super()._list_datastore_images(ds_path, datastore)
        return {"unexplained_images": [], "originals": set(self._kept.all(datastore))}

    def _age_cached_images(self, context: Any, datastore: Any, dc_info: Any, ds_path: Any) -> None:
        if not self._stores.is_vvol(datastore.ref):
            super()._age_cached_images(context, datastore, dc_info, ds_path)
            return
        for image_id in self._kept.all(datastore):
            _in_turn(datastore, image_id)(self._age)(image_id, datastore)

    def _age(self, image_id: str, datastore: Any) -> None:
        # Read again: an instance may have come for it meanwhile.
        machine, since = self._kept.all(datastore).get(image_id, (None, ""))
        if machine is None:
            return
        if image_id in self.used_images:
            if since:
                self._kept.unused(machine, "")
        elif not since:
            LOG.info("Image %s is no longer used by this node. Pending deletion!", image_id)
            self._kept.unused(machine, timeutils.utcnow().strftime(_FORMAT))
        elif timeutils.is_older_than(
            timeutils.parse_strtime(since, fmt=_FORMAT),
            CONF.image_cache.remove_unused_original_minimum_age_seconds,
        ):
            LOG.info("Image %s is no longer used. Deleting!", image_id)
            self._kept.drop(machine)


def _in_turn(datastore: Any, image_id: str) -> Any:
    """Decorates a function that only one process at a time may run for an image on a datastore."""
    return utils.synchronized(f"vmware-kept-{datastore.name}-{image_id}", external=True)
