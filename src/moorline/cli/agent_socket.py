"""Where the agent answers, found without loading the configuration."""

from __future__ import annotations

import os

from moorline import agent_location
from moorline.cli import typed_files
from moorline.errors import Denied, Unavailable
from moorline.local_api import wire


def find(state_dir: str | None) -> str | None:
    """The agent's socket, if plain options lead to one. None: the configuration decides.

    Raises :class:`wire.Silent`, Refused and Unavailable (the state directory does not answer).
    """
    typed_files.demand_home()
    there = agent_location.find(state_dir or None)
    if there is None:
        return None
    typed_files.demand_directory(there.state_dir)
    if there.personal:
        if os.path.lexists(f"{there.state_dir}/moorline.db"):
            return None
        there = agent_location.find(agent_location.HOST_STATE_DIR)
        assert there is not None, "it was found just now"
    try:
        about = wire.about(there.socket)
    except wire.Silent:
        raise
    except (Unavailable, Denied):
        return None
    its = about.get("state_dir")
    if state_dir and not (isinstance(its, str) and _same(its, state_dir)):
        return None
    return there.socket


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
