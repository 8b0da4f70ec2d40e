"""The same stories with an agent: no command, output, exit code or secret is any different."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from libvirt_rig import until
from scene import Scene
from test_declared import (  # noqa: F401 - run here once more
    test_declared_attachments_are_made_seen_and_pruned,
    test_several_volumes_at_once,
)
from test_quobyte_story import (  # noqa: F401 - run here once more
    test_attach_use_repeat_detach,
    test_dry_runs_change_nothing,
    test_guests_share_a_mount_until_the_last_is_gone,
    test_output_for_programs,
    test_progress_is_told_on_stderr_alone,
    test_usage_unknown_guest_and_unknown_volume,
)
from test_secrets import (  # noqa: F401
    test_a_password_in_a_connection,
    test_a_password_in_what_is_refused,
)

from lab import host
from lab.agent import Agent
from lab.command import Moorline
from lab.guest import Guest, pattern


@pytest.fixture
def agent(lab: Path) -> Iterator[Agent]:
    """An agent that logs all it can beside its state, where the search for secrets finds it."""
    with tempfile.TemporaryDirectory(dir=lab, prefix="state-") as directory:
        Path(directory).chmod(0o755)
        conf = Path(directory) / "agent.conf"
        conf.write_text("[moorline]\nagent_log_level = debug\nagent_log_format = json\n")
        command = Moorline(Path(directory) / "moorline")
        started = Agent(command, Path(directory) / "log", "--config-file", str(conf))
        yield started
        started.stop()


@pytest.fixture
def moorline(agent: Agent) -> Moorline:
    """Instead of the other stories' command: this one's state is the agent's."""
    return Moorline(Path(str(agent.client.about()["state_dir"])))


def test_the_steps_of_a_call_that_takes_its_time_are_whole(
    scene: Scene, guest: Guest, agent: Agent
) -> None:
    """The agent's loop hears of the attachment at once, and of the mount, and of the guest."""
    volume = scene.volume()
    given = ["attach", guest.name, "--connection", str(volume.connection), "--output", "json"]
    scene.share.command(slow=3)
    first = scene.moorline.start(*given)
    until(scene.mount_calls)
    second = scene.moorline.start(*given)  # it waits for the same
    for asked in (first, second):
        output, error = asked.communicate(timeout=30)
        assert asked.returncode == 0, error
        assert json.loads(output)["steps"] == ["connect", "attach"]
    assert len(scene.mount_calls()) == 1
    scene.share.command()
    told = scene.moorline("detach", guest.name, volume.id, "--output", "json").stdout
    assert json.loads(told)["steps"] == ["detach", "disconnect", "forget"]
    assert scene.is_clean()


def test_the_agent_dies_and_the_next_one_goes_on(
    scene: Scene, guest: Guest, agent: Agent, tmp_path: Path
) -> None:
    volume = scene.volume()
    scene.share.command(slow=1.5)
    asked = scene.moorline.start("attach", guest.name, "--connection", str(volume.connection))
    until(scene.mount_calls)
    agent.kill()
    _, error = asked.communicate(timeout=20)
    assert asked.returncode == 6  # nobody knows how far it came, and what was wanted stands
    assert "did not answer to the end" in error
    assert scene.attachments()[volume.id][0] == "attached"
    scene.share.command()
    again = Agent(scene.moorline, tmp_path / "log")
    try:
        until(lambda: scene.attachments() == {volume.id: ("attached", "attached")})
        assert len(scene.mounts()) == 1
        guest.write(volume.id, "after")
        assert volume.bytes() == pattern("after")
        scene.detach(guest.name, volume)
        assert scene.is_clean()
    finally:
        again.stop()


def test_told_to_stop_it_tells_who_waits(scene: Scene, guest: Guest, agent: Agent) -> None:
    volume = scene.volume()
    scene.share.command(fail={"code": 1, "stderr": "no route"})
    asked = scene.moorline.start(
        "attach", guest.name, "--connection", str(volume.connection), "--timeout", "600"
    )
    until(scene.mount_calls)
    agent.stop()
    _, error = asked.communicate(timeout=20)
    assert asked.returncode == 5, error
    assert "the agent stops before this was done" in error
    assert scene.attachments() == {volume.id: ("attached", "absent")}
    scene.share.command()
    scene.detach(guest.name, volume)  # without an agent
    assert scene.is_clean()


def test_a_libvirtd_that_hangs_does_not_keep_it_from_stopping(agent: Agent) -> None:
    """The next one could not begin: what stops owns the host until it has ended."""
    libvirtd = int(host.LIBVIRT_PID.read_text())
    until(lambda: agent.client.attachments.list() == [])
    os.kill(libvirtd, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        agent.stop()
        assert time.monotonic() - begun < 20
    finally:
        os.kill(libvirtd, signal.SIGCONT)
