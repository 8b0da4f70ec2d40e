"""docs/operations.md, followed word for word on a machine: upgrade, watch, a full disk, remove."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lab.images import CHECKOUT
from lab.machine import operations
from lab.machine.container import LAB, Machine
from tests.support.stage import Stage

BEFORE = "src/moorline/host/systemd_scope.py"
"""The version before is the one that this file was not in yet: it named scopes differently."""
METRICS = "mkdir -p /etc/moorline; printf '[moorline]\nagent_metrics = 127.0.0.1:9877\n' >{file}"
ASK = """python3 - <<'END'
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9090/api/v1/{path}", timeout=5).read().decode())
END"""
PROMETHEUS = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
{scrape}"""


def earlier(directory: Path) -> None:
    """Lay the version before into *directory*."""
    git = ["git", "-C", str(CHECKOUT)]
    found = subprocess.run(
        [*git, "log", "--format=%H", "-1", "--diff-filter=A", "--", BEFORE],
        capture_output=True,
        text=True,
        check=False,
    )
    commit = found.stdout.strip()
    archive = subprocess.run([*git, "archive", f"{commit}~1"], capture_output=True, check=False)
    if not commit or archive.returncode:
        pytest.skip("the checkout has no history, so no version before this one")
    directory.mkdir()
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archive.stdout, check=True)


def test_an_upgrade_touches_no_share_and_no_guest(bare: Machine) -> None:
    before = bare.lab / "before"
    earlier(before)
    old = operations.commands("Install", before / "docs/operations.md")
    for command in old:
        bare.run(f"cd {LAB}/before && {command}", deadline=300)
    stage = Stage(bare, "vol-upgrade")
    guest, volume = stage.writing("web01")
    client = stage.run("pgrep -f bin/mount.quobyte").stdout
    assert client
    operations.follow(bare, "Upgrade with pip")
    guest.writes_on()
    assert stage.run("pgrep -f bin/mount.quobyte").stdout == client
    stage.await_(lambda: stage.rows() == {volume: ("attached", "attached")})
    other = stage.attach("web01", "other.raw")
    guest.wait_for(other)
    guest.writes_on()
    guest.saw_no_error()
    stage.moorline("detach web01 " + volume)
    stage.moorline("detach web01 " + other)
    assert stage.rows() == {}


def test_prometheus_collects_and_takes_the_rules(stage: Stage) -> None:
    rules = "/root/moorline/packaging/moorline-alerts.yaml"
    assert "SUCCESS" in stage.run(f"promtool check rules {rules}").stdout
    stage.run(METRICS.format(file="/etc/moorline/moorline.conf"))
    stage.run("systemctl restart moorline-agent")
    page = operations.PAGE.read_text()
    scrape = page.split("```yaml\n")[1].split("```")[0]
    config = stage.machine.lab / "prometheus.yml"
    config.write_text(PROMETHEUS.format(rules=rules, scrape=scrape))
    stage.run(f"promtool check config {LAB}/prometheus.yml")
    stage.run(
        "systemd-run --unit=lab-prometheus --collect prometheus --storage.tsdb.path=/tmp/tsdb "
        f"--web.listen-address=127.0.0.1:9090 --config.file={LAB}/prometheus.yml"
    )

    def asked(path: str) -> list[dict[str, object]]:
        told = stage.run(ASK.format(path=path), code=None)
        data = json.loads(told.stdout)["data"] if told.returncode == 0 else {}
        found: list[dict[str, object]] = data.get("result") or data.get("groups") or []
        return found

    def up(value: str) -> bool:
        return [each["value"][1] for each in asked("query?query=up")] == [value]  # type: ignore[index]

    stage.await_(lambda: up("1"))
    stage.await_(lambda: asked("query?query=moorline_hypervisor_up"))
    (group,) = asked("rules")
    assert {rule["health"] for rule in group["rules"]} == {"ok"}  # type: ignore[index,attr-defined]
    assert {rule["state"] for rule in group["rules"]} == {"inactive"}  # type: ignore[index,attr-defined]
    stage.run("systemctl stop moorline-agent")
    stage.await_(lambda: asked("query?query=ALERTS"))
    (alert,) = asked("query?query=ALERTS")
    assert alert["metric"]["alertname"] == "MoorlineAgentDown"  # type: ignore[index]
    stage.run("systemctl stop lab-prometheus; rm /etc/moorline/moorline.conf")
    stage.run("systemctl start moorline-agent")


def test_a_full_state_directory_changes_nothing_and_is_told(stage: Stage) -> None:
    guest = stage.guest("web01")
    stage.run("systemctl stop moorline-agent")
    stage.run("mount -t tmpfs -o size=4m,mode=711 small /var/lib/moorline")
    stage.run("systemctl start moorline-agent")
    volume = stage.attach("web01", "kept.raw")
    guest.write_all_the_time(volume)
    stage.run("dd if=/dev/zero of=/var/lib/moorline/filler bs=4k", code=1)
    agent = stage.agent()
    stage.share.disk("other.raw")
    attach = f"moorline attach web01 quobyte://{stage.share.export}/other.raw --format raw"
    told = stage.run(attach, code=11)
    assert "full" in told.stderr or "No space" in told.stderr, told.stderr
    assert stage.rows() == {volume: ("attached", "attached")}
    guest.writes_on()
    assert stage.agent() == agent
    stage.run("rm /var/lib/moorline/filler")
    stage.run(attach)
    assert len(stage.rows()) == 2
    guest.saw_no_error()
    for each in stage.rows():
        stage.moorline(f"detach web01 {each}")
    stage.run("systemctl stop moorline-agent; umount /var/lib/moorline")
    stage.run("systemctl start moorline-agent")


def test_removal_leaves_nothing(bare: Machine) -> None:
    operations.install(bare)
    stage = Stage(bare, "vol-removal")
    guest = stage.guest("web01")
    stage.share.disk("data.raw")
    id = "3f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"  # the page's
    (bare.lab / "data.json").write_text(
        json.dumps(stage.share.connection("data.raw", volume_id=id))
    )
    stage.moorline(f"attach web01 --connection {LAB}/data.json")
    guest.wait_for(id)
    operations.follow(bare, "Remove with pip")
    left = bare.run(
        "find / -xdev -iname '*moorline*' -not -path '/root/*' -not -path '/opt/moorline-lab*' "
        "-not -path '/run/moorline-lab*'; find /var /run -xdev -iname '*moorline*' "
        "-not -path '/run/moorline-lab*' -not -path '/var/log/*' -not -path '*/moorline-lab*'; "
        "systemctl list-units --all --plain --no-legend 'moorline*.service' 'moorline*.scope'; "
        "pgrep -af '[m]oorline agent'",
        code=None,
    ).stdout
    assert left == ""
    assert guest.agent.check("echo alive") == ["alive"]
