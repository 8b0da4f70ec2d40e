"""The agent beneath systemd: whatever becomes of it, shares and guests live on."""

from __future__ import annotations

import json

import pytest

from tests.support.stage import Stage

WATCHDOG = """mkdir -p /etc/systemd/system/moorline-agent.service.d
printf '[Service]\\nWatchdogSec=3\\n' >/etc/systemd/system/moorline-agent.service.d/fast.conf
systemctl daemon-reload; systemctl restart moorline-agent"""
NO_WATCHDOG = """rm -r /etc/systemd/system/moorline-agent.service.d
systemctl daemon-reload; systemctl restart moorline-agent"""


@pytest.mark.everyday
def test_it_is_installed_as_the_page_says(stage: Stage) -> None:
    assert stage.property("ActiveState") == "active"
    assert stage.property("Type") == "notify"
    assert stage.property("UnitFileState") == "enabled"
    for page in stage.property("Documentation").split():
        stage.run(f"test -s {page.removeprefix('file:')}")
    verified = stage.run("systemd-analyze verify moorline-agent.service")
    assert verified.stdout + verified.stderr == ""
    stage.run("getent group moorline")
    stage.moorline("doctor")
    assert stage.run("findmnt -n -o PROPAGATION /").stdout.strip() == "shared"


@pytest.mark.everyday
def test_shares_and_guests_live_on_whatever_becomes_of_the_agent(stage: Stage) -> None:
    guest, volume = stage.writing("web01")
    clients = stage.clients()
    (scope,) = clients
    assert scope.startswith("moorline-")
    first = stage.agent()

    for deed, another in (
        ("systemctl reload moorline-agent", False),
        ("systemctl restart moorline-agent", True),
        ("kill -9 $(systemctl show --value -p MainPID moorline-agent)", True),
        ("systemctl stop moorline-agent; sleep 1; systemctl start moorline-agent", True),
    ):
        stage.run(deed)
        stage.await_(lambda: stage.property("ActiveState") == "active")
        stage.await_(lambda: stage.property("SubState") == "running")
        assert (stage.agent() != first) == another, deed
        first = stage.agent()
        guest.writes_on()
        assert stage.clients() == clients, deed
        assert stage.rows() == {volume: ("attached", "attached")}
    guest.saw_no_error()


def test_an_agent_that_hangs_is_killed_by_the_watchdog(stage: Stage) -> None:
    guest, volume = stage.writing("web01")
    clients = stage.clients()
    stage.run(WATCHDOG)
    first, restarts = stage.agent(), int(stage.property("NRestarts"))
    stage.run("sleep 8")
    assert stage.agent() == first  # it tells systemd often enough
    stage.run(f"kill -STOP {first}")
    stage.await_(lambda: int(stage.property("NRestarts")) > restarts)
    stage.await_(lambda: stage.property("SubState") == "running")
    assert stage.agent() != first
    guest.writes_on()
    assert stage.clients() == clients
    assert stage.rows() == {volume: ("attached", "attached")}
    guest.saw_no_error()
    stage.run(NO_WATCHDOG)


@pytest.mark.parametrize("first", ["agent", "libvirtd"])
def test_agent_and_libvirtd_come_and_go_in_any_order(stage: Stage, first: str) -> None:
    libvirtd = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service"
    units = ["moorline-agent", libvirtd]
    if first == "libvirtd":
        units.reverse()
    guest, volume = stage.writing("web01")
    clients = stage.clients()
    for stopped in (units, units[::-1]):
        for unit in stopped:
            stage.run(f"systemctl stop {unit}")
        guest.writes_on()
        for unit in units:
            stage.run(f"systemctl start {unit}")
        stage.await_(lambda: stage.property("SubState") == "running")
        stage.await_(lambda: stage.rows() == {volume: ("attached", "attached")})
        assert stage.clients() == clients
    stage.run("systemctl restart libvirtd")
    stage.await_(lambda: stage.rows() == {volume: ("attached", "attached")})
    other = stage.attach("web01", "other.raw")
    guest.wait_for(other)
    guest.writes_on()
    guest.saw_no_error()


def test_the_journal_has_priorities(stage: Stage) -> None:
    since = stage.run("date '+%F %T'").stdout.strip()
    stage.guest("web01")
    stage.share.command(fail={"code": 1, "stderr": "the registry is away"})
    stage.attach_fails("web01", "data.raw")
    stage.share.command()
    stage.await_(lambda: {row[1] for row in stage.rows().values()} == {"attached"})
    told = stage.run(f"journalctl -q -t moorline-agent -o json --since '{since}'").stdout
    lines = [json.loads(line) for line in told.splitlines()]
    failed = {line["PRIORITY"] for line in lines if "the registry is away" in line["MESSAGE"]}
    assert failed
    assert failed <= {"3", "4"}, lines
    assert "6" in {line["PRIORITY"] for line in lines}
    assert not [line["MESSAGE"] for line in lines if line["MESSAGE"].startswith("<")]
    assert {line["_SYSTEMD_UNIT"] for line in lines} == {"moorline-agent.service"}


def test_members_of_the_group_may_and_others_may_not(stage: Stage) -> None:
    stage.guest("web01")
    stage.run("useradd -m -G moorline member; useradd -m other")
    volume = stage.attach("web01", "data.raw")
    export = stage.share.export
    stage.share.disk("second.raw")
    listed = stage.run("moorline list --output json", user="member").stdout
    assert [row["volume"] for row in json.loads(listed)] == [volume]
    attach = f"moorline attach web01 quobyte://{export}/second.raw --format raw"
    stage.run(attach, user="other", code=9)
    stage.run("moorline list", user="other", code=9)
    stage.run(f"moorline detach web01 {volume}", user="other", code=9)
    assert set(stage.rows()) == {volume}
    stage.run(attach, user="member")
    assert len(stage.rows()) == 2
    stage.run(f"moorline detach web01 {volume}", user="member")
    assert len(stage.rows()) == 1
    stage.run("userdel -r member; userdel -r other", code=None)
