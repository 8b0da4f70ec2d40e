"""What is typed in other commands' ways: options before the command, other names of commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

_FLAGS = frozenset({"-q", "--quiet", "-v", "--verbose"})
_VALUES = frozenset(
    {"-o", "--output", "-c", "--hypervisor", "--state-dir", "--config-file", "--log-level"}
)
"""The options that every command has; a test compares."""
_GROUPS = frozenset({"config", "fleet", "hook", "state"})
"""Commands whose next word is a command; a test compares."""
MEANT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("delete", "destroy", "rm", "undefine"), "remove"),
        **dict.fromkeys(("get", "ps"), "list"),
        **dict.fromkeys(("describe", "info", "inspect"), "show"),
        **dict.fromkeys(("add", "connect", "mount", "plug"), "attach"),
        **dict.fromkeys(("disconnect", "umount", "unmount", "unplug"), "detach"),
        **dict.fromkeys(("create", "define", "run"), "launch"),
        **dict.fromkeys(("grow", "resize"), "extend"),
        **dict.fromkeys(("history", "log", "logs"), "events"),
        **dict.fromkeys(("check", "diagnose"), "doctor"),
        **dict.fromkeys(("dump", "save"), "export"),
        **dict.fromkeys(("import",), "adopt"),
        **dict.fromkeys(("migrate", "move"), "fleet migrate"),
        **dict.fromkeys(("reconcile", "sync"), "sweep"),
    }
)
"""What people who know other commands type, and what that is here."""


def command_first(words: Sequence[str]) -> list[str]:
    """*words* with options that every command has after the command that they stand before.

    As virsh and kubectl take them. What is not understood stays where it is.
    """
    at = 0
    while at < len(words) and (taken := _option(words[at])):
        at += taken
    before, rest = list(words[:at]), list(words[at:])
    if not (before and rest):
        return rest
    after = 2 if rest[0] in _GROUPS else 1
    return [*rest[:after], *before, *rest[after:]]


def _option(word: str) -> int:
    """How many words the option takes that *word* begins; 0: it is none of those."""
    if word in _FLAGS or (word.partition("=")[0] in _VALUES and "=" in word):
        return 1
    return 2 if word in _VALUES else 0
