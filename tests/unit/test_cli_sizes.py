"""A number or size that an option cannot have is wrong usage, whichever option it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from moorline.cli.commands import main

HUGE = "9999999999999999999"


@pytest.mark.parametrize(
    "words",
    [
        f"extend web01 3f2a {HUGE}",
        "extend web01 3f2a 9999999P",
        "extend web01 3f2a 0",
        f"set web01 3f2a --iops {HUGE}",
        f"set web01 3f2a --total-bytes-sec {HUGE}",
        "set web01 3f2a --total-bytes-sec 99999P",
        f"attach web01 a.raw --read-bytes-sec-max {HUGE}",
        "attach web01 a.raw --logical-block-size 8P",
        "attach web01 a.raw --logical-block-size 1",
        f"attach web01 a.raw --queues {HUGE}",
        f"attach web01 a.raw --timeout {HUGE}",
        f"launch web09 --boot a.raw --vcpus {HUGE}",
        "launch web09 --boot a.raw --memory 99999999T",
        f"launch web09 --boot a.raw --total-bytes-sec {HUGE}",
        "datastores --for 99999P -c vsphere://vc.example",
        "launch web09 --empty 99999P -c vsphere://vc.example",
    ],
)
def test_it_is_wrong_usage(tmp_path: Path, words: str) -> None:
    env = {"MOORLINE_STATE_DIR": str(tmp_path / "s"), "MOORLINE_HYPERVISOR": "test:///default"}
    done = CliRunner(env=env).invoke(main, words.split())
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "s").exists()
