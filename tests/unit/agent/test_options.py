"""The agent's own options: what is wrong with them is told before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline import config
from moorline.agent.agent import Options
from moorline.errors import Refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent_anyone_may_look", "perhaps"),
        ("agent_log_format", "xml"),
        ("agent_log_level", "shouting"),
        ("agent_sweep_every", "0"),
        ("agent_sweep_every", "nan"),
        ("agent_sweep_every", "often"),
    ],
)
def test_options_are_checked(name: str, value: str, tmp_path: Path) -> None:
    settings = config.load([], tuple, state_dir=tmp_path)
    assert Options.of(settings).socket == tmp_path / "agent.sock"
    with pytest.raises(Refused, match=name):
        Options.of(config.Settings(tmp_path, "", "", {}, {**settings.agent, name: value}))


def test_a_misspelled_option_is_told(tmp_path: Path) -> None:
    conf = tmp_path / "a.conf"
    conf.write_text("[moorline]\nagent_grup = storage\n")
    with pytest.raises(Refused, match="no option agent_grup") as told:
        config.load([conf], tuple, state_dir=tmp_path)
    assert told.value.hint == "did you mean agent_group?"
    conf.write_text("[moorline]\nsocket = /run/x\n[nova]\nagent_grup = 1\n")  # the plug-in's
    config.load([conf], tuple, state_dir=tmp_path)
