"""One share hangs: the others do not notice, it is told within its deadline, and it recovers."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from libvirt_rig import until
from scene import Scene, Volume, daemons, halves, small_guest

from lab.guest import Guest, pattern
from lab.host import umount
from moorline import wiring
from moorline.api import Moorline
from moorline.errors import MoorlineError, Uncertain
from moorline.host import linux as this_host
from moorline.host.probe.pool import PROBE_DEADLINE_SECONDS
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import VolumeId

T = TypeVar("T")
SHARES = 3
ROUNDS = 35
MIN_TURNS, MAX_TURNS = 2, 24
"""How often both are measured by turns, and judged upon all samples so far. Of one turn a p99 is
the second slowest of some 200 calls, on two cores that QEMU, libvirtd and the daemons share: what
else the machine does comes and goes, and meets both; what we do wrong stays. Another private host
runs its tests at the same time."""
SLOWER = 1.2
MAX_LOOKERS = 5


@pytest.fixture
def stopped_guests(libvirt_conn: Any, leftovers_check: None) -> Iterator[list[Any]]:
    """A guest for each share that is well. They are stopped: what varies is ours alone."""
    with (
        small_guest(libvirt_conn, "well0") as a,
        small_guest(libvirt_conn, "well1") as b,
        small_guest(libvirt_conn, "well2") as c,
    ):
        yield [a, b, c]


def p99(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=100, method="inclusive")[98]


def unhindered(quiet: list[float], loud: list[float]) -> bool:
    """Whether nobody ever waited for the share that hangs, and few were slower beside it.

    Who waits for it does so for a probe's deadline; who waits for a busy machine does so without
    it, too.
    """
    waited = max(loud) >= max(quiet) + PROBE_DEADLINE_SECONDS / 2
    return not waited and p99(loud) <= p99(quiet) * SLOWER


def measured_by_turns(turn: Callable[[], tuple[list[float], list[float]]]) -> list[float]:
    """Take turns until nobody is hindered; return both p99 in milliseconds.

    *turn* returns how long calls took without and beside what hangs.
    """
    quiet: list[float] = []
    loud: list[float] = []
    for number in range(MAX_TURNS):
        for samples, more in zip((quiet, loud), turn(), strict=True):
            samples += more
        if number + 1 >= MIN_TURNS and unhindered(quiet, loud):
            break
    assert unhindered(quiet, loud), told(quiet, loud)
    return [round(p99(samples) * 1000, 1) for samples in (quiet, loud)]


def told(quiet: list[float], loud: list[float]) -> str:
    figures = [f"p99 {p99(samples):.3f} s, most {max(samples):.3f} s" for samples in (quiet, loud)]
    return f"{figures[0]}; beside a hung share {figures[1]}"


def attach_and_detach(moorline: Moorline, guest: str, volume: Volume) -> list[float]:
    """Do both again and again; return how long each took."""
    connection = json.loads(volume.connection.read_text())
    took = []
    for _ in range(ROUNDS):
        for change, what in (
            (moorline.attachments.attach, connection),
            (moorline.attachments.detach, volume.id),
        ):
            start = time.monotonic()
            change(guest, what)
            took.append(time.monotonic() - start)
    return took


def in_threads(moorline: Moorline, guests: list[Any], volumes: list[Volume]) -> list[float]:
    with ThreadPoolExecutor(SHARES) as pool:
        names = [guest.name() for guest in guests]
        each = pool.map(
            lambda at: attach_and_detach(moorline, *at), zip(names, volumes, strict=True)
        )
        return [sample for samples in each for sample in samples]


def processes() -> int:
    return len(list(Path("/proc").glob("[0-9]*")))


def test_other_shares_are_not_slowed(
    scene: Scene, stopped_guests: list[Any], guest: Guest, record_property: Any
) -> None:
    shares = [scene.share.cluster.volume(f"well{n}") for n in range(SHARES)]
    volumes = [scene.volume(share=share) for share in shares]
    keepers = [scene.volume(share=share) for share in shares]
    hung = scene.volume()
    settings = wiring.settings(state_dir=scene.moorline.state)
    with wiring.open_host(settings) as moorline:
        # The shares stay mounted: what is measured is attaching, not a client's start.
        for keeper, domain in zip(keepers, stopped_guests, strict=True):
            moorline.attachments.attach(domain.name(), json.loads(keeper.connection.read_text()))
        moorline.attachments.attach(guest.name, json.loads(hung.connection.read_text()))
        in_threads(moorline, stopped_guests, volumes)  # to warm up
        figures = measured_by_turns(
            lambda: measure(moorline, stopped_guests, volumes, guest.name, hung)
        )
        record_property("hung_share_p99_ms", figures)
        until(lambda: _detached(moorline, guest.name, hung), 20)
        for keeper, domain in zip(keepers, stopped_guests, strict=True):
            moorline.attachments.detach(domain.name(), keeper.id)
    assert scene.is_clean()


def measure(
    moorline: Moorline, guests: list[Any], volumes: list[Volume], other: str, hung: Volume
) -> tuple[list[float], list[float]]:
    """Time the same work without and with a share that hangs."""
    quiet = in_threads(moorline, guests, volumes)
    with insisting(moorline, other, hung) as heard:
        loud = in_threads(moorline, guests, volumes)
    assert heard
    return quiet, loud


@contextmanager
def insisting(moorline: Moorline, guest: str, volume: Volume) -> Iterator[list[MoorlineError]]:
    """The volume's share hangs, and somebody asks for it again and again; see what he hears."""
    heard: list[MoorlineError] = []
    stop = threading.Event()
    connection = json.loads(volume.connection.read_text())

    def insist() -> None:
        while not stop.is_set():
            try:
                moorline.attachments.attach(guest, connection, timeout=0.3)
            except MoorlineError as e:
                heard.append(e)

    share = volume.share
    before = processes()
    share.daemon(hang=True)
    thread = threading.Thread(target=insist)
    thread.start()
    until(lambda: heard)
    try:
        yield heard
    finally:
        # The pool of lookers, and at most one that is stuck.
        assert processes() <= before + MAX_LOOKERS
        stop.set()
        thread.join(30)
        share.daemon()
        until(lambda: _attached(moorline, guest, connection), 20)


