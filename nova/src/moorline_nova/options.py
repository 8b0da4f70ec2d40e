"""The plug-in's own options, in the section ``[moorline]`` of nova.conf."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg, types

ALWAYS = ("veritas_hyperscale", "vzstorage", "quobyte")
"""The kinds that Nova has dropped, or will drop."""
BY_OPTION = ("nfs", "smbfs", "gpfs", "glusterfs")

OPTIONS = [
    cfg.StrOpt(
        "socket",
        default="/var/lib/moorline/agent.sock",
        help="Where Moorline's agent of this host listens.",
    ),
    cfg.ListOpt(
        "volume_types",
        default=list(ALWAYS),
        item_type=types.String(choices=[*ALWAYS, *BY_OPTION]),
        help="The types of volumes (driver_volume_type) that Moorline connects.",
    ),
    cfg.StrOpt(
        "pending_dir",
        default="$state_path/moorline",
        help="Where nova-compute keeps what the agent could not be told yet; on a local disk.",
    ),
    cfg.IntOpt(
        "timeout",
        default=120,
        min=1,
        help="Seconds that a volume may take to be connected, the mounting included.",
    ),
]


def register(conf: cfg.ConfigOpts) -> Sequence[str]:
    """Make the options known to *conf*. Repeating it is harmless."""
    conf.register_opts(OPTIONS, group="moorline")
    return [option.name for option in OPTIONS]
