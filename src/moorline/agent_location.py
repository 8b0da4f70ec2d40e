"""Finds the agent's socket without oslo.config, which takes longer than the rest of a command.

The answer is the same as oslo.config's, or none: files that are less plain than those that
people write are left to :func:`moorline.config.load`. A test compares the two.
"""
# pathlib takes as long to load as all of this:
# ruff: noqa: PTH111, PTH119, PTH123

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_FILE = "/etc/moorline/moorline.conf"
HOST_STATE_DIR = "/var/lib/moorline"
"""Root's state directory, unless its configuration says otherwise."""
AGENT_OPTIONS = (
    "agent_anyone_may_look",
    "agent_fleet",
    "agent_fleet_memory",
    "agent_group",
    "agent_log_format",
    "agent_log_level",
    "agent_metrics",
    "agent_socket",
    "agent_sweep_every",
    "agent_ui",
    "agent_ui_group",
)
_PLAIN = {*AGENT_OPTIONS, "state_dir"}
"""What may be in [moorline]; anything else may be misspelled, or of a newer Moorline."""
_LEADS_ELSEWHERE = {"config_dir", "config_file", "config_source"}
"""Options of [DEFAULT] by which oslo.config reads more: its ``--config-*``, and its drivers."""
_MAX_FILE_BYTES = 1 << 20
"""Bytes of the largest file that is read here."""


class AgentLocation:
    """Where a host's state is, and the socket of the agent that may keep it."""

    def __init__(self, state_dir: str, socket: str, *, personal: bool) -> None:
        self.state_dir = state_dir
        self.socket = socket
        self.personal = personal
        """As of :class:`moorline.config.Settings`."""


def find(state_dir: str | None, file: str = SYSTEM_FILE) -> AgentLocation | None:
    """The same as :func:`moorline.config.load`; None: that has to be asked.

    *state_dir* overrides what *file*, the system's, says.
    """
    if is_told_elsewhere():
        return None
    said = _read(file)
    if said is None:
        return None
    named = state_dir or said.get("state_dir")
    chosen = named or default_state_dir()
    if "$" in chosen:
        return None
    socket = said.get("agent_socket", f"{chosen}/agent.sock")
    return AgentLocation(chosen, socket, personal=not named and chosen != HOST_STATE_DIR)


def default_state_dir() -> str:
    """This user's state directory if none is configured."""
    if os.geteuid() == 0:
        return HOST_STATE_DIR
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return f"{base}/moorline"


def is_told_elsewhere() -> bool:
    """Whether oslo.config would read the environment, or a folder beside a file of ours."""
    if "SNAP" in os.environ or any(k.startswith("OS_") and "__" in k for k in os.environ):
        return True
    program = os.path.basename(sys.argv[0] or "").removesuffix(".py")
    home = os.path.expanduser("~")
    return any(
        os.path.lexists(f"{place}/{name}.conf.d")
        for place in (f"{home}/.moorline", home, "/etc/moorline", "/etc")
        for name in ("moorline", program)
    )


def _read(file: str) -> Mapping[str, str] | None:
    """The options in [moorline] of *file*; none if it is not there. None: it is not plain."""
    try:
        with open(file, "rb") as stream:
            text = stream.read(_MAX_FILE_BYTES + 1).decode("ascii")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None
    if (
        len(text) > _MAX_FILE_BYTES
        or any(c < " " and c not in "\t\n" for c in text)
        or "\x7f" in text
    ):
        return None
    try:
        return dict(_ours(text.split("\n")))
    except ValueError:
        return None


def _ours(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The options of [moorline] as they are set, one after the other. Raises ValueError."""
    section = ""
    for line in lines:
        if not line.strip() or line[0] in "#;":
            continue
        if line[0] == "[":
            section = _section(line.rstrip())
            continue
        name, value = _assignment(line)
        if not section or (section == "DEFAULT" and name in _LEADS_ELSEWHERE):
            raise ValueError
        if section == "moorline":
            if name not in _PLAIN or not value:
                raise ValueError
            yield name, value


def _section(line: str) -> str:
    name = line[1:-1]
    if line[-1] != "]" or not name or (name.lower() == "moorline" and name != "moorline"):
        raise ValueError
    return name


def _assignment(line: str) -> tuple[str, str]:
    """Raises ValueError: it is no assignment, or goes on in the next line, or refers to others."""
    at = min((i for i in (line.find("="), line.find(":")) if i >= 0), default=-1)
    name, value = line[:at].strip(), line[at + 1 :].strip()
    if at < 0 or not name or line[0] in " \t" or "$" in value:
        raise ValueError
    if value and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return name, value
