"""doctor, explain, repair, abort: what is wrong, and what to do about it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click

from moorline.cli.checked_values import persons_word
from moorline.cli.common import (
    Common,
    common,
    dry_run_option,
    guest_option,
    told,
    volume_argument,
)
from moorline.cli.events import line
from moorline.cli.name_completion import MountPoint
from moorline.cli.output import age, say
from moorline.errors import Failed
from moorline.exit_codes import EXIT_FOUND
from moorline.ports.care_results import Explanation, Repair
from moorline.ports.inspection import Finding

_WAITS = {"wait": "It waits", "park": "It waits for a person"}


@click.command()
@common
def doctor(given: Common) -> None:
    """Find what is not as it should be on this host, with the next command for each.

    Changes nothing. Exits 0 if nothing is found, 10 if something is.

    \b
    Examples:
      moorline doctor
      moorline doctor --output json | jq -r '.findings[].next'
    """
    with given.open(own=False) as moorline:
        diagnosis = moorline.maintenance.doctor()
    versions = ", ".join(f"{name} {text}" for name, text in diagnosis.facts.items())
    count = len(diagnosis.findings) or "nothing"
    given.tell(
        diagnosis, "\n".join([*map(_told, diagnosis.findings), f"{count} found ({versions})"])
    )
    if diagnosis.findings:
        sys.exit(EXIT_FOUND)


@click.command()
@volume_argument
@guest_option
@common
def explain(given: Common, volume: str, guest: str | None) -> None:
    """Say how a volume stands: which step waits, for what, for how long, what to do.

    \b
    Example:
      moorline explain 3f2a
    """
    with given.open(own=False) as moorline:
        explained = moorline.maintenance.explain(volume, **told(guest=guest))
    given.tell(explained, "\n\n".join(_sentences(each) for each in explained))


@click.command()
@click.option("--disks", is_flag=True, help="Also detach disks of ours that were released.")
@click.option(
    "--boot-disks", is_flag=True, help="Even those that a guest boots from, or its only one."
)
@dry_run_option
@common
def repair(given: Common, disks: bool, boot_disks: bool, dry_run: bool) -> None:
    """Take away links that no attachment and no guest needs, and empty mount points.

    Says what it is about to do before it does anything. Whatever cannot be
    told is left alone. Exits 5 if something was not done.

    \b
    Examples:
      moorline repair --dry-run
      moorline repair --disks
    """
    disks = disks or boot_disks
    with given.open(own=not dry_run, patience=10.0) as moorline:
        due = moorline.maintenance.repair(disks=disks, boot_disks=boot_disks, dry_run=True)
        if not dry_run:
            for each in due if not given.is_data else ():
                if not each.problem:
                    say(f"will {each.action} {_named(each)}")
            due = moorline.maintenance.repair(disks=disks, boot_disks=boot_disks) if due else []
    given.tell(due, _repairs(due, dry_run))
    if left := [each for each in due if each.problem]:
        raise Failed(f"{len(left)} of {len(due)} repairs were not done")


@click.command()
@click.argument("mount_point", type=MountPoint())
@click.option("--force", is_flag=True, help="Even if guests that run lose what they write.")
@click.option(
    "--renew",
    is_flag=True,
    help="Also kill its client, and give guests that it paused their disks anew.",
)
@click.option(
    "--i-know-that-the-storage-writes-nothing-more",
    "vouch",
    callback=persons_word,
    metavar="REASON",
    help="With --renew. The reason is kept in the events.",
)
@dry_run_option
@common
def abort(
    given: Common, mount_point: str, force: bool, renew: bool, vouch: str, dry_run: bool
) -> None:
    """End the FUSE connection of a share that hangs, so that it can be mounted anew.

    All who wait for it get an error, for good; its data is not touched.
    Refused if it answers, or while a guest that runs is on it.

    With --renew guests whose disks pause them by an error outlive it, if all that
    docs/survive.md asks for holds: its client is killed, it is mounted anew, and they go on.

    \b
    Examples:
      moorline abort /var/lib/moorline/mnt/reg-vol-0123456789abcdef
      moorline abort /var/lib/moorline/mnt/reg-vol-0123456789abcdef --renew --dry-run
    """
    with given.open(own=not dry_run, patience=10.0) as moorline:
        asked = told(renew=renew, vouch=vouch or None)
        made = moorline.maintenance.abort(mount_point, force=force, dry_run=dry_run, **asked)
    following = "\n  next: moorline sweep" if made.done and not renew else ""
    given.tell(made, _aborted(made, dry_run) + following)
    if made.problem:
        raise Failed(made.problem, hint="moorline sweep tries again, moorline doctor tells more")


def _aborted(made: Repair, dry_run: bool) -> str:
    words = "would {} {}" if dry_run else "{} {}: done"
    return "\n".join(
        [
            words.format("abort", made.subject),
            *(words.format("kill", name) for name in made.killed),
            *(words.format("renew", name) for name in made.renewed),
        ]
    )


def _repairs(repairs: Sequence[Repair], dry_run: bool) -> str:
    if not repairs:
        return "nothing to repair"
    return "\n".join(
        f"would {each.action} {_named(each)}"
        if dry_run and not each.problem
        else f"{each.action} {_named(each)}: {each.problem or 'done'}"
        for each in repairs
    )


def _named(repair: Repair) -> str:
    disk = f" ({repair.device}, {repair.path})" if repair.path else ""
    return repair.subject + disk


def _told(finding: Finding) -> str:
    return f"{finding.check}: {finding.what}\n  why:  {finding.why}\n  next: {finding.next}\n"


def _sentences(it: Explanation) -> str:
    """An explanation as text."""
    told = [f"Volume {it.volume} is wanted {it.wanted} on {it.guest}, and is seen {it.seen}."]
    if it.step == "nothing":
        told.append("It is as wanted: nothing waits.")
    else:
        told.append(_waits(it) if it.waits_for else f"The next step is to {it.step}.")
    held = ", ".join(it.held_by)
    told.append(f"Its link is {it.link}, " + (f"held by {held}." if held else "held by nobody."))
    if it.tried:
        told += ["What was done last:", *(f"  {line(entry)}" for entry in it.tried)]
    if it.next:
        told += [f"{it.why[:1].upper()}{it.why[1:]}.", f"Next: {it.next}"]
    return "\n".join(told)


def _waits(it: Explanation) -> str:
    tries = f" after {it.tries} tries" if it.tries > 1 else ""
    soon = f"; the agent looks again in {it.due:.0f} s" if it.due is not None else ""
    since = f", for {age(it.since)}" if it.since and it.since < time.time() else ""
    to = _WAITS.get(it.step, f"It waits to {it.step}")
    return f"{to}{since}{tries}: {it.waits_for}{soon}."
