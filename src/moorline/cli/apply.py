"""apply, diff, export: declared attachments, kept in a file."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from moorline.cli import declared
from moorline.cli.common import (
    Common,
    common,
    dry_run_option,
    timeout_option,
    told,
    wait_option,
)
from moorline.cli.connection import read_text
from moorline.cli.declared import Declaration, Declared
from moorline.cli.name_completion import FilePath, GuestName, LabelName
from moorline.cli.output import dump, failed, say
from moorline.disk_options import OPTIONS
from moorline.errors import MoorlineError, Refused
from moorline.exit_codes import EXIT_FOUND, exit_code
from moorline.local_api.http_errors import to_problem
from moorline.ports.api import Api
from moorline.ports.results import Outcome, View

file_option = click.option(
    "--file",
    "-f",
    required=True,
    type=FilePath(allow_dash=True, dir_okay=False),
    metavar="FILE",
    help="The attachments, as YAML or JSON; - for standard input.",
)
prune_option = click.option(
    "--prune", is_flag=True, help="Also detach what has the label, and is not in the file."
)
label_option = click.option(
    "--label",
    type=LabelName(),
    metavar="LABEL",
    help="What all of it belongs to; else as the file says.",
)

Key = tuple[str, str]
"""The id of a volume and of its guest."""
_NOT_PRUNED = "nothing is pruned: what failed may mean any of it"


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done for one attachment."""

    action: str
    """``attach``, ``detach``, ``none``; ``refused``: it is there otherwise, or cannot be;
    ``spared``: it would be detached, but something else was refused or failed."""
    guest: str
    name: str
    """Its storage, or its id, for people."""
    wanted: Declared | None = None
    view: View | None = None
    why: str = ""
    key: Key | None = None
    """Which volume and guest it is about; None: that could not be told."""
    error: MoorlineError | None = None
    """Why that could not be."""


@click.command()
@file_option
@prune_option
@label_option
@timeout_option
@wait_option
@dry_run_option
@common
def apply(
    given: Common,
    file: Path,
    prune: bool,
    label: str | None,
    timeout: float,
    wait: bool,
    dry_run: bool,
) -> None:
    """Attach what a file declares; what is as declared already is left alone.

    With --prune, what has the file's label and is not in it is detached, once
    all that is in it is as declared. One that fails does not stop the others,
    but nothing is pruned then; the command ends as the first of those does.
    `moorline export` writes such a file.

    \b
    Examples:
      moorline apply -f attachments.yaml
      moorline apply -f attachments.yaml --prune --label web-team
      moorline apply -f attachments.yaml --dry-run
    """
    what = _read(file)
    label = label or what.label
    if prune and not label:
        raise click.UsageError("--prune goes by a label: give --label, or one in the file")
    with given.open(own=not dry_run, patience=timeout, first=True) as moorline:
        views = moorline.attachments.list()
        changes = _changes(what, label, moorline, views)
        if dry_run:
            changes += _gone(changes, label, views) if prune else []
            _tell_changes(given, changes)
            if code := _foreseen_code(changes):
                sys.exit(code)
            return
        how = {"timeout": timeout, "progress": given.progress, **({} if wait else {"wait": False})}
        told = partial(_told_of_each, given, moorline, label, how, wait=wait)
        values, code = told(changes)
        if prune:
            kept = {_key_of(value["view"]) for value in values if "view" in value}
            gone = _to_prune(views, label, kept, fails=bool(code))
            more, its = told(gone)
            values, code = values + more, code or its
    given.tell(values, "")
    if code:
        sys.exit(code)


@click.command()
@file_option
@prune_option
@label_option
@common
def diff(given: Common, file: Path, prune: bool, label: str | None) -> None:
    """Tell what `moorline apply` would change. Exits 10 if there is something.

    An entry that cannot be ends it as it would end `moorline apply`.

    \b
    Example:
      moorline diff -f attachments.yaml --prune
    """
    what = _read(file)
    label = label or what.label
    if prune and not label:
        raise click.UsageError("--prune goes by a label: give --label, or one in the file")
    with given.open(own=False) as moorline:
        views = moorline.attachments.list()
        changes = _changes(what, label, moorline, views)
    changes += _gone(changes, label, views) if prune else []
    _tell_changes(given, changes)
    if code := next((exit_code(change.error) for change in changes if change.error), 0):
        sys.exit(code)
    if any(change.action != "none" for change in changes):
        sys.exit(EXIT_FOUND)


