"""What operators install beside the package agrees with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from moorline.agent.metrics import Metrics
from moorline.core.backoff import Pending
from moorline.host.systemd_scope import AFTER_GUESTS, NETWORK, SLICE
from moorline.loop.drift import Sweep
from moorline.model import GuestId, Key, Level, VolumeId

PACKAGING = Path(__file__).parents[3] / "packaging"
UNIT = (PACKAGING / "moorline-agent.service").read_text()
# systemd.exec(5): each of these gives the service a mount namespace of its own.
NAMESPACES = {
    *("PrivateMounts", "PrivateTmp", "PrivateDevices", "PrivateUsers", "PrivateIPC"),
    *("PrivateNetwork", "ProtectSystem", "ProtectHome", "ProtectProc", "ProcSubset"),
    *("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectClock"),
    *("ProtectControlGroups", "ProtectHostname", "ReadWritePaths", "ReadOnlyPaths"),
    *("InaccessiblePaths", "ExecPaths", "NoExecPaths", "TemporaryFileSystem", "BindPaths"),
    *("BindReadOnlyPaths", "MountFlags", "MountAPIVFS", "RootDirectory", "RootImage"),
    *("DynamicUser", "MountImages", "ExtensionImages", "ExtensionDirectories"),
}


def settings() -> dict[str, str]:
    lines = [line for line in UNIT.splitlines() if "=" in line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_its_mounts_are_everybody_s() -> None:
    assert not NAMESPACES & settings().keys()


def test_what_it_started_outlives_it_and_guests_come_after_it() -> None:
    found = settings()
    assert found["KillMode"] == "process"
    assert found["Type"] == "notify"
    assert "libvirt-guests.service" in found["Before"]
    assert "libvirtd.service" in found["After"]


def test_the_slice_of_the_clients_is_ordered_as_their_scopes() -> None:
    lines = (PACKAGING / "moorline.slice").read_text().splitlines()
    assert f"Before={' '.join(AFTER_GUESTS)}" in lines
    assert f"After={NETWORK}" in lines
    assert SLICE == "moorline.slice"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = Path(sys.executable).with_name("moorline")
    unit = tmp_path / "moorline-agent.service"
    unit.write_text(UNIT.replace("/opt/moorline/bin/moorline", str(program)))
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True)
    about_it = [line for line in done.stderr.splitlines() if "moorline" in line]
    assert (done.returncode, about_it) == (0, []), done.stderr


def test_whoever_looks_at_the_unit_or_its_log_is_led_to_our_pages() -> None:
    assert settings()["SyslogIdentifier"] == "moorline-agent"
    pages = settings()["Documentation"].split()
    installed = "file:/opt/moorline/share/doc/moorline/"
    docs = PACKAGING.parent / "docs"
    assert all((docs / page.removeprefix(installed)).is_file() for page in pages)
    installing = "install -D -m 644 -t /opt/moorline/share/doc/moorline docs/*.md"
    assert installing in (docs / "operations.md").read_text()
    slice = (PACKAGING / "moorline.slice").read_text()
    assert f"Documentation={installed}operations.md" in slice


def told() -> set[str]:
    """The names that an agent's page has."""
    metrics = Metrics()
    metrics.watch(list, lambda: Sweep(0, [], 0.0, paused={"web01": "it is paused"}))
    metrics.follow(lambda: 0.0, lambda: 0)
    return set(re.findall(r"^(moorline_\w+)", metrics.page().decode(), re.MULTILINE))


def test_alerts_rest_on_what_was_found() -> None:
    key = Key("h1", VolumeId("v1"), GuestId("g1"))
    waits = [
        Pending(key, Level.ATTACHED, 3.0, 2, "it does not answer", age, running)
        for age, running in ((7.0, False), (301.0, True))
    ]
    links = {"linked": 3, "hung": 2, "broken": 1}
    sweep = Sweep(9, [], 0.25, "no libvirtd", links, 4, {"web01": "it is paused", "b": "so is it"})
    metrics = Metrics()
    metrics.watch(lambda: waits, lambda: sweep)
    metrics.follow(lambda: 61.5, lambda: 2)
    page = metrics.page().decode().splitlines()
    for line in (
        'moorline_queue_depth{want="attached"} 2.0',
        'moorline_queue_oldest_seconds{want="attached"} 301.0',
        'moorline_queue_running{want="attached"} 1.0',
        'moorline_queue_depth{want="absent"} 0.0',
        'moorline_links{state="broken"} 1.0',
        'moorline_links{state="foreign"} 0.0',
        "moorline_hung_links 2.0",
        "moorline_attachments 9.0",
        "moorline_attachments_parked 4.0",
        "moorline_guests_paused 2.0",
        'moorline_guest_paused{guest="web01",why="it is paused"} 1.0',
        "moorline_sweep_seconds 0.25",
        "moorline_hypervisor_up 0.0",
        "moorline_fleet_unheard_seconds 61.5",
        "moorline_fleet_copies_stopped_total 2.0",
    ):
        assert line in page


def test_alerts_and_dashboard_ask_for_what_there_is() -> None:
    alerts = yaml.safe_load((PACKAGING / "moorline-alerts.yaml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert all({"alert", "expr", "annotations"} <= rule.keys() for rule in rules)
    dashboard = json.loads((PACKAGING / "moorline-dashboard.json").read_text())
    asked = [rule["expr"] for rule in rules]
    asked += [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    names = {name for expr in asked for name in re.findall(r"moorline_\w+", expr)}
    assert len(names) > 8
    assert names <= told()


def understood(written: Any) -> Any:
    """What Grafana's schema keeps of a dashboard; it drops what it does not have a name for."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(written)))


def lost(written: Any, kept: Any, at: str = "") -> list[str]:
    """Where in *written* something is that is not, or otherwise, in *kept*."""
    if isinstance(written, dict) and isinstance(kept, dict):
        pairs = [(name, value, kept.get(name)) for name, value in written.items()]
    elif isinstance(written, list) and isinstance(kept, list) and len(written) == len(kept):
        pairs = [(str(n), *pair) for n, pair in enumerate(zip(written, kept, strict=True))]
    else:
        return [] if written == kept else [at]
    return [each for name, one, other in pairs for each in lost(one, other, f"{at}/{name}")]


def test_the_dashboard_is_of_grafana_s_schema() -> None:
    dashboard = json.loads((PACKAGING / "moorline-dashboard.json").read_text())
    assert lost(dashboard, understood(dashboard)) == []
    series = next(p for p in dashboard["panels"] if p["type"] == "timeseries")
    for part in (
        dashboard,
        dashboard["templating"]["list"][1],
        series,
        series["targets"][0],
        series["fieldConfig"]["defaults"],
        series["gridPos"],
    ):
        part["misspelled"] = 1
    assert len(lost(dashboard, understood(dashboard))) == 6


def test_every_metric_is_in_the_reference() -> None:
    text = (PACKAGING.parent / "docs/reference.md").read_text()
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in told()}
    assert {name for name in families if f"`{name}" not in text} == set()
