"""The driver that opens libvirt. Light, as it is imported wherever options are read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from moorline.hypervisors.libvirt.launch_options import LAUNCHING
from moorline.hypervisors.libvirt.migration import MIGRATION_OPTIONS, Migration
from moorline.ports import Hypervisor, Launching, OpenContext, Option


class LibvirtDriver:
    """See :class:`moorline.ports.HypervisorDriver`."""

    uris: ClassVar[str] = "qemu:///system, qemu:///session, qemu:///embed?root=DIR"
    options: ClassVar[Sequence[Option]] = MIGRATION_OPTIONS
    launching: ClassVar[Launching] = LAUNCHING

    @staticmethod
    def open(uri: str, context: OpenContext) -> Hypervisor:
        from moorline.hypervisors.libvirt.moving import MovingLibvirt

        host = context.host
        return MovingLibvirt(
            uri,
            migration=partial(Migration.from_values, context.values),
            run=host.run,
            measure=host.size,
            readable=host.readable,
            places=host.places,
            openable=host.openable,
        )