def _attached(moorline: Moorline, guest: str, connection: Any) -> bool:
    try:
        moorline.attachments.attach(guest, connection, timeout=1)
    except MoorlineError:
        return False
    return True


def _detached(moorline: Moorline, guest: str, volume: Volume, timeout: float = 5) -> bool:
    try:
        moorline.attachments.detach(guest, volume.id, timeout=timeout)
    except MoorlineError:
        return False
    return True


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long looks at a share waited that was then given up, in seconds: their deadlines."""
    waited: list[float] = []
    ask = this_host._ProbeChild.ask

    def asked(child: Any, question: bytes, deadline: float) -> bytes:
        try:
            return ask(child, question, deadline)
        except TimeoutError:
            waited.append(deadline)
            raise

    monkeypatch.setattr(this_host._ProbeChild, "ask", asked)
    return waited


def test_it_is_told_within_its_deadline_and_recovers(
    scene: Scene, guest: Guest, waits: list[float]
) -> None:
    """The share hangs until all is told, so who tells it waited for a deadline; for one alone."""
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.write(volume.id, "before")
    before = guest.domain.XMLDesc()
    scene.share.daemon(hang=True)
    for args in (["list"], ["show", volume.id]):
        seen = scene.moorline(*args).stdout
        assert "hung" in seen
    assert "does not answer" in seen
    settings = wiring.settings(state_dir=scene.moorline.state)
    for own, ask in (
        (False, lambda moorline: moorline.attachments.list()),
        (False, lambda moorline: moorline.attachments.show(volume.id)),
        (True, lambda moorline: not _detached(moorline, guest.name, volume, timeout=1)),
    ):
        waits.clear()
        with wiring.open_host(settings, own=own) as moorline:
            assert ask(moorline)
        assert waits == [PROBE_DEADLINE_SECONDS]
    at = scene.mount_point()
    for command in (scene.attach, scene.detach):
        failed = command(guest.name, volume, "--timeout", "1", code=5)
        assert f"the share at {at} does not answer" in failed.stderr
        assert "the attachment is kept" in failed.stderr
        assert guest.domain.XMLDesc() == before  # no libvirt call that could hang was made
    assert len(scene.mounts()) == 1
    scene.share.daemon()
    # Nobody needs to repeat the command. A sweep waits for nobody, such as QEMU to close the file.
    until(lambda: scene.moorline("sweep", code=None).returncode == 0, 60)
    assert halves(guest.domain, volume) == (False, False)
    assert volume.bytes() == pattern("before")
    assert scene.is_clean()


def test_a_state_directory_on_it_is_given_up(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    state = str(scene.mount_point() / "state")
    scene.share.daemon(hang=True)
    configured = scene.write("hung.conf", f"[moorline]\nstate_dir = {state}\n")
    commands = ["list"], ["list", "--output", "json"], ["sweep"]
    ways = ("--state-dir", state), ("--config-file", str(configured))
    unset = replace(scene.moorline, state=None)
    with ThreadPoolExecutor(len(commands) * len(ways)) as pool:
        asked = [pool.submit(unset, *words, *way, code=11) for words in commands for way in ways]
        for each in asked:
            assert f"{state} did not answer within" in each.result().stderr
    scene.share.daemon()
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_one_that_hangs_after_the_first_look_is_given_up(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    state = scene.mount_point() / "state"
    state.mkdir()
    elsewhere = replace(scene.moorline, state=None)
    elsewhere("sweep", "--state-dir", str(state))
    watching = elsewhere.start("list", "--watch", "--output", "json", "--state-dir", str(state))
    assert watching.stdout is not None
    assert watching.stdout.readline() == "[]\n"
    scene.share.daemon(hang=True)
    _, told = watching.communicate(timeout=120)
    assert (watching.returncode, f"{state} did not answer within" in told) == (11, True), told
    scene.share.daemon()
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_command_that_waits_goes_on_by_itself(scene: Scene, guest: Guest) -> None:
    first, second = scene.volume(), scene.volume()
    scene.attach(guest.name, first)
    scene.share.daemon(hang=True)
    args = ("attach", guest.name, "--connection", str(second.connection), "--timeout", "30")
    heard = scene.directory / "heard"
    with heard.open("w") as stderr:
        waits = scene.moorline.start(*args, stderr=stderr)
    until(lambda: "does not answer; looking again in" in heard.read_text(), 20)
    assert waits.poll() is None
    assert halves(guest.domain, second) == (False, False)
    scene.share.daemon()
    waits.communicate(timeout=20)
    assert waits.returncode == 0, heard.read_text()
    guest.write(second.id, "went on")
    assert second.bytes() == pattern("went on")
    for volume in (first, second):
        scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_mount_command_that_hangs_is_killed_at_its_deadline(scene: Scene, guest: Guest) -> None:
    from moorline.backends.mounter import Mounter
    from moorline.backends.quobyte import Quobyte
    from moorline.errors import Uncertain
    from moorline.host.linux import Linux

    volume = scene.volume()
    info = json.loads(volume.connection.read_text())
    linux = Linux()
    base = scene.directory / "moorline/mnt"
    backend = Mounter(linux, Quobyte(), base, deadline=1.0)
    connection = backend.parse(info)
    scene.share.command(hang=True)
    with pytest.raises(Uncertain, match=r"mount\.quobyte did not end within 1 s"):
        backend.connect(connection)
    until(lambda: not daemons(scene.share))  # neither the command nor what it started
    scene.share.command()
    backend.connect(connection)
    assert len(scene.mounts()) == 1
    backend.disconnect(connection)
    linux.close()
    assert scene.is_clean()


def test_a_disk_on_a_lazily_unmounted_share_can_be_detached(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.wait_for(volume.id)
    umount(scene.mount_point(), "-l")
    scene.detach(guest.name, volume)
    assert halves(guest.domain, volume) == (False, False)
    assert scene.is_clean()


def test_a_guest_whose_detach_hangs_in_libvirt_hides_no_other(
    scene: Scene, guest: Guest, second_guest: Guest
) -> None:
    """QEMU waits for what the guest writes, and libvirt for QEMU; it still lists domains."""
    volume = scene.volume()
    scene.attach(guest.name, volume)
    device = guest.wait_for(volume.id)
    hypervisor = Libvirt(deadline=3)
    before = {each.name: each for each in hypervisor.survey()}
    scene.share.daemon(hang=True)
    try:
        guest.agent.run(f"dd if=/dev/zero of=/dev/{device} bs=64k count=1 conv=fsync 2>&1 &")
        time.sleep(1)  # until the guest writes it
        ask = partial(hypervisor.detach, before[guest.name].id, VolumeId(volume.id))
        with suppress(Uncertain):  # the guest is asked for the disk; who asks again waits for QEMU
            ask()
        with pytest.raises(Uncertain):
            ask()
        now = {each.name: each for each in hypervisor.survey()}
        assert now[second_guest.name] == before[second_guest.name]
        assert "still hangs" in now[guest.name].unreadable
        assert now[guest.name].paths == before[guest.name].paths
    finally:
        scene.share.daemon()
    until(lambda: not any(each.unreadable for each in hypervisor.survey()), 30)
    hypervisor.close()
    scene.detach(guest.name, volume)
    assert scene.is_clean()
