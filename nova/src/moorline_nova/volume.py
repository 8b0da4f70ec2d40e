"""One volume driver for Nova, for all kinds: it calls the agent and passes its answer on.

Nothing here mounts, waits without a deadline, or needs a privilege.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nova.conf
from nova import exception
from nova.virt.block_device import get_volume_id
from nova.virt.libvirt.volume import volume
from oslo_log import log
from oslo_utils import importutils

from moorline.errors import MoorlineError, NotOurs, Refused
from moorline_nova.agent import Agent
from moorline_nova.controller import Controller, Knows, is_told
from moorline_nova.guest_disk import GuestDisk, describe
from moorline_nova.pending import Pending, Use

CONF = nova.conf.CONF
LOG = log.getLogger(__name__)

SOURCE = "moorline"
"""Under this key of a connection's data Nova keeps what the agent said the volume is on this
host. Nova sends it to the source of a live migration, which writes the destination's XML."""
_SECTOR = 512
_STAYS = "Volume %s is let go; its link stays until a person has decided: %s"


class MoorlineVolumeDriver:
    """Connects a volume for an instance: the agent mounts, checks, and cleans up.

    It has Nova's base class and is none of its subclasses: those, a test of Nova's own
    says, have its signatures to the letter, so without types. *novas*: the dotted paths
    of the classes that Nova itself has, by kind. *knows*: whether Nova uses a volume here.
    """

    def __init__(self, host: Any, novas: Mapping[str, str], knows: Knows) -> None:
        self._base = volume.LibvirtBaseVolumeDriver(host, is_block_dev=False)
        self._agent = Agent(CONF.moorline.socket)
        kept = Path(CONF.moorline.pending_dir) / quote(CONF.host, safe="")
        self.controller = Controller(self._agent, Pending(kept), knows)
        """Releases volumes; the maker of this driver starts and stops it."""
        self._host = host
        self._novas = novas

    def connect_volume(self, connection_info: dict[str, Any], instance: Any) -> None:
        """Make the volume reachable on this host.

        Raises InvalidVolume (it is refused; trying again is no use) or
        VolumeAttachFailed. After either nothing of it is wanted any more, or the agent
        is told so when it is back.
        """
        id = get_volume_id(connection_info)
        use = Use(instance.uuid, id)
        with self.controller.turn(use):
            try:
                self.controller.needed(use)
            except OSError as e:
                reason = f"it was to be let go, and that cannot be taken back: {e}"
                raise exception.VolumeAttachFailed(volume_id=id, reason=reason) from e
            self.controller.make_room(use)
            try:
                source = self._agent.attach(
                    use,
                    as_given(connection_info),
                    CONF.moorline.timeout,
                    shared=bool(connection_info.get("multiattach")),
                )
            except MoorlineError as e:
                # Nova takes it for never connected, and will not disconnect it.
                self.controller.not_needed(use)
                raise _as_nova_says(e, id) from e
        connection_info["data"][SOURCE] = source

    def disconnect_volume(
        self, connection_info: dict[str, Any], instance: Any, force: bool = False
    ) -> None:
        """Release the volume. The agent removes the link once nothing names it.

        That may be after this returns: Nova disconnects before it undefines a
        guest, and a share may be busy with others. Raises VolumeDetachFailed if the agent
        cannot be told now, or a device of the volume alone stays; unless forced. It is told
        later then.
        """
        id = get_volume_id(connection_info)
        use = Use(instance.uuid, id)
        with self.controller.turn(use):
            try:
                why_it_stays = self._agent.detach(use, CONF.moorline.timeout)
            except MoorlineError as e:
                told = is_told(e)
                (self.controller.told if told else self.controller.not_needed)(use)
                if not (force or (told and _is_on_share(connection_info))):
                    raise exception.VolumeDetachFailed(volume_id=id, reason=str(e)) from e
                _say_what_follows(e, id, instance)
            else:
                self.controller.told(use)
                if why_it_stays:
                    LOG.warning(_STAYS, id, why_it_stays, instance=instance)
        connection_info.get("data", {}).pop(SOURCE, None)

    def get_config(self, connection_info: dict[str, Any], disk_info: Mapping[str, Any]) -> Any:
        """The guest's disk: Nova's own, with the agent's source, format, cache and label policy.

        A volume that Nova's driver connected, on a live migration's destination
        that knows no Moorline, is what Nova's driver says. Raises InvalidVolume.
        """
        source = connection_info["data"].get(SOURCE)
        if source is None:
            return self._as_nova(connection_info).get_config(connection_info, disk_info)
        conf = self._base.get_config(connection_info, disk_info)
        disk = GuestDisk()
        disk.__dict__.update(conf.__dict__)
        describe(disk, source)
        return disk

    def extend_volume(
        self, connection_info: dict[str, Any], instance: Any, requested_size: int
    ) -> int:
        """The volume's size now, in bytes; Nova tells the guest.

        A file was extended by Cinder; a device must have grown already, or
        VolumeExtendFailed is raised.
        """
        source = connection_info["data"].get(SOURCE) or {}
        if source.get("type") != "BlockDevice":
            return requested_size
        size = _size_of(Path(source["path"]))
        if size < requested_size:
            raise exception.VolumeExtendFailed(
                volume_id=get_volume_id(connection_info),
                reason=f"the device has {size} bytes, not {requested_size}",
            )
        return size

    def _as_nova(self, connection_info: Mapping[str, Any]) -> Any:
        """Nova's own driver for a volume. Raises InvalidVolume if it has none."""
        kind = connection_info["driver_volume_type"]
        if kind not in self._novas:
            raise exception.InvalidVolume(reason="the volume was not connected by Moorline")
        return importutils.import_object(self._novas[kind], self._host)


def as_given(connection_info: Mapping[str, Any]) -> dict[str, Any]:
    """Cinder's connection, without the fields that Nova and this driver added."""
    data = {key: value for key, value in connection_info["data"].items() if key != SOURCE}
    return {"driver_volume_type": connection_info["driver_volume_type"], "data": data}


def _is_on_share(connection_info: Mapping[str, Any]) -> bool:
    """Whether other volumes may use the link, so that Cinder does not wait for its removal."""
    source = connection_info.get("data", {}).get(SOURCE) or {}
    return source.get("type") == "ImageFile"


def _say_what_follows(error: MoorlineError, id: str, instance: Any) -> None:
    """Log that a released volume's link is still there, and why."""
    if isinstance(error, NotOurs):
        LOG.warning(_STAYS, id, error, instance=instance)
    elif is_told(error):
        what = "Volume %s is let go; the agent disconnects it when that can be done: %s"
        LOG.info(what, id, error, instance=instance)
    else:
        what = "Volume %s is let go as soon as the agent can be told: %s"
        LOG.warning(what, id, error, instance=instance)


def _as_nova_says(error: MoorlineError, id: str) -> Exception:
    if isinstance(error, Refused):
        return exception.InvalidVolume(reason=str(error))
    return exception.VolumeAttachFailed(volume_id=id, reason=str(error))


def _size_of(device: Path) -> int:
    """Bytes of a block device, as the kernel knows it; the device itself is not opened."""
    number = device.stat().st_rdev  # the node may have any name
    kernel = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    return int((kernel / "size").read_text()) * _SECTOR
