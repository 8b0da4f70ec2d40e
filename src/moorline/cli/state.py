"""state: whose this host's state directory is, and how it becomes another's."""

from __future__ import annotations

import click

from moorline.cli.common import Common, common, dry_run_option
from moorline.cli.groups import Group
from moorline.core.state_owner import Ownership


@click.group(cls=Group)
def state() -> None:
    """Tell whose the state directory is, or let it be another host's or machine's."""


@state.command("show")
@common
def show(given: Common) -> None:
    """Say whose the state is, and what is so here and now. Changes nothing.

    \b
    Example:
      moorline state show
    """
    from moorline import wiring

    settings = given.settings()
    given.watch_state(settings, changes=False)
    with wiring.open_state(settings, own=False) as (owner, now):
        told = owner.tell(now)
    given.tell(told, _text(told, "belongs"))


@state.command()
@click.argument("name")
@dry_run_option
@common
def rename(given: Common, name: str, dry_run: bool) -> None:
    """Let all that is recorded belong to the host NAME.

    For a host whose name in [DEFAULT] host changed. Stop the agent first.
    Interrupted, the state is refused to all until this is repeated.

    \b
    Example:
      moorline state rename compute7.example --dry-run
    """
    from moorline import config, wiring

    settings = given.settings()
    given.watch_state(settings, changes=not dry_run)
    with wiring.open_state(settings, own=not dry_run) as (owner, now):
        told = owner.rename(name, now, dry_run=dry_run)
        if not dry_run:
            config.remember_host(settings, name)
    given.tell(told, _text(told, "would belong" if dry_run else "belongs"))


@state.command()
@dry_run_option
@common
def rebind(given: Common, dry_run: bool) -> None:
    """Let the state belong to this machine, and to the hypervisor that is configured.

    For a state directory that was moved here together with its guests, and that
    no other machine uses any more; and for a copy whose original on this machine
    is used no more. Stop the agent first.

    \b
    Example:
      moorline state rebind --dry-run
    """
    from moorline import wiring

    settings = given.settings()
    given.watch_state(settings, changes=not dry_run)
    with wiring.open_state(settings, own=not dry_run) as (owner, now):
        told = owner.rebind(now, dry_run=dry_run)
    given.tell(told, _text(told, "would belong" if dry_run else "belongs"))


def _text(told: Ownership, belongs: str) -> str:
    its = told.recorded if belongs == "belongs" and not told.steps else told.now
    whose = its or told.now
    lines = [
        f"the state {belongs} to host {whose.host} and the hypervisor {whose.hypervisor}"
        f" ({told.attachments} attachments)"
    ]
    if told.recorded is None:
        lines.append("it was not recorded before whose it is")
    if told.refused:  # which says what to do
        return "\n".join([*lines, f"here and now it is refused to all else: {told.refused}"])
    if told.original:
        lines.append(f"the state in {told.original} has the same attachments: use it no more")
    return "\n".join([*lines, *told.steps])
