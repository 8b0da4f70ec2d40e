"""wait: until a volume is as somebody needs it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

import click

from moorline.cli.common import Common, common, guest_option, timeout_option, volume_argument
from moorline.cli.output import is_as_wanted
from moorline.core.name_lookup import BY_ID_OR_DEVICE, is_whole, meant
from moorline.deadline import Deadline, waited_for
from moorline.errors import Failed, NotFound, NotOurs, Refused
from moorline.model import VolumeId
from moorline.ports.api import Api
from moorline.ports.results import View

_POLL_SECONDS = 0.5
_ENOUGH = {"attached": ("attached",), "connected": ("connected", "attached")}
"""What may be wanted of a volume that is as it is waited for."""


@click.command()
@volume_argument
@click.option(
    "--for",
    "level",
    type=click.Choice(["attached", "connected", "detached"]),
    default="attached",
    show_default=True,
    help="What to wait for.",
)
@guest_option
@timeout_option
@common
def wait(given: Common, volume: str, level: str, guest: str | None, timeout: float) -> None:
    """Wait until VOLUME is attached, connected or detached.

    For what was typed with --wait=false. Nothing is changed: an agent or
    `moorline sweep` does the work. Detached means that no attachment is left,
    disk and link, and that no guest has the volume by somebody else's doing. A
    whole id that is not there is detached, unless a fleet may have it
    on another host (3). Exits 5 when the time is over.

    \b
    Examples:
      moorline wait 3f2a --for attached --timeout 300
      moorline wait 3f2a --guest web01 --for detached
    """
    deadline, ids, id = Deadline(timeout), {volume}, ""
    known: set[str] = set()
    while True:
        with waited_for(deadline), given.open(own=False) as moorline:
            views = _look(moorline, id or volume, guest, known)
            if level == "detached" and not views:
                _demand_no_disk(moorline, ids, guest)
                given.tell([], f"volume {volume} is detached")
                return
        known |= {view.guest_id for view in views}
        if guest is not None and views:
            guest = views[0].guest_id
        ids |= {view.volume for view in views}
        id = views[0].volume if views else id
        due = [view for view in views if not _reached(view, level)]
        if views and not due:
            told = [f"volume {v.volume} is {v.seen} on {v.guest}" for v in views]
            given.tell(views, "\n".join(told))
            return
        if not views:
            error = NotFound(f"volume {volume} is not wanted any more", hint="moorline list")
            raise error.about(id)
        next_ = f"it is wanted {due[0].wanted}" if is_as_wanted(due[0]) else due[0].next
        why = f"volume {volume} is not {level} yet on {due[0].guest}: {next_}"
        if deadline.over():
            late = Failed(why, hint=f"moorline explain {due[0].volume}")
            raise late.about(due[0].volume, due[0].guest)
        given.progress(why)
        deadline.sleep(_POLL_SECONDS)


def _look(moorline: Api, volume: str, guest: str | None, known: Collection[str]) -> Sequence[View]:
    """The attachments that are meant; none: they are gone. Raises NotFound: it may be a slip.

    *known*: the ids of the guests that had it before; it is typed as it is recorded then.
    """
    try:
        if guest is None:
            return moorline.attachments.show(volume)
        views = moorline.attachments.list(guest=guest)
    except NotFound:
        if known or (is_whole(volume) and (guest is None or is_whole(guest))):
            return []
        raise
    except Refused:  # a host of a fleet knows nothing of others, but that a guest is its own
        if guest is not None or not known:
            raise
        return [view for of in sorted(known) for view in _look(moorline, volume, of, known)]
    id = meant(volume, (VolumeId(view.volume) for view in views))
    found = [v for v in views if v.volume == id or volume in (v.device, v.storage)]
    if not (found or known or is_whole(volume)):
        raise NotFound(f"volume {volume} is not wanted on {guest}", hint=BY_ID_OR_DEVICE)
    if not found:
        with suppress(NotFound):  # Refused: a fleet wants it there
            return moorline.attachments.show(volume, guest)
    return found


def _demand_no_disk(moorline: Api, ids: Collection[str], guest: str | None) -> None:
    """Raise NotOurs if a guest has the volume all the same: plugged by others, or released."""
    try:
        disks = moorline.maintenance.disks(guest)
    except NotFound:
        return  # the guest is gone
    for each in disks:
        for id in filter(each.disk.bears, sorted(ids)):
            raise NotOurs(
                f"volume {id} is wanted no more, and is {each.disk.device} of"
                f" {each.guest or guest} all the same",
                hint="moorline disks",
            ).about(id, each.guest)


def _reached(view: View, level: str) -> bool:
    return level != "detached" and view.wanted in _ENOUGH[level] and is_as_wanted(view)
