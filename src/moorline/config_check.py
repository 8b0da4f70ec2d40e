"""Whether what is installed can use a configuration. Asks no storage and no guest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path

from moorline import config, installed
from moorline.config import Settings
from moorline.errors import MoorlineError
from moorline.host.linux import Linux

_NEAR_RATIO = 0.87
"""How much alike a slip and what was meant are; Nova's own options are less like ours."""
_OURS_ALONE = frozenset({"libvirt", "moorline", "powervm", "vsphere"})
"""Sections whose options have names that no other program uses in another section."""


def misconfigured(given: Settings) -> list[str]:
    """Why what is installed cannot be used with these settings, a text each."""
    found = []
    with closing(Linux()) as host:
        backends = installed.InstalledBackends(host, given.values)
        try:
            backends.on_error("")
        except MoorlineError as e:
            found.append(str(e))
        for kind in sorted(backends):
            try:
                backends[kind]
            except MoorlineError as e:
                found.append(f"{kind}: {e}")
    try:
        installed.driver(given.hypervisor)
    except MoorlineError as e:
        found.append(str(e))
    return found


def mistyped(files: Sequence[Path]) -> list[str]:
    """What in *files* looks like an option of ours and is none, a text each. Raises Refused.

    What is like none of ours may be another program's: a nova.conf is full of that.
    """
    known: dict[str, set[str]] = defaultdict(set)
    for option in (*config.OPTIONS, *installed.options()):
        known[option.group].add(option.name)
    return [
        f"{file}: {slip}"
        for file in config.chosen_files(files)
        for section, names in config.written(file).items()
        for slip in _slips(section, names, known)
    ]


def _slips(section: str, names: Sequence[str], known: dict[str, set[str]]) -> Iterator[str]:
    if section not in known:
        near = get_close_matches(section, set(known) - {"DEFAULT"}, 1, _NEAR_RATIO - 0.1)
        if near and any(get_close_matches(name, known[near[0]], 1, _NEAR_RATIO) for name in names):
            yield f"the section [{section}] is read by nobody: is it [{near[0]}]?"
        return
    for name in names:
        if name in known[section]:
            continue
        others = [other for other in _OURS_ALONE if name in known[other]]
        near = (
            get_close_matches(name, known[section], 1, _NEAR_RATIO) if section != "DEFAULT" else []
        )
        if others:
            yield f"the option {name} is not read in [{section}]: it belongs into [{others[0]}]"
        elif near:
            yield f"there is no option {name} in [{section}]: is it {near[0]}?"