@click.command()
@click.argument("guest", required=False, type=GuestName())
@label_option
@common
def export(given: Common, guest: str | None, label: str | None) -> None:
    """Write the attachments of this host, or of GUEST, as `moorline apply` reads them.

    What Nova plugs is left out, and so is what cannot be typed (iSCSI, say),
    which is told on standard error. Passwords and mount options are not
    written: where storage needs them, give connection or connection_file
    instead of storage.

    \b
    Examples:
      moorline export > attachments.yaml
      moorline export web01 --label web-team
    """
    with given.open(own=False) as moorline:
        views = moorline.attachments.list(**told(guest=guest))
    views = [view for view in views if view.wanted != "absent" and not view.hands_off]
    views = [view for view in views if label in (None, view.label)]
    for view in views:
        if not _can_be_typed(view):
            given.warn(
                f"left out: volume {view.volume} of {view.guest}: {view.backend} cannot be typed"
            )
    labels = {view.label for view in views}
    if label is None and len(labels) > 1:
        given.warn("no label is written, as they have not all the same: export each with --label")
    elif label is None:
        label = next(iter(labels), None)
    document: dict[str, Any] = {"label": label} if label else {}
    document["attachments"] = [_written(view) for view in views if _can_be_typed(view)]
    given.tell(document, dump(document, "yaml"))


def _read(file: Path) -> Declaration:
    return declared.read(file, read_text(str(file), "the file", declared.MAX_FILE_BYTES))


def _changes(what: Declaration, label: str, moorline: Api, views: Sequence[View]) -> list[Change]:
    """What is to be done, in the order of the file. Raises Refused (something is there twice)."""
    guests = moorline.guests.all()
    often = Counter(guest.name for guest in guests)  # a vCenter may have several of one name
    ids = {guest.name: guest.guest_id for guest in guests if often[guest.name] == 1}
    changes = [_change(each, label, moorline, views, ids) for each in what.attachments]
    first: dict[Key, int] = {}
    for place, change in enumerate(changes, 1):
        if change.key and (other := first.setdefault(change.key, place)) != place:
            raise Refused(
                f"attachments {other} and {place} are one: volume {change.key[0]} of"
                f" {change.guest}, spelled in two ways",
                hint="leave one out",
            )
    return changes


def _change(
    wanted: Declared, label: str, moorline: Api, views: Sequence[View], ids: Mapping[str, str]
) -> Change:
    name = wanted.what if isinstance(wanted.what, str) else "a connection"
    change = Change("attach", wanted.guest, name, wanted)
    called = ids.get(wanted.guest, wanted.guest)
    view = next((view for view in views if wanted.is_called(view, called)), None)
    if view is None:
        try:
            foreseen = _attach(moorline, wanted, label, dry_run=True).view
        except MoorlineError as e:
            return replace(change, action="refused", why=e.message, error=e)
        change = replace(change, key=_key(foreseen))
        view = next((view for view in views if _key(view) == change.key), None)
    if view is None:
        return change
    change = replace(change, view=view, key=_key(view))
    if view.wanted == "absent":
        return change
    why = wanted.differences(view)
    if label and view.label not in ("", label):
        why.append(f"it belongs to {view.label!r}, which prunes it")
    if why:
        return replace(change, action="refused", why="; ".join(why))
    return replace(change, action="none") if wanted.is_there(view, label) else change


def _gone(changes: Sequence[Change], label: str, views: Sequence[View]) -> list[Change]:
    """What is to be pruned after *changes*, as far as those are foreseen."""
    kept = {change.key for change in changes if change.key}
    return _to_prune(views, label, kept, fails=any(c.action == "refused" for c in changes))


def _to_prune(views: Sequence[View], label: str, kept: Set[Key], *, fails: bool) -> list[Change]:
    """What has the label, and is none of *kept*; *fails*: an entry of the file did, and it stays.

    That entry may mean what is not kept: misspelled, say, or on its way to another guest.
    """
    action = "spared" if fails else "detach"
    return [
        Change(action, view.guest, view.storage or view.volume, view=view)
        for view in views
        if view.label == label and _key(view) not in kept and not view.hands_off
    ]


def _key(view: View) -> Key:
    return view.volume, view.guest_id


def _key_of(view: Mapping[str, Any]) -> Key:
    return view["volume"], view["guest_id"]


