"""Reads settings with oslo.config, under the names that operators know.

An existing ``nova.conf`` can be given as it is: the options that Nova has are
read from the same sections.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from moorline import agent_location
from moorline.errors import Refused, Unavailable
from moorline.ports import Option, Values
from moorline.redaction import redacted

if TYPE_CHECKING:
    from oslo_config import cfg

SYSTEM_FILE = Path(agent_location.SYSTEM_FILE)
HOST_STATE_DIR = Path(agent_location.HOST_STATE_DIR)
FLEET_DIR = Path("/etc/moorline/fleet")
"""Where `moorline fleet join` puts a host's credentials."""
_STATE_DIR_REFERENCE = "${moorline.state_dir}"

STATE_DIR = Option(
    "state_dir",
    "",
    "Where the attachments are kept. Default: /var/lib/moorline for root, else"
    " $XDG_STATE_HOME/moorline.",
    group="moorline",
)
HOST = Option(
    "host",
    "",
    "This host's name in the records. Default: the name it had when the state directory was made.",
    group="DEFAULT",
)
CONNECTION_URI = Option(
    "connection_uri",
    "qemu:///system",
    "The hypervisor: qemu:///system, qemu:///session, qemu:///embed?root=DIR,"
    " powervm:/// (on the NovaLink partition), powervm://HOST[:PORT], vsphere://HOST[:PORT].",
)
AGENT = (
    Option(
        "agent_socket",
        "${moorline.state_dir}/agent.sock",
        "Where the agent listens, and where commands look for it.",
        group="moorline",
    ),
    Option(
        "agent_group",
        "moorline",
        "Members of this group may change what the agent keeps, as root may.",
        group="moorline",
    ),
    Option("agent_anyone_may_look", "false", "Whether others may look.", group="moorline"),
    Option(
        "agent_metrics",
        "",
        "Where Prometheus may collect: 127.0.0.1:PORT. Default: on the socket alone.",
        group="moorline",
    ),
    Option(
        "agent_fleet",
        "",
        "Where the host's credentials to its fleet are, if it is in one. Default:"
        " /etc/moorline/fleet, for the host's own state directory alone.",
        group="moorline",
    ),
    Option(
        "agent_fleet_memory",
        "",
        "MiB that guests may have here in all, where the fleet chooses a host for one. Default:"
        " what the machine has, less 512.",
        group="moorline",
    ),
    Option(
        "agent_ui",
        "",
        "A Unix socket where the agent serves the page to look at. Default: none.",
        group="moorline",
    ),
    Option(
        "agent_ui_group",
        "",
        "Members of this group may open that socket, a reverse proxy for one. Default: root alone.",
        group="moorline",
    ),
    Option("agent_sweep_every", "60", "Seconds between two sweeps.", group="moorline"),
    Option("agent_log_format", "text", "text or json.", group="moorline"),
    Option("agent_log_level", "info", "debug, info, warning or error.", group="moorline"),
)
OPTIONS = (STATE_DIR, HOST, CONNECTION_URI, *AGENT)


@dataclass(frozen=True, slots=True)
class Settings:
    """What wiring needs to know."""

    state_dir: Path
    host: str
    """'' stands for the recorded name, or the host name now."""
    hypervisor: str
    values: Values
    """The values of the adapters' options."""
    agent: Values = field(default_factory=dict)
    """The values of the agent's own."""
    personal: bool = False
    """Whether the state directory is that of a user who is not root, because none was named."""
    beside: bool = False
    """Whether the state directory is another than the one that the configuration has, which is
    that of the agent of a fleet's host."""


class Defaults(Mapping[str, str]):
    """The default values of all options, and ``state_dir``.

    Declaring them needs all that is installed to be loaded, so that waits until a name is
    asked for. An adapter that knows its own options does not need that (:func:`only`).
    """

    def __init__(self, options: Callable[[], Sequence[Option]], state_dir: Path) -> None:
        self._options = options
        self._state_dir = str(state_dir)

    def of(self, options: Sequence[Option]) -> Values:
        """Those of *options*."""
        return {**_unset(options, self._state_dir), "state_dir": self._state_dir}

    @cached_property
    def _all(self) -> Values:
        return self.of(self._options())

    def __getitem__(self, name: str) -> str:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def _unset(options: Sequence[Option], state_dir: str) -> Values:
    return {each.name: each.default.replace(_STATE_DIR_REFERENCE, state_dir) for each in options}


