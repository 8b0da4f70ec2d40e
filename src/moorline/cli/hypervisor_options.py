"""Commands with the options that the configured hypervisor declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moorline.cli.connection import read_text
from moorline.cli.name_completion import FilePath
from moorline.cli.sizes import Memory, size
from moorline.core.validation import MAX_INTEGER
from moorline.errors import MoorlineError
from moorline.operations.guest_options import exclusion
from moorline.ports.guests import GuestOption, GuestOptions, Kind

if TYPE_CHECKING:
    from moorline.ports import HypervisorDriver

Offer = Callable[["type[HypervisorDriver]"], "Sequence[click.Parameter] | None"]
"""The options of a command with a hypervisor; None: the hypervisor does not support it."""
_DRIVER, _OFFERED = "moorline.driver", "moorline.offered"
_WHERE = ("hypervisor", "config_files", "state_dir")


class HypervisorOptionsCommand(click.Command):
    """A command some of whose options are those of the hypervisor that is typed or configured.

    If that does not support the command, or is unknown, any option is accepted: the command
    itself says why it is refused.
    """

    def __init__(self, *args: Any, offer: Offer, **named: Any) -> None:
        super().__init__(*args, **named)
        self._offer = offer

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        offered: Sequence[click.Parameter] | None = None
        with suppress(MoorlineError):  # the command raises it again
            driver = ctx.meta[_DRIVER] = self._driver(args)
            offered = self._offer(driver)
        if offered is None:
            ctx.ignore_unknown_options = ctx.allow_extra_args = True
        ctx.meta[_OFFERED] = list(offered or ())
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as e:
            if others := self._elsewhere(e.option_name):
                raise click.UsageError(f"{e.option_name} is for {others}", ctx) from None
            raise

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        known = super().get_params(ctx)
        arguments = [each for each in known if isinstance(each, click.Argument)]
        common = [each for each in known if not isinstance(each, click.Argument)]
        return [*arguments, *ctx.meta.get(_OFFERED, ()), *common]

    def _driver(self, args: Sequence[str]) -> type[HypervisorDriver]:
        """The driver of the hypervisor that is typed or configured. Raises Refused."""
        from moorline import installed, wiring

        probe = click.Command(
            self.name,
            params=[each for each in self.params if each.name in _WHERE],
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
        found = probe.make_context(self.name, list(args), resilient_parsing=True).params
        uri = (
            found["hypervisor"]
            or wiring.settings(found["config_files"] or (), state_dir=found["state_dir"]).hypervisor
        )
        return installed.driver(uri)

    def _elsewhere(self, option: str) -> str:
        """The URIs of the hypervisors that have *option*, for people; '': none has."""
        from moorline import installed

        return ", ".join(
            driver.uris
            for driver in installed.drivers()
            if any(option in each.opts for each in self._offer(driver) or ())
        )


def chosen_driver() -> type[HypervisorDriver] | None:
    """The driver of the hypervisor, within such a command; None: it is unknown."""
    found: type[HypervisorDriver] | None = click.get_current_context().meta.get(_DRIVER)
    return found


def typed(options: GuestOptions) -> list[click.Parameter]:
    """*options* as options of click."""
    return [_option(each) for each in options.each]


def asked(options: GuestOptions, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were typed for *options*. Raises UsageError, Refused (an unreadable file)."""
    found = {each: values.get(each.key) for each in options.each}
    told = {each.key: _told(each, value) for each, value in found.items() if value}
    if why := exclusion(options, told):
        raise click.UsageError(why)
    return told


def _option(declared: GuestOption) -> click.Option:
    how: dict[str, Any] = {"help": declared.help, "metavar": declared.metavar or None}
    if declared.choices:
        how |= {"type": click.Choice(declared.choices)}
    elif declared.kind is Kind.FLAG:
        how |= {"is_flag": True}
    elif declared.kind is Kind.COUNT:
        how |= {"type": click.IntRange(1, MAX_INTEGER), "metavar": "N"}
    elif declared.kind is Kind.MIB:
        how |= {"type": Memory(), "metavar": "SIZE"}
    elif declared.kind is Kind.BYTES:
        how |= {"callback": size, "metavar": "SIZE"}
    elif declared.kind in (Kind.FILE, Kind.DOCUMENT):
        how |= {"type": FilePath(), "metavar": "FILE"}
    return click.Option([f"--{declared.name}", declared.key], **how)


def _told(declared: GuestOption, value: Any) -> Any:
    if declared.kind is Kind.FILE:
        return str(Path(value).absolute())  # its reader may have another current directory
    if declared.kind is Kind.DOCUMENT:
        return read_text(str(value), f"the {declared.name}")
    return value
