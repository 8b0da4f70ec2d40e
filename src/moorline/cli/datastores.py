"""datastores, relocate: where the hypervisor keeps disks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from moorline.cli.common import (
    Common,
    common,
    dry_run_option,
    guest_argument,
    told,
    volume_argument,
)
from moorline.cli.hypervisor_options import HypervisorOptionsCommand, asked, chosen_driver, typed
from moorline.ports import ChoosingDriver

if TYPE_CHECKING:
    from moorline.ports import HypervisorDriver


def _for_datastores(driver: type[HypervisorDriver]) -> Sequence[click.Parameter] | None:
    return typed(driver.choosing) if isinstance(driver, ChoosingDriver) else None


@click.command(cls=HypervisorOptionsCommand, offer=_for_datastores)
@click.option("--explain", is_flag=True, help="Also those that will not do, and why.")
@common
def datastores(given: Common, explain: bool, **values: Any) -> None:
    """List the datastores of a vCenter that a disk can go to, the best first.

    Exits 3 if there is none.

    \b
    Examples:
      moorline datastores --for 20G --explain --hypervisor vsphere://vcenter.example
      moorline datastores --image disk.vmdk --cluster c1 -c vsphere://vcenter.example -o json
    """
    driver = chosen_driver()
    wanted: dict[str, Any] = {}
    if isinstance(driver, ChoosingDriver):
        wanted = asked(driver.choosing, values)
    with given.open(own=False, first=True) as moorline:
        choice = moorline.guests.datastores(wanted)
    told = [verdict for verdict in choice.verdicts if explain or not verdict.against]
    facts = [{**asdict(v.datastore), "size": v.size, "against": v.against} for v in told]
    given.tell(facts, "\n".join(choice.explain()[: len(told)]))
    choice.demand()


@click.command()
@guest_argument
@volume_argument
@click.argument("datastore")
@click.option(
    "--round-up", is_flag=True, help="The disk may become larger, to a whole multiple of 1 MiB."
)
@dry_run_option
@common
def relocate(
    given: Common, guest: str, volume: str, datastore: str, round_up: bool, dry_run: bool
) -> None:
    """Move a volume of GUEST to another DATASTORE while the guest has it.

    For disks on the datastores of a vCenter. A volume that Cinder keeps is
    for Cinder to move. It takes as long as vCenter needs. If it is interrupted,
    vCenter goes on: the same command, typed once it is done, records the new place.

    \b
    Examples:
      moorline relocate web01 3f2a vvol2 --hypervisor vsphere://vcenter.example
      moorline relocate web01 vmdk://nfs1/volumes/odd.vmdk vvol1 --round-up
    """
    with given.open(own=not dry_run, patience=10.0) as moorline:
        view = moorline.attachments.relocate(
            guest,
            volume,
            datastore,
            round_up=round_up,
            progress=given.progress,
            **told(dry_run=dry_run),
        )
    text = f"volume {view.volume} of {view.guest} lies on {datastore}"
    if dry_run:
        there = (view.source or {}).get("datastore") == datastore
        text = "nothing to do" if there else f"would move volume {view.volume} to {datastore}"
    given.tell(view.to_dict(), text)
