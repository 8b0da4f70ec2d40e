"""Arguments that name guests, volumes, shares and files, and what a shell completes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from moorline import errors
from moorline.cli import typed_files
from moorline.cli.facade import Target, from_here
from moorline.cli.progress import Progress

if TYPE_CHECKING:
    from moorline.ports.api import Api
    from moorline.ports.results import View

Items = list[CompletionItem]


def empty(parameter: click.Parameter, ctx: click.Context | None) -> errors.Refused:
    """What is raised of one that is typed, and has nothing in it."""
    hint = "is a variable not set?"
    return errors.Refused(f"{parameter.get_error_hint(ctx)} is empty", hint=hint)


class GuestName(click.ParamType):  # type: ignore[type-arg]
    """The argument for a guest: its name, its id, or the beginning of its id."""

    name = "guest"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Raises NotFound of what is typed for a volume: it may hold a password."""
        if "://" in value or value.startswith(("/", "./", "../")):
            raise errors.NotFound(
                "no guest is called by a URL or a path",
                hint="GUEST is a name or an id; a volume comes after it",
            )
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """The names of this host's guests."""
        items: Items = []
        with suppress(errors.MoorlineError), _opened(ctx) as moorline:
            for guest in moorline.guests.all():
                state = "runs" if guest.running else "is stopped"
                items.append(CompletionItem(guest.name, help=f"{state}, {guest.guest_id}"))
        return begun(items, incomplete)


class VolumeName(click.ParamType):  # type: ignore[type-arg]
    """The argument for a known volume: its id, the beginning of it, or the path or URL typed."""

    name = "volume"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return from_here(value) if "/" in value else value
        except errors.Refused as e:
            self.fail(e.message, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """The ids of what is attached; where a guest is typed, its own, and their devices."""
        guest = ctx.params.get("guest")
        views = [v for v in _views(ctx) if guest in (None, v.guest, v.guest_id)]
        items = [CompletionItem(v.volume, help=f"{v.guest}, {v.storage}") for v in views]
        if guest:
            items += [CompletionItem(v.device, help=v.storage) for v in views if v.device]
        return begun(items, incomplete)


class ShareName(click.ParamType):  # type: ignore[type-arg]
    """The option for a share: what STORAGE begins with, or a directory by its path."""

    name = "share"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """What begins with a dot is a path from here. Raises Refused."""
        is_path = value in (".", "..") or value.startswith(("./", "../"))
        return os.path.normpath(from_here(value)) if is_path else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """The shares that something is attached from."""
        shares = {view.storage.rpartition("/")[0] for view in _views(ctx)} - {""}
        return begun([CompletionItem(share) for share in sorted(shares)], incomplete)


class LabelName(click.ParamType):  # type: ignore[type-arg]
    """The option for a label: what an attachment belongs to."""

    name = "label"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """Those that something attached has."""
        return begun([CompletionItem(v.label) for v in _views(ctx) if v.label], incomplete)


class MountPoint(click.ParamType):  # type: ignore[type-arg]
    """The argument for a directory that is mounted; it is not looked at, as its share may hang."""

    name = "mount_point"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As the mount table has it. Raises Refused."""
        return os.path.normpath(from_here(value)) if value else value


class FilePath(click.Path):
    """The option for a file that this command reads; click would wait for a share that hangs."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"path_type": Path, **how})

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's. Raises Refused (it is empty), Unavailable (it does not answer)."""
        if value == "" and param:  # it would be the current directory
            raise empty(param, ctx)
        if "\0" in str(value):
            self.fail("a file name has no NUL", param, ctx)
        convert = super().convert
        return typed_files.answered(str(value), lambda: convert(value, param, ctx))


class ConfigFile(FilePath):
    """The option for a file that is read more than once."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's. Raises Refused (it is a pipe), Unavailable (it does not answer)."""
        path = super().convert(value, param, ctx)
        typed_files.refuse_pipe(str(value))
        return path


class FileOrUrl(click.ParamType):  # type: ignore[type-arg]
    """The argument for a volume that is to be attached: a path or a URL."""

    name = "url|path"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """Files, by the shell itself."""
        return [CompletionItem(incomplete, type="file")]


def begun(items: Sequence[CompletionItem], incomplete: str) -> Items:
    """Those of *items* that begin as what was typed, each once."""
    unique = {item.value: item for item in items}
    return [item for value, item in sorted(unique.items()) if value.startswith(incomplete)]


def _views(ctx: click.Context) -> Sequence[View]:
    with suppress(errors.MoorlineError), _opened(ctx) as moorline:
        return moorline.attachments.list()
    return ()


def _opened(ctx: click.Context) -> Api:
    """The façade, by the options that were typed so far. Raises as :meth:`Target.open`."""
    typed = ctx.params
    files = typed.get("config_files") or ()
    target = Target(typed.get("state_dir"), typed.get("hypervisor"), files, Progress(quiet=True))
    return target.open(own=False)
