"""The driver that opens PowerVM. Light, as it is imported wherever options are read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from moorline.errors import Refused
from moorline.ports import Hypervisor, OpenContext, Option


class PowerVMDriver:
    """See :class:`moorline.ports.HypervisorDriver`."""

    uris: ClassVar[str] = "powervm:/// (on the NovaLink partition), powervm://HOST[:PORT]"
    options: ClassVar[Sequence[Option]] = (
        Option("novalink_user", "", "Who logs on to NovaLink with a password.", group="powervm"),
        Option(
            "novalink_password_file",
            "",
            "The file with the password, for its owner alone. Without it the logon is by a file"
            " that NovaLink writes for local users.",
            group="powervm",
        ),
        Option(
            "novalink_ca",
            "",
            "The authorities that may vouch for NovaLink (PEM). Default: those of the system.",
            group="powervm",
        ),
    )

    @staticmethod
    def open(uri: str, context: OpenContext) -> Hypervisor:
        try:
            with warnings.catch_warnings():
                # oslo.utils tries to import eventlet, which warns wherever it is installed.
                warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
                from moorline.hypervisors.powervm.hypervisor import PowerVM
                from moorline.hypervisors.powervm.remembered_slots import StoredSlots
                from moorline.hypervisors.powervm.session import Logon, NovaLink
        except ModuleNotFoundError as e:
            raise Refused(
                f"PowerVM cannot be used: {e}", hint="pip install 'moorline[powervm]'"
            ) from e

        def look(path: Path) -> None:
            context.host.image(path.parent, path.name, "raw")

        novalink = NovaLink(Logon.from_uri(uri, context.values), on_identity=context.on_identity)
        slots = StoredSlots(context.store, context.name, own=context.own)
        return PowerVM(novalink, slots, look, context.host.size)
