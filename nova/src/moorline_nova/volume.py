"""One volume driver for Nova, for all kinds: it asks the agent, and hands on what it says.

Nothing here mounts, waits without a deadline, or needs a privilege.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import nova.conf
from nova import exception
from nova.virt.block_device import get_volume_id
from nova.virt.libvirt.volume import volume
from oslo_log import log
from oslo_utils import importutils

from moorline.errors import (
    Conflict,
    Failed,
    MoorlineError,
    NotOurs,
    Refused,
    Unavailable,
    Uncertain,
)
from moorline.local_api.client import Client
from moorline.model import DiskOptions, Level
from moorline_nova.guest_disk import GuestDisk, describe

CONF = nova.conf.CONF
LOG = log.getLogger(__name__)

SOURCE = "moorline"
"""Under this key of a connection's data Nova keeps what the agent said the volume is on this
host. Nova sends it to the source of a live migration, which writes the destination's XML."""
_SECTOR = 512
_PAUSE = 0.5
"""Seconds between two looks whether the agent is back."""
_RESTART = 5.0
"""Seconds that an agent takes to be restarted."""
_MOST_LOSSES = 3
T = TypeVar("T")


class MoorlineVolumeDriver:
    """Connects a volume for an instance: the agent mounts, checks, and cleans up.

    It has Nova's base class and is none of its subclasses: those, a test of Nova's own
    says, have its signatures to the letter, so without types. *novas*: the dotted paths
    of the classes that Nova itself has, by kind.
    """

    def __init__(self, host: Any, novas: Mapping[str, str]) -> None:
        self._base = volume.LibvirtBaseVolumeDriver(host, is_block_dev=False)
        self._agent = Client(CONF.moorline.socket)
        self._host = host
        self._novas = novas

    def connect_volume(self, connection_info: dict[str, Any], instance: Any) -> None:
        """Make the volume reachable on this host.

        Raises InvalidVolume (it is refused; trying again is no use) or
        VolumeAttachFailed. After either nothing of it is wished any more.
        """
        id = get_volume_id(connection_info)
        try:
            outcome = _persist(
                lambda left: self._agent.attach(
                    instance.uuid,
                    as_given(connection_info),
                    volume=id,
                    level=Level.CONNECTED,
                    options=DiskOptions(shared=bool(connection_info.get("multiattach"))),
                    hands_off=True,
                    timeout=left,
                )
            )
        except MoorlineError as e:
            if not isinstance(e, Unavailable):
                # Nova takes it as never done, and will not disconnect it.
                self._try_to_let_go(id, instance.uuid)
            raise _as_nova_says(e, id) from e
        connection_info["data"][SOURCE] = outcome.view.source

    def disconnect_volume(
        self, connection_info: dict[str, Any], instance: Any, force: bool = False
    ) -> None:
        """Need the volume no more. The agent takes the link away once nothing names it.

        That may be after this returns: Nova disconnects before it undefines a
        guest, and a share may be busy with others. Raises VolumeDetachFailed if the agent
        cannot be told, or a device of the volume alone stays; unless forced.
        """
        id = get_volume_id(connection_info)
        try:
            self._let_go(id, instance.uuid)
        except MoorlineError as e:
            if not (force or (_is_told(e) and _is_on_share(connection_info))):
                raise exception.VolumeDetachFailed(volume_id=id, reason=str(e)) from e
            LOG.warning("Volume %s is not disconnected yet: %s", id, e, instance=instance)
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

    def forget(self, knows: Callable[[str, str], bool]) -> None:
        """Let go of each volume that Nova, asked by volume and instance, does not know.

        Of an attach that failed while the agent was gone, or that nova-compute did not live
        to undo, only the agent knows.
        """
        try:
            views = self._agent.list()
        except MoorlineError as e:
            LOG.warning("What the agent keeps was not compared with what Nova knows: %s", e)
            return
        for view in views:
            if not knows(view.volume, view.guest_id):
                # One that was attached by hand is none of Nova's, and the agent keeps it.
                LOG.info("Nova knows no volume %s of %s", view.volume, view.guest_id)
                self._try_to_let_go(view.volume, view.guest_id)

    def _as_nova(self, connection_info: Mapping[str, Any]) -> Any:
        """Nova's own driver for a volume. Raises InvalidVolume if it has none."""
        kind = connection_info["driver_volume_type"]
        if kind not in self._novas:
            raise exception.InvalidVolume(reason="the volume was not connected by Moorline")
        return importutils.import_object(self._novas[kind], self._host)

    def _try_to_let_go(self, id: str, instance: str) -> None:
        """What fails here is tried again when nova-compute starts."""
        with suppress(MoorlineError):
            self._let_go(id, instance)

    def _let_go(self, id: str, instance: str) -> None:
        _persist(lambda left: self._agent.detach(instance, id, hands_off=True))


def _persist(ask: Callable[[float], T]) -> T:
    """Ask the agent; if it is lost in the midst of that, wait for it and ask again.

    What was asked may be recorded by then, and Nova would not know. *ask* is told the
    seconds that are left. For an agent that is not there at all, a restart's time is waited.
    """
    begun = time.monotonic()
    end = begun + CONF.moorline.timeout
    losses = 0
    while True:
        left = end - time.monotonic()
        try:
            return ask(max(left, 1.0))
        except Uncertain:
            losses += 1
            if losses > _MOST_LOSSES or left < _PAUSE:
                raise
        except Unavailable:
            if left < _PAUSE or (not losses and time.monotonic() - begun > _RESTART):
                raise
        time.sleep(_PAUSE)


def as_given(connection_info: Mapping[str, Any]) -> dict[str, Any]:
    """Cinder's connection, without what Nova and this driver have added to it."""
    data = {key: value for key, value in connection_info["data"].items() if key != SOURCE}
    return {"driver_volume_type": connection_info["driver_volume_type"], "data": data}


def _is_told(error: MoorlineError) -> bool:
    """Whether the agent knows what is wanted, and goes on by itself."""
    return isinstance(error, Failed | NotOurs) and not isinstance(error, Unavailable | Conflict)


def _is_on_share(connection_info: Mapping[str, Any]) -> bool:
    """Whether others may use the volume's link, so that Cinder waits for nothing of it."""
    source = connection_info.get("data", {}).get(SOURCE) or {}
    return source.get("type") == "ImageFile"


def _as_nova_says(error: MoorlineError, id: str) -> Exception:
    if isinstance(error, Refused):
        return exception.InvalidVolume(reason=str(error))
    return exception.VolumeAttachFailed(volume_id=id, reason=str(error))


def _size_of(device: Path) -> int:
    """Bytes of a block device, as the kernel knows it; the device itself is not opened."""
    number = device.stat().st_rdev  # the node may have any name
    kernel = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    return int((kernel / "size").read_text()) * _SECTOR
