"""The driver that opens a vCenter. Light, as it is imported wherever options are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from moorline.errors import Refused
from moorline.hypervisors.vsphere.launch_options import CHOOSING, LAUNCHING
from moorline.ports import GuestOptions, Hypervisor, Launching, OpenContext, Option


class VSphereDriver:
    """See :class:`moorline.ports.HypervisorDriver`."""

    uris: ClassVar[str] = "vsphere://HOST[:PORT]"
    launching: ClassVar[Launching] = LAUNCHING
    choosing: ClassVar[GuestOptions] = CHOOSING
    options: ClassVar[Sequence[Option]] = (
        Option("vcenter_user", "", "Who logs on to vCenter.", group="vsphere"),
        Option(
            "vcenter_password_file",
            "",
            "The file with the password, for its owner alone.",
            group="vsphere",
        ),
        Option(
            "vcenter_ca",
            "",
            "The authorities that may vouch for vCenter (PEM). Default: those of the system.",
            group="vsphere",
        ),
        Option(
            "vcenter_thumbprint",
            "",
            "The fingerprint of vCenter's certificate, instead of an authority.",
            group="vsphere",
        ),
    )

    @staticmethod
    def open(uri: str, context: OpenContext) -> Hypervisor:
        try:
            from moorline.hypervisors.vsphere.client.session import Logon, Session
            from moorline.hypervisors.vsphere.hypervisor import VSphere
        except ModuleNotFoundError as e:
            raise Refused(
                f"vSphere cannot be used: {e}", hint="pip install 'moorline[vsphere]'"
            ) from e
        return VSphere(
            Session(Logon.from_uri(uri, context.values), on_identity=context.on_identity)
        )