def only(values: Values, options: Sequence[Option]) -> Values:
    """The part of *values* that an adapter which declares *options* needs, if it loads less."""
    return values.of(options) if isinstance(values, Defaults) else values


def load(
    files: Sequence[Path],
    options: Callable[[], Sequence[Option]],
    *,
    state_dir: Path | None = None,
    hypervisor: str | None = None,
) -> Settings:
    """Read *files* (default: the system's, if there is one). Later files win.

    *options*: tells what adapters declare. *state_dir* and *hypervisor* override what the
    files say. Raises Refused if a file cannot be read or does not parse.
    """
    files = chosen_files(files)
    unsaid = Path(state_dir or agent_location.default_state_dir())
    # oslo.config would read a name into the "$" of a path.
    if not (files or "$" in str(unsaid) or agent_location.is_told_elsewhere()):
        return _defaults(Defaults(options, unsaid), unsaid, hypervisor, named=bool(state_dir))
    declared = options()
    conf = _parsed(files, declared)
    configured = conf.moorline.state_dir or HOST_STATE_DIR
    named = state_dir or conf.moorline.state_dir
    chosen = Path(named or agent_location.default_state_dir())
    conf.set_override("state_dir", str(chosen), group="moorline")
    return Settings(
        state_dir=chosen,
        host=conf.host,
        hypervisor=hypervisor or conf.libvirt.connection_uri or CONNECTION_URI.default,
        values={option.name: _value(conf, option) for option in declared}
        | {"state_dir": str(chosen)},
        agent={option.name: _value(conf, option) for option in AGENT},
        personal=not named and chosen != HOST_STATE_DIR,
        beside=chosen.absolute() != Path(configured).absolute(),
    )


def chosen_files(files: Sequence[Path]) -> Sequence[Path]:
    """*files*, or if none is named the system's, if there is one."""
    return files or ([SYSTEM_FILE] if SYSTEM_FILE.exists() else [])


def written(file: Path) -> dict[str, list[str]]:
    """The names of the options that are set in a file that can be parsed, by section."""
    from oslo_config import cfg  # as in _parsed

    parser = cfg.ConfigParser(str(file), {})
    parser.parse()
    return {section: list(names) for section, names in parser.sections.items()}


def _parsed(files: Sequence[Path], declared: Sequence[Option]) -> cfg.ConfigOpts:
    """The configuration in *files*. Raises Refused."""
    from oslo_config import cfg  # takes 100 ms, and a host without a configuration does not need it

    conf = cfg.ConfigOpts()
    for option in (*OPTIONS, *declared):
        group = None if option.group == "DEFAULT" else option.group
        conf.register_opt(
            cfg.StrOpt(option.name, default=option.default, help=option.help), group=group
        )
    try:
        conf([], project="moorline", default_config_files=[str(file) for file in files])
        for file in files:
            _refuse_unknown(written(file).get("moorline", []))
    except cfg.ConfigFileParseError as e:
        # Its message quotes the line, which may hold a password, or be very long.
        line = re.search(r":([0-9]+), ", str(e.msg))
        where = f"line {line[1]} of {e.config_file}" if line else e.config_file
        raise Refused(f"the configuration cannot be used: {where} is no assignment") from None
    except cfg.Error as e:
        raise Refused(f"the configuration cannot be used: {e}") from e
    except UnicodeDecodeError:
        raise Refused("the configuration cannot be used: a file of it is not text") from None
    return conf


@dataclass(frozen=True, slots=True)
class Effective:
    """The value of an option, and whence it is."""

    group: str
    name: str
    value: str
    whence: str
    """A file, a variable of the environment, or ``default``."""
    help: str

    def to_dict(self) -> dict[str, str]:
        """The same facts for JSON and YAML; the keys are stable."""
        return {name: getattr(self, name) for name in ("group", "name", "value", "whence", "help")}