def _foreseen_code(changes: Sequence[Change]) -> int:
    """The exit code of the first that is refused; 0: none."""
    refused = (change for change in changes if change.action == "refused")
    return next((exit_code(change.error or Refused("")) for change in refused), 0)


def _told_of_each(
    given: Common,
    moorline: Api,
    label: str,
    how: Mapping[str, Any],
    changes: Sequence[Change],
    *,
    wait: bool,
) -> tuple[list[dict[str, Any]], int]:
    """Do *changes*, and tell people of each; return what programs are told, and the exit code."""
    values, code = [], 0
    for change in changes:
        value: dict[str, Any] = {"action": change.action, "guest": change.guest}
        try:
            value |= _do(moorline, change, label, how)
        except MoorlineError as e:
            value["problem"] = to_problem(e.about(guest=change.guest))
            its = exit_code(e) if given.is_data else failed(e, given.output)
            code = code or its
        else:
            if not given.is_data:
                say(_done(change, value, wait=wait))
        values.append(value)
    return values, code


def _do(moorline: Api, change: Change, label: str, how: Mapping[str, Any]) -> dict[str, Any]:
    """Do it; return what programs are told. Raises as attach and detach."""
    view, wanted = change.view, change.wanted
    if change.action == "refused" and view is not None:
        raise Refused(
            f"{change.name} is attached to {view.guest} otherwise: {change.why}",
            hint=f"moorline detach {view.guest} {view.volume}, and apply again",
        ).about(view.volume, view.guest)
    if change.action in ("none", "spared") and view is not None:
        return {"steps": [], "view": view.to_dict()}
    if change.action == "detach" and view is not None:
        gone = moorline.attachments.detach(view.guest_id, view.volume, **how)
        return gone.to_dict() if gone else {"steps": [], "view": None}
    assert wanted is not None, "what is to be attached is in the file"
    return _attach(moorline, wanted, label, **how).to_dict()


def _attach(moorline: Api, wanted: Declared, label: str, **how: Any) -> Outcome:
    return moorline.attachments.attach(
        wanted.guest,
        wanted.what,
        format=wanted.format,
        volume=wanted.volume,
        level=declared.level(wanted.level),
        options=wanted.options,
        **told(label=label or None),
        **how,
    )


def _done(change: Change, value: dict[str, Any], *, wait: bool) -> str:
    view = value["view"]
    if change.action == "none":
        return f"unchanged: {change.name} on {change.guest}"
    if change.action == "spared":
        return f"{change.name} stays on {change.guest}: {_NOT_PRUNED}"
    state = "is" if wait else "is to be"
    if change.action == "detach":
        return f"{change.name} {state} detached from {change.guest}"
    device = f" as {view['device']}" if view and view["device"] else ""
    return f"{change.name} {state} {view['wanted']} to {change.guest}{device}"


def _tell_changes(given: Common, changes: Sequence[Change]) -> None:
    given.tell([*map(_plain, changes)], "\n".join(_lines(changes)) or "nothing is different")


def _plain(change: Change) -> dict[str, Any]:
    id = change.view.volume if change.view else change.wanted and change.wanted.volume
    return {
        "action": change.action,
        "guest": change.guest,
        "volume": id,
        "storage": change.name,
        "why": change.why,
    }


def _lines(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        where = f"{change.name} on {change.guest}"
        if change.action == "attach":
            yield f"+ {where}" + (f" ({change.view.next})" if change.view else "")
        elif change.action == "detach":
            yield f"- {where}"
        elif change.action == "spared":
            yield f"! {where}: stays: {_NOT_PRUNED}"
        elif change.action == "refused":
            yield f"! {where}: {change.why}" + ("" if change.error else "; detach it first")


def _can_be_typed(view: View) -> bool:
    return "://" in view.storage or view.backend == "local"


def _written(view: View) -> dict[str, Any]:
    """An attachment as a file has it: what is as it comes is left out."""
    found = {
        "guest": view.guest,
        "storage": view.storage,
        "format": view.format,
        "volume": view.volume,
        "level": "" if view.wanted == "attached" else view.wanted,
    }
    options = {each.declared: view.options.get(each.name, each.default) for each in OPTIONS}
    unsaid = {each.declared: each.default for each in OPTIONS}
    told = {name: value for name, value in options.items() if value != unsaid[name]}
    return {name: value for name, value in found.items() if value} | told
