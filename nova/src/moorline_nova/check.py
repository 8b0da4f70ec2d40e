"""``moorline-nova check``: checks that Nova, plug-in and agent fit together on this host."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from moorline.errors import Denied, MoorlineError
from moorline.local_api.client import Client

SUPPORTED = (32, 33, 34)
"""Nova's versions that this has been run on."""
_DRIVER = "moorline.LibvirtDriver"
_VMWARE = "moorline.VMwareVCDriver"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. *topic* is stable; *advice*: what to do if it failed."""

    topic: str
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
    help="nova.conf, as nova-compute is given it; can be repeated. Default: where Nova looks.",
)
@click.option(
    "--config-dir",
    "directories",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A directory with more such files, as nova-compute is given it; can be repeated.",
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text")
def check(files: tuple[Path, ...], directories: tuple[Path, ...], output: str) -> None:
    """Look whether Nova, this plug-in and the agent fit. Exits 1 if something does not.

    Run it as the user that nova-compute runs as.

    \b
    Example:
      sudo -u nova moorline-nova check --config-file /etc/nova/nova.conf
    """
    findings = []
    for finding in look(files, directories):
        findings.append(finding)
        if output == "text":
            click.echo(f"{'ok  ' if finding.well else 'BAD '} {finding.what}")
            if finding.advice and not finding.well:
                click.echo(f"     {finding.advice}")
    well = all(finding.well for finding in findings)
    if output == "json":
        told = {"well": well, "findings": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(told, indent=2))
    sys.exit(0 if well else 1)


def look(files: Sequence[Path], directories: Sequence[Path] = ()) -> Iterator[Finding]:
    """Run the checks, as far as earlier ones allow. Nothing is changed."""
    if importlib.util.find_spec("nova.conf") is None:
        yield Finding(
            "nova",
            False,
            f"Nova cannot be imported by {sys.executable}",
            "install moorline-nova into the Python environment that nova-compute runs in",
        )
        return
    yield _nova()
    yield _plugin()
    from oslo_config import cfg

    try:
        conf = _configuration(files, directories)
        found = _read(conf, files, directories)
        if not found:
            yield Finding("configuration", False, "no nova.conf is found", "give --config-file")
            return
        yield from _configured(conf, found)
        if conf.compute_driver == _VMWARE:
            yield _vmware()  # it needs no agent
        else:
            yield from _agent(conf.moorline.socket, found)
    except cfg.Error as e:
        yield Finding("configuration", False, f"Nova's configuration cannot be used: {e}")


def _nova() -> Finding:
    version = importlib.metadata.version("nova")
    known = version.partition(".")[0] in map(str, SUPPORTED)
    tried = ", ".join(map(str, SUPPORTED))
    return Finding("nova", known, f"Nova {version}", f"the plug-in was tried with Nova {tried}")


def _plugin() -> Finding:
    """Whether Nova can load the plug-in, and finds it by itself."""
    warnings.simplefilter("ignore")  # Nova's libraries warn of each other
    try:
        importlib.import_module("moorline_nova.driver")
    except Exception as e:  # noqa: BLE001 - Nova's own modules may raise anything
        return Finding("plugin", False, f"this Nova cannot load the plug-in: {e!r}")
    if importlib.util.find_spec("nova.virt.moorline") is not None:
        return Finding("plugin", True, "the plug-in lies beside Nova's drivers: start nova-compute")
    what = "the plug-in lies elsewhere than Nova: start moorline-nova-compute instead"
    return Finding("plugin", True, what)


def _configuration(files: Sequence[Path], directories: Sequence[Path]) -> Any:
    import nova.conf

    from moorline_nova import options

    conf = nova.conf.CONF
    options.register(conf)
    given = [word for file in files for word in ("--config-file", str(file))]
    given += [word for each in directories for word in ("--config-dir", str(each))]
    conf(given, project="nova", prog="nova-compute")
    return conf


def _read(conf: Any, files: Sequence[Path], directories: Sequence[Path]) -> list[Path]:
    """The files that *conf* was read from, in that order: of the same option the last one wins."""
    begin = [] if files else [Path(file) for file in conf.default_config_files]
    usual = [] if directories else [Path(each) for each in conf.default_config_dirs]
    found = [*begin, *_within(usual), *files, *_within(directories)]
    return [file.absolute() for file in found]


def _within(directories: Sequence[Path]) -> list[Path]:
    return [file for each in directories for file in sorted(each.glob("*.conf"))]


def _configured(conf: Any, files: Sequence[Path]) -> Iterator[Finding]:
    yield Finding("configuration", True, f"configuration: {', '.join(map(str, files))}")
    advice = f"set compute_driver = {_DRIVER} in [DEFAULT], or {_VMWARE} for a vCenter"
    what = f"compute_driver = {conf.compute_driver}"
    yield Finding("compute_driver", conf.compute_driver in (_DRIVER, _VMWARE), what, advice)
    if conf.compute_driver != _VMWARE:
        yield Finding(
            "volume_types", True, f"volume types: {', '.join(conf.moorline.volume_types)}"
        )


def _vmware() -> Finding:
    """Whether Nova's VMware driver is one that the plug-in adds Virtual Volumes to."""
    try:
        from moorline_nova import vmware_known

        others = vmware_known.unknown()
        importlib.import_module("moorline_nova.vmware")
    except ImportError as e:
        what = f"Nova's VMware driver cannot be loaded: {e}"
        return Finding("vmware", False, what, "install oslo.vmware beside Nova")
    if others:
        what = f"Nova's VMware driver is another than is known: {', '.join(others)}"
        return Finding("vmware", False, what, "nova-compute would refuse to start, and say so")
    return Finding("vmware", True, "Nova's VMware driver is as known: Virtual Volumes are added")