def effective(
    files: Sequence[Path],
    options: Callable[[], Sequence[Option]],
    *,
    state_dir: Path | None = None,
    hypervisor: str | None = None,
) -> list[Effective]:
    """The value of each option as :func:`load` reads it, and whence it is. Raises Refused."""
    files = chosen_files(files)
    declared = options()
    conf = _parsed(files, declared)
    settings = load(files, lambda: declared, state_dir=state_dir, hypervisor=hypervisor)
    values = {**settings.values, **settings.agent}
    values |= {HOST.name: settings.host, CONNECTION_URI.name: settings.hypervisor}
    typed = {STATE_DIR: state_dir, CONNECTION_URI: hypervisor}
    found = []
    for option in (*OPTIONS, *declared):
        group = None if option.group == "DEFAULT" else option.group
        where = conf.get_location(option.name, group)
        told = where.detail if where and where.location.is_user_controlled else "default"
        if typed.get(option):
            told = "typed, or in the environment"
        value = redacted(str(values[option.name]))
        found.append(Effective(option.group, option.name, value, told, option.help))
    return found


def _defaults(
    values: Defaults, state_dir: Path, hypervisor: str | None, *, named: bool
) -> Settings:
    """What :func:`load` says where nothing is configured."""
    return Settings(
        state_dir=state_dir,
        host=HOST.default,
        hypervisor=hypervisor or CONNECTION_URI.default,
        values=values,
        agent=_unset(AGENT, str(state_dir)),
        personal=not named and state_dir != HOST_STATE_DIR,
        beside=state_dir.absolute() != HOST_STATE_DIR.absolute(),
    )


def _refuse_unknown(names: Sequence[str]) -> None:
    """Refuse what looks like a mistyped option of the agent. Others may be another program's."""
    known = {option.name for option in AGENT}
    for name in names:
        if name.startswith("agent_") and name not in known:
            import difflib  # takes 17 ms, and is needed for a typing error alone

            near = difflib.get_close_matches(name, known, n=1)
            raise Refused(
                f"there is no option {name[:80]} in [moorline]",
                hint=f"did you mean {near[0]}?" if near else "see docs/reference.md",
            )


def _value(conf: cfg.ConfigOpts, option: Option) -> str:
    """Raises Refused if it refers to an option that only another program has (Nova)."""
    try:
        return str(conf[option.group][option.name])
    except AttributeError as e:  # oslo.config's NoSuchOptError is one
        raise Refused(
            f"the option {option.name} in [{option.group}] cannot be used: {e}",
            hint="write out what its $ stands for",
        ) from e


def fleet_dir(settings: Settings) -> Path | None:
    """Where the credentials are of the fleet that this state's host is in, if it is in one."""
    if told := settings.agent["agent_fleet"]:
        return Path(told)
    return FLEET_DIR if settings.state_dir == HOST_STATE_DIR else None


def has_credentials(directory: Path) -> bool:
    """Whether a host's credentials to its fleet are in *directory*, or that cannot be told."""
    try:
        (directory / "fleet.json").stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def digest(settings: Settings) -> str:
    """Equal for settings that name the same host and treat its storage alike."""
    told = json.dumps([settings.host, dict(settings.values)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def hypervisor_of(settings: Settings) -> str:
    """The driver and where it is, equal for URIs that differ in how to get there; no password."""
    parts = urlsplit(settings.hypervisor)
    scheme, host = parts.scheme.partition("+")[0], parts.hostname or ""
    root = parse_qs(parts.query).get("root", [""])[0]
    return f"{scheme}://{host}{parts.path.rstrip('/')}" + (f"?root={root}" if root else "")


def host_name(settings: Settings, *, remember: bool = True) -> str:
    """The name of this host in its records: configured, else remembered, else the host name.

    It is remembered because a host that is renamed keeps its attachments.
    *remember*: write it down; a call that changes nothing does not. Raises Unavailable.
    """
    file = settings.state_dir / "host"
    if settings.host:
        return settings.host
    try:
        with suppress(FileNotFoundError):
            if name := file.read_text().strip():
                return name
    except OSError as e:
        raise Unavailable(f"{file} cannot be read: {e.strerror}") from e
    if remember:
        remember_host(settings, socket.gethostname())
    return socket.gethostname()


def remember_host(settings: Settings, name: str) -> None:
    """Remember *name* as this host's name in its records. Raises Unavailable."""
    file = settings.state_dir / "host"
    try:
        if not file.exists() or file.read_text().strip() != name:
            _remember(file, name)
    except OSError as e:
        raise Unavailable(f"{file} cannot be read or written: {e.strerror}") from e


def _remember(file: Path, name: str) -> None:
    """Write the file whole or not at all: with half a name no record would be found again."""
    fresh = file.with_name(f"host.{os.getpid()}")
    try:
        with fresh.open("w") as stream:
            stream.write(f"{name}\n")
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
