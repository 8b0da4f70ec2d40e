"""A host that stops and starts: guests lose no write, and have their disks before they run."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lab.machine.container import LAB
from lab.machine.guest import LAST_SECTOR, POWER_OFF
from tests.support.luks_image import luks_image
from tests.support.stage import Guest, Stage

IMPATIENT = """sed -i '/SHUTDOWN_TIMEOUT/d' /etc/default/libvirt-guests
echo SHUTDOWN_TIMEOUT=10 >>/etc/default/libvirt-guests
mkdir -p /etc/systemd/system.conf.d
printf '[Manager]\\nDefaultTimeoutStopSec=5s\\n' >/etc/systemd/system.conf.d/lab.conf
systemctl daemon-reexec"""
"""An administrator who waits 10 s for guests, and 5 s for what else stops: not 300 s and 90 s."""


def last_words(stage: Stage, file: str) -> bytes:
    """What the guest wrote to its disk when it was asked to shut down."""
    at = 512 * LAST_SECTOR
    return (stage.share.path / file).read_bytes()[at : at + 4]


def wrote_to_the_end(stage: Stage, guest: Guest) -> None:
    """The guest was asked to shut down, and had its disk until it went."""
    guest.saw_no_error()
    assert POWER_OFF in guest.console()
    assert last_words(stage, f"{guest.name}.raw") == b"off\n"


@pytest.mark.everyday
def test_a_guest_that_writes_all_the_time_loses_nothing_by_a_reboot(stage: Stage) -> None:
    first, one = stage.writing("web01")
    second, two = stage.writing("web02")
    stage.run("virsh -q autostart web01")
    took = stage.machine.reboot()
    for guest in (first, second):
        wrote_to_the_end(stage, guest)
    assert took < 60

    again = stage.booted("web01")  # libvirtd started it
    again.write_all_the_time(one)
    assert again.device(one) == "/dev/vda"
    assert stage.run("virsh -q list --name").stdout.split() == ["web01"]
    stage.await_(lambda: {row[1] for row in stage.rows().values()} <= {"attached", "persistent"})
    stage.run("virsh -q start web02")
    stage.booted("web02").write_all_the_time(two)
    stage.await_(
        lambda: stage.rows() == {one: ("attached", "attached"), two: ("attached", "attached")}
    )
    again.saw_no_error()
    stage.moorline("doctor")


def test_a_power_cut_leaves_everything_to_be_found_again(stage: Stage) -> None:
    _, one = stage.writing("web01")
    stage.run("virsh -q autostart web01")
    for _ in range(2):
        stage.machine.cut()
        stage.machine.start()
        guest = stage.booted("web01")
        guest.write_all_the_time(one)
        stage.await_(lambda: stage.rows() == {one: ("attached", "attached")})
        guest.saw_no_error()
        stage.moorline("doctor")


def test_the_key_of_a_luks_volume_is_there_again_after_a_reboot(stage: Stage) -> None:
    """libvirtd has it in memory alone: what it starts by itself at boot comes before the agent."""
    luks_image(stage.share.path / "sealed.luks", b"twelve-chars-xx", 2 << 20)
    (stage.machine.lab / "key").write_bytes(b"twelve-chars-xx")
    (stage.machine.lab / "key").chmod(0o600)
    guest = stage.guest("web01")
    source = f"quobyte://{stage.share.export}/sealed.luks"
    how = f"--format luks --luks-key-file {LAB}/key --volume sealed"
    stage.moorline(f"attach web01 {source} {how}")
    (stage.machine.lab / "key").unlink()
    guest.write_all_the_time("sealed")
    for go in (stage.machine.reboot, _cut(stage)):
        go()
        stage.await_(lambda: "moorline" in stage.run("virsh -q secret-list").stdout)
        stage.run("virsh -q start web01")
        stage.booted("web01").write_all_the_time("sealed")
        assert stage.rows() == {"sealed": ("attached", "attached")}
        # systemd keeps this command's own words in /run: they must not be what is sought.
        grep = "grep -rl 'twelve-chars-x[x]' /etc /var/lib/moorline /run"
        written = stage.run(grep, code=None)
        assert written.stdout == ""
    stage.moorline("detach web01 sealed")
    assert "moorline" not in stage.run("virsh -q secret-list").stdout


def _cut(stage: Stage) -> Callable[[], None]:
    def cut() -> None:
        stage.machine.cut()
        stage.machine.start()

    return cut


def test_links_are_made_before_the_agent_is_ready(stage: Stage) -> None:
    stage.writing("web01")
    stage.share.command(slow=3)
    stage.machine.reboot()
    stage.share.command()
    told = stage.run("journalctl -b -q -o cat -u moorline-agent").stdout.splitlines()
    connected = next(n for n, line in enumerate(told) if "connect done" in line)
    ready = next(n for n, line in enumerate(told) if line.startswith("Started moorline-agent"))
    assert connected < ready, told
    order = stage.run("systemctl show --value -p Before moorline-agent").stdout
    assert "libvirt-guests.service" in order


@pytest.mark.everyday
def test_a_share_that_hangs_does_not_hold_the_machine_up(stage: Stage) -> None:
    stage.run(IMPATIENT)
    guest, _ = stage.writing("web01")
    other = stage.guest("web02")
    stage.share.daemon(hang=True)
    began = time.monotonic()
    took = stage.machine.reboot(deadline=170)
    stage.share.daemon()
    assert took < 120, began
    assert POWER_OFF in other.console()  # its disks hang not
    assert POWER_OFF not in guest.console()  # it waited for its disk
    stage.run("virsh -q start web01")
    stage.booted("web01").saw_no_error()
