"""What is stopped (SIGSTOP) keeps no command much longer than its time-out, and is code 11."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from moorline.api import Moorline
from moorline.cli import fast_path
from moorline.cli.commands import main
from moorline.deadline import Deadline, callers_patience, waited_for
from moorline.errors import Unavailable, Uncertain
from moorline.hypervisors.libvirt.connection import MIN_CALL_SECONDS, Connection
from moorline.local_api import wire
from moorline.local_api.client import Client
from moorline.model import Disk, Guest, GuestId, GuestName, VolumeId
from moorline.testing.toys import ToyHypervisor
from tests.support.environment import bare
from tests.support.libvirt_calls import URI
from tests.support.rig import Rig

ID = "6a1f0b0e-0f43-4a0c-9d62-0a7b6f6f1c11"
UNAVAILABLE = 11


def test_a_call_to_libvirt_is_given_up_with_its_caller(may_return: threading.Event) -> None:
    pytest.importorskip("libvirt")
    connection = Connection(URI, deadline=600)
    with (
        waited_for(Deadline(0.0)),
        pytest.raises(Uncertain, match=f"within {MIN_CALL_SECONDS:g} s about web01"),
    ):
        connection.look("web01", lambda virt: may_return.wait())


def test_nobody_waits_where_nobody_says_so() -> None:
    with waited_for(Deadline(600)):
        assert 599 < callers_patience(1) <= 600
        with waited_for(Deadline(0)):
            assert callers_patience(1) == 1
        assert callers_patience(1) > 1
    assert callers_patience(1) == float("inf")


# --- the agent


@pytest.fixture(params=[0, 3], ids=["heard", "with as many waiting as may"])
def stopped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The state directory of an agent that is stopped: the kernel takes connections for it."""
    (tmp_path / "moorline.db").touch()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "agent.sock"))
    listening.listen(0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(request.param)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(str(tmp_path / "agent.sock"))
    yield tmp_path
    for each in (listening, *waiting):
        each.close()


def test_an_agent_that_is_stopped_is_not_taken_for_none(stopped: Path) -> None:
    at = str(stopped / "agent.sock")
    with waited_for(Deadline(0.0)):
        with pytest.raises(wire.Silent, match="does not answer"):
            wire.about(at)
        with pytest.raises(Unavailable):
            Client(at).attachments.list()


@pytest.mark.parametrize(
    "words",
    [
        ["attach", "g1", "/x.raw", "--format", "raw", "--timeout", "1"],
        ["detach", "g1", ID, "--timeout", "1"],
        ["extend", "g1", ID, "--timeout", "1"],
        ["wait", ID, "--for", "detached", "--timeout", "1"],
        ["remove", "g1", "--timeout", "1"],
    ],
)
def test_commands_say_that_the_agent_does_not_answer(stopped: Path, words: Sequence[str]) -> None:
    its = [*words, "--state-dir", str(stopped)]
    assert fast_path.run(its) in (None, UNAVAILABLE)
    done = CliRunner().invoke(main, its)
    assert (done.exit_code, "does not answer" in done.stderr) == (UNAVAILABLE, True)


def test_an_agent_that_is_gone_is_none(tmp_path: Path) -> None:
    gone = socket.socket(socket.AF_UNIX)
    gone.bind(str(tmp_path / "agent.sock"))
    gone.close()
    with pytest.raises(Unavailable) as raised:
        wire.about(str(tmp_path / "agent.sock"))
    assert not isinstance(raised.value, wire.Silent)


# --- the hypervisor


class _Silent(ToyHypervisor):
    """Each look is given up."""

    def survey(self) -> Sequence[Guest]:
        raise Uncertain("it did not answer")

    def find(self, guest: str) -> GuestName:
        raise Uncertain("it did not answer")

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        raise Uncertain("it did not answer")


@pytest.mark.parametrize(
    "ask",
    [
        lambda it: it.attachments.detach("g1", ID, timeout=0),
        lambda it: it.attachments.extend("g1", "vdb", timeout=0),
        lambda it: it.maintenance.disks(),
        lambda it: it.maintenance.disks("g1"),
        lambda it: it.maintenance.adopt("g1", "toy://s1/a"),
        lambda it: it.maintenance.release("g1", "vdb"),
        lambda it: it.maintenance.release_all("g1"),
        lambda it: it.maintenance.repair(),
    ],
)
def test_where_only_looks_were_given_up_nothing_has_happened(
    rig: Rig, ask: Callable[[Any], object]
) -> None:
    silent = _Silent(rig.world)
    reconciler = rig.reconciler()
    with (
        Moorline(rig.records, reconciler, silent, environment=bare()) as moorline,
        pytest.raises(Unavailable, match="did not answer"),
    ):
        ask(moorline)