def _agent(socket: str, files: Sequence[Path]) -> Iterator[Finding]:
    client = Client(socket, timeout=5.0)
    try:
        about = client.about()
        # It needs the right to change something; there is no such volume.
        client.attachments.detach("moorline-nova", "check", hands_off=True, dry_run=True)
    except Denied as e:
        advice = "add nova-compute's user to the agent's group (moorline) and restart nova-compute"
        yield Finding("agent", False, e.message, advice)
        return
    except MoorlineError as e:
        yield Finding("agent", False, e.message, _where_it_may_be(socket, files))
        return
    who = "root: run this as nova-compute's user, too" if os.geteuid() == 0 else "this user"
    yield Finding("agent", True, f"agent at {socket}, {about['hypervisor']}; open to {who}")
    ours, its = importlib.metadata.version("moorline"), about["version"]
    what = f"moorline {its} is the agent, {ours} is beside Nova"
    yield Finding("version", ours == its, what, "install the same version in both places")
    if ours == its:  # other versions have other options anyway
        yield _options(about, files)


def _where_it_may_be(socket: str, files: Sequence[Path]) -> str:
    from moorline import config, wiring

    places = [config.STATE_DIR, *(each for each in config.AGENT if each.name == "agent_socket")]
    if names := _set_in(files, places):
        with suppress(MoorlineError):
            there = wiring.settings(files).agent["agent_socket"]
            if there != socket:
                said = " and ".join(names)
                return f"by {said} the agent listens at {there}: set socket = {there}"
    return "is it running (systemctl status moorline-agent), and is that its socket?"


def _options(about: dict[str, Any], files: Sequence[Path]) -> Finding:
    """Whether the agent has the storage options of nova.conf."""
    from moorline import config, installed, wiring

    at = Path(about["state_dir"])
    readings = [files, [config.SYSTEM_FILE, *files]] if config.SYSTEM_FILE.exists() else [files]
    try:
        read = [wiring.settings(reading, state_dir=at) for reading in readings]
    except MoorlineError as e:
        return Finding("options", False, e.message, e.hint)
    names = ", ".join(_set_in(files, installed.backend_options())) or "none"
    heeded = about["options"] in map(config.digest, read)
    return Finding(
        "options",
        heeded,
        f"options for storage in Nova's configuration: {names}"
        + ("" if heeded else "; the agent goes by others"),
        "start the agent with all of " + " ".join(f"--config-file {file}" for file in files),
    )


def _set_in(files: Sequence[Path], options: Sequence[Any]) -> list[str]:
    """The names of those of *options* that *files* set."""
    from oslo_config import cfg

    conf = cfg.ConfigOpts()
    for option in options:
        conf.register_opt(cfg.StrOpt(option.name), group=option.group)
    conf([], default_config_files=[str(file) for file in files])
    return [option.name for option in options if conf.get_location(option.name, option.group)]


if __name__ == "__main__":
    main()
