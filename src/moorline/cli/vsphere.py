"""datastores, relocate, and what launch, start and remove do on vSphere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from moorline.cli.common import Common, common
from moorline.cli.sizes import size

F = TypeVar("F", bound=Callable[..., Any])

_where = (
    click.option(
        "--datastore-regex",
        metavar="REGEX",
        help="Only datastores whose whole name matches.",
    ),
    click.option("--storage-policy", metavar="NAME", help="Only datastores that meet this policy."),
    click.option(
        "--cluster",
        metavar="NAME",
        help="Needed where there are several; a host in no cluster by its name.",
    ),
    click.option("--reserve", callback=size, metavar="SIZE", help="What must stay free beside it."),
    click.option(
        "--round-up", is_flag=True, help="The disk may become larger, to a whole multiple of 1 MiB."
    ),
)
_machine = (
    click.option(
        "--image",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="vSphere: a disk to bring in: a stream-optimised VMDK, or an OVA with one.",
    ),
    click.option("--empty", callback=size, metavar="SIZE", help="vSphere: an empty disk instead."),
    click.option("--cpus", type=click.IntRange(min=1), metavar="N", help="vSphere: default 1."),
    click.option(
        "--adapter",
        type=click.Choice(["pvscsi", "lsilogic", "lsisas", "buslogic"]),
        help="vSphere: the disk's controller; default: pvscsi.",
    ),
    click.option("--thin", is_flag=True, help="vSphere: allocate the disk as it is written."),
    click.option("--eager", is_flag=True, help="vSphere: allocate and zero all of it beforehand."),
    click.option(
        "--folder",
        metavar="NAME",
        help="vSphere: the machine's folder, by name, or path (prod/web).",
    ),
    click.option("--resource-pool", metavar="NAME", help="vSphere: the cluster's resource pool."),
)
_FIELDS = {
    "image": "image",
    "empty": "empty",
    "cpus": "cpus",
    "memory": "memory",
    "adapter": "adapter",
    "folder": "folder",
    "resource_pool": "resource_pool",
    "datastore_regex": "datastores",
    "storage_policy": "policy",
    "cluster": "cluster",
    "reserve": "reserve",
    "round_up": "round_up",
}
"""Options, and the fields of an order that they become."""


def launch_options(command: F) -> F:
    """Give `launch` the options that only vSphere has."""
    return _with(command, *_machine, *_where)


def launch(given: Common, name: str, *, start: bool, timeout: float, **asked: Any) -> None:
    """Make the machine on the datastore that suits it best, and power it on.

    Without *start*, it only holds its disk: a volume to attach to other machines.
    """
    if bool(asked.get("image")) == bool(asked.get("empty")):
        raise click.UsageError("give either --image FILE or --empty SIZE")
    if asked.get("thin") and asked.get("eager"):
        raise click.UsageError("a disk is either --thin or --eager")
    what = f"bringing in {asked['image']}" if asked.get("image") else f"making {name}"
    with _provisioner(given, name, timeout) as provisioner:
        order = provisioner.order(name, **_order(asked))
        make = provisioner.launch if start else provisioner.hold
        make(order, lambda done: given.progress.percent(what, done))
        made = provisioner.look(name)
    facts = {"guest": name, "guest_id": made.id, "running": start, "disks": [*made.disks]}
    disks = ", ".join(made.disks)
    held = f"volume {name} is made: {disks}, held by the machine {name}, which is not started"
    given.tell(facts, f"{name} runs, with {disks}" if start else held)


def start(given: Common, name: str, *, timeout: float) -> None:
    """Power a machine on that was launched."""
    with _provisioner(given, name, timeout) as provisioner:
        provisioner.start(name)
    given.tell({"guest": name, "running": True}, f"{name} runs")


def remove(given: Common, name: str, *, timeout: float) -> None:
    """Destroy a machine that was launched, with its own disk; volumes must be detached before."""
    with _provisioner(given, name, timeout) as provisioner:
        there = provisioner.remove(name)
    told = f"{name} is gone" if there else f"there is no machine {name}"
    given.tell({"guest": name, "running": False}, told)


def _provisioner(
    given: Common, name: str = "", timeout: float = 0.0
) -> AbstractContextManager[Any]:
    """Open vSphere's provisioner.

    *timeout*: seconds to wait for another command of this host that makes the same machine.
    """
    from moorline import wiring

    return wiring.open_provisioner(given.settings(), name, patience=timeout, waiting=given.progress)


def _with(command: F, *options: Callable[[F], F]) -> F:
    return reduce(lambda so_far, option: option(so_far), reversed(options), command)


@click.command()
@click.option("--for", "for_", callback=size, metavar="SIZE", help="The disk, such as 20G.")
@click.option(
    "--image", type=click.Path(path_type=Path), metavar="FILE", help="A disk that is brought in."
)
@click.option("--explain", is_flag=True, help="Also those that will not do, and why.")
@(lambda command: _with(command, *_where))
@common
def datastores(
    given: Common, for_: int | None, image: Path | None, explain: bool, **asked: Any
) -> None:
    """List the datastores of a vCenter that a disk can go to, the best first.

    Exits 3 if there is none.

    \b
    Examples:
      moorline datastores --for 20G --explain --hypervisor vsphere://vcenter.example
      moorline datastores --image disk.vmdk --datastore-regex 'vvol.*' --output json
    """
    if (for_ is None) == (image is None):
        raise click.UsageError("give either --for SIZE or --image FILE")
    with _provisioner(given) as provisioner:
        order = provisioner.order("none", **_order({**asked, "empty": for_, "image": image}))
        choice = provisioner.choose(order)
    told = [verdict for verdict in choice.verdicts if explain or not verdict.against]
    facts = [{**asdict(v.datastore), "size": v.size, "against": v.against} for v in told]
    given.tell(facts, "\n".join(choice.explain()[: len(told)]))
    if not told or told[0].against:
        choice.best()


@click.command()
@click.argument("guest")
@click.argument("volume")
@click.argument("datastore")
@click.option(
    "--round-up", is_flag=True, help="The disk may become larger, to a whole multiple of 1 MiB."
)
@common
def relocate(given: Common, guest: str, volume: str, datastore: str, round_up: bool) -> None:
    """Move a volume of GUEST to another DATASTORE while the guest has it.

    For disks on the datastores of a vCenter. A volume that Cinder keeps is
    for Cinder to move. It takes as long as vCenter needs. If it is interrupted,
    vCenter goes on: the same command, typed once it is done, records the new place.

    \b
    Examples:
      moorline relocate web01 3f2a vvol2 --hypervisor vsphere://vcenter.example
      moorline relocate web01 vmdk://nfs1/volumes/odd.vmdk vvol1 --round-up
    """
    with given.open(own=True, patience=10.0) as moorline:
        view = moorline.attachments.relocate(
            guest, volume, datastore, round_up=round_up, progress=given.progress
        )
    given.tell(view.to_dict(), f"volume {view.volume} of {view.guest} lies on {datastore}")


def _order(asked: dict[str, Any]) -> dict[str, Any]:
    """The fields of an order that were asked for; the others keep its defaults."""
    fields = {_FIELDS[key]: value for key, value in asked.items() if key in _FIELDS and value}
    if asked.get("thin") or asked.get("eager"):
        fields["thin"] = bool(asked.get("thin"))
    return fields
