"""``moorline-nova check``: does it all fit on this host, and which way works here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from moorline.errors import MoorlineError
from moorline.local_api.client import Client

_CONF = Path("/etc/nova/nova.conf")
SUPPORTED = (32, 33, 34)
"""Nova's versions that this has been run on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. *advice*: what to do if it is not well."""

    well: bool
    what: str
    advice: str = ""


@click.group()
def main() -> None:
    """Moorline for an unmodified Nova."""


@main.command()
@click.option(
    "--config-file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="nova.conf, as nova-compute is given it; can be repeated. Default: /etc/nova/nova.conf.",
)
def check(files: tuple[Path, ...]) -> None:
    """Look whether Nova, this plug-in and the agent fit. Exits 1 if something does not.

    \b
    Example:
      moorline-nova check --config-file /etc/nova/nova.conf
    """
    findings = list(look(files or tuple(file for file in [_CONF] if file.exists())))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.well else 'BAD '} {finding.what}")
        if finding.advice and not finding.well:
            click.echo(f"     {finding.advice}")
    if not all(finding.well for finding in findings):
        sys.exit(1)


def look(files: Sequence[Path]) -> Iterator[Finding]:
    """Look at one thing after the other. Nothing is changed."""
    version = _nova_version()
    if version is None:
        yield Finding(False, "Nova cannot be imported here", "install the plug-in beside Nova")
        return
    known = version.partition(".")[0] in map(str, SUPPORTED)
    yield Finding(known, f"Nova {version}", f"this was run on {', '.join(map(str, SUPPORTED))}")
    import nova.conf

    from moorline_nova import options

    options.register(nova.conf.CONF)
    nova.conf.CONF([], project="nova", default_config_files=[str(file) for file in files])
    yield _way(nova.conf.CONF.compute_driver)
    yield Finding(True, f"volume types: {', '.join(nova.conf.CONF.moorline.volume_types)}")
    yield from _options(files)
    yield from _agent(nova.conf.CONF.moorline.socket)


def _nova_version() -> str | None:
    try:
        return importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        return None


def _way(compute_driver: str) -> Finding:
    """Which of the two ways this Nova can be told of us, and whether it was."""
    beside = importlib.util.find_spec("nova.virt.moorline") is not None
    if compute_driver == "moorline.LibvirtDriver":
        return Finding(
            beside,
            "compute_driver = moorline.LibvirtDriver",
            "Nova is in another site-packages than the plug-in: set libvirt.LibvirtDriver"
            " and start moorline-nova-compute in the place of nova-compute",
        )
    advice = (
        "set compute_driver = moorline.LibvirtDriver in [DEFAULT]"
        if beside
        else "start moorline-nova-compute in the place of nova-compute"
    )
    started = compute_driver == "libvirt.LibvirtDriver" and not beside
    return Finding(started, f"compute_driver = {compute_driver}", advice)


def _options(files: Sequence[Path]) -> Iterator[Finding]:
    from moorline import wiring

    names = {option.name for option in wiring.backend_options() if option.group == "libvirt"}
    found = {
        name
        for file in files
        for line in file.read_text().splitlines()
        if (name := line.partition("=")[0].strip()) in names
    }
    what = f"options for the agent in nova.conf: {', '.join(sorted(found)) or 'none'}"
    yield Finding(True, what)


def _agent(socket: str) -> Iterator[Finding]:
    client = Client(socket, timeout=5.0)
    try:
        about = client.about()
        client.list()
    except MoorlineError as e:
        yield Finding(False, f"agent at {socket}: {e}", e.hint or "systemctl status moorline-agent")
        return
    yield Finding(True, f"agent at {socket}: version {about['version']}, {about['hypervisor']}")
    ours = importlib.metadata.version("moorline")
    yield Finding(
        about["version"] == ours, f"the client beside Nova has version {ours}", "install the same"
    )
