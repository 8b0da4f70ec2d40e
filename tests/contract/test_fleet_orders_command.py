"""``moorline fleet attach|migrate|…`` on a real etcd, while toy hosts and a controller work."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from moorline.cli.commands import main
from moorline.errors import Unavailable
from tests.support import etcd
from tests.support.fleet_store import Backing
from tests.support.toy_fleet import ToyFleet

HOSTS = ("h1", "h2", "h3")
VOLUME = "6d6f6f72-6c69-4e65-8076-6f6c756d6573"
CONNECTION = {
    "driver_volume_type": "nfs",
    # The toys read the share, and Moorline's own back end for NFS the export.
    "data": {
        "export": "nas:/e",
        "name": "disk",
        "format": "raw",
        "share": "s1",
        "volume_id": VOLUME,
    },
}
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*words: str, code: int = 0) -> Result:
        words = ("fleet", *words, "--directory", str(tmp_path / "admin"))
        result = CliRunner().invoke(main, list(words), catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def toys(run: Run, tmp_path: Path) -> Iterator[ToyFleet]:
    """Hosts that joined with what ``enrol`` gave them, and take passes all the time."""
    with etcd.etcd_lab() as cluster, ExitStack() as stack:
        from moorline.stores.etcd.administration import orders
        from moorline.stores.etcd.joining import Joining, Membership
        from moorline.stores.etcd.store import EtcdStore

        admin = tmp_path / "admin"
        admin.mkdir(mode=0o700)
        for name in ("ca.pem", "ca.key"):
            shutil.copy(cluster.directory / "users" / name, admin)
        run("certify")
        run("init", "--endpoints", ",".join(cluster.endpoints))
        members: dict[str, Membership] = {}
        for host in HOSTS:
            run("enrol", host, "--to", str(tmp_path / host))
            joining = Joining.load((tmp_path / host).read_bytes())
            members[host] = joining.install(tmp_path / f"of-{host}")
        person, box = stack.enter_context(orders(admin))
        stores = {host: EtcdStore(member.access) for host, member in members.items()}
        for store in stores.values():
            stack.callback(store.close)
        seals: dict[str, Any] = {host: member.box for host, member in members.items()}
        backing = Backing(person, stores.__getitem__, {**seals, "": box}.__getitem__, ("nfs",))
        toys = ToyFleet(HOSTS, {"g1": "h1", "g2": "h2"}, backing=backing)
        stop = threading.Event()
        thread = threading.Thread(target=_work, args=(toys, stop))
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield toys


def test_several_volumes_have_one_result_each(
    run: Run, toys: ToyFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etcd.until(lambda: len(json.loads(run("guests", "-o", "json").stdout)) == 2)
    ids = [f"{VOLUME[:-1]}{n}" for n in range(3)]
    words = []
    for id in ids:
        data = {**CONNECTION["data"], "volume_id": id, "name": id}
        (tmp_path / id).write_text(json.dumps({**CONNECTION, "data": data}))
        words += ["--connection", str(tmp_path / id)]
    (tmp_path / "bad").write_text("{}")
    run("attach", "g1", *words, "--connection", str(tmp_path / "bad"), code=3)
    run("attach", "g1", *words, "--volume", VOLUME, code=2)
    assert run("attach", "g1", *words, "--dry-run").stdout == "would attach\n" * 3
    assert json.loads(run("list", "-o", "json").stdout) == []  # nothing until here
    run("attach", "g2", *words[2:4])
    done = run("attach", "g1", *words, "-o", "json", code=3)  # one is another's: the others go on
    first, second, third = json.loads(done.stdout)
    assert (first["volume"], third["volume"]) == (ids[0], ids[2])
    assert "g2 on h2 has it" in second["problem"]["message"]

    def completed(*typed: str) -> list[str]:
        shell = ShellComplete(main, {}, "moorline", "_MOORLINE_COMPLETE")
        found = shell.get_completions(
            ["fleet", typed[0], "--directory", str(tmp_path / "admin"), *typed[1:-1]], typed[-1]
        )
        return [item.value for item in found]

    assert completed("migrate", "g1", "h") == [*HOSTS]
    assert completed("list", "--host", "h2") == ["h2"]
    assert completed("detach", "g") == ["g1", "g2"]
    assert completed("detach", "g1", "") == [ids[0], ids[2]]
    assert completed("explain", "") == [*ids, "g1", "g2"]
    monkeypatch.setattr("moorline.stores.etcd.administration.orders", _away)
    assert completed("migrate", "g1", "") == []

    monkeypatch.undo()
    # The beginning of two is refused, and of the others each goes.
    done = run("detach", "g1", ids[0], VOLUME[:9], ids[2], code=3)
    assert done.stdout.count(" is detached from g1\n") == 2
    assert VOLUME[:9] in done.stderr
    run("detach", "g2", ids[1])


def _away(directory: Path) -> Any:
    raise Unavailable("etcd does not answer")


def _work(toys: ToyFleet, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        for name, site in toys.sites.items():
            toys.agent_passes(name)
            site.world.tick()
        toys.clocks["c1"] = toys.clocks.get("c1", 0.0) + 0.05
        toys.controller_passes("c1")


def test_orders(run: Run, toys: ToyFleet, tmp_path: Path) -> None:
    def told(*words: str, code: int = 0) -> Any:
        output = run(*words, "--output", "json", code=code).stdout
        return json.loads(output)

    file = tmp_path / "v.json"
    file.write_text(json.dumps(CONNECTION))
    etcd.until(lambda: len(told("guests")) == 2)
    would = told("attach", "g1", "--connection", str(file), "--dry-run")
    assert would["steps"] == ["attach"]
    assert told("list") == []
    done = told("attach", "g1", "--connection", str(file))
    assert (done["guest"], done["host"], done["volume"]) == ("g1", "h1", VOLUME)
    [view] = told("list")
    assert (view["wanted"], view["seen"]) == ("attached", "attached")
    assert told("list", "g1", "--host", "h1") == [view]
    assert told("list", "g2") == told("list", "--not-as-wanted") == []
    run("list", "g9", code=4)
    explained = told("explain", "g1")
    assert [(each["volume"], each["seen"], each["waits_for"]) for each in explained] == [
        ("", "running", ""),
        (VOLUME, "attached", ""),
    ]
    assert [each["volume"] for each in told("explain", VOLUME)] == [VOLUME]
    run("explain", "g9", code=4)
    refused = run("attach", "g2", "--connection", str(file), "-o", "json", code=3)
    problem = json.loads(refused.stderr[refused.stderr.index("{") :])
    assert "g1 on h1 has it" in problem["message"]
    assert (problem["volume"], problem["guest"]) == (VOLUME, "g2")
    run("attach", "g9", "--connection", str(file), code=4)

    assert told("migrate", "g1", "h3")["steps"] == ["migrate"]
    assert {each["guest"]: each["host"] for each in told("guests")} == {"g1": "h3", "g2": "h2"}
    assert told("show", VOLUME)[0]["host"] == "h3"
    still = told("migrate", "g1", "--give-up")
    assert (still["steps"], still["guest"], still["host"]) == ([], "g1", "h3")
    assert run("migrate", "g1", "--give-up").stdout == "g1 was not on its way: it is on h3\n"
    run("migrate", "g9", "--give-up", code=4)
    run("cordon", "h1")
    run("migrate", "g1", "h1", "--dry-run", code=3)
    run("drain", "h3")
    assert {each["host"] for each in told("guests")} == {"h2"}
    run("evacuate", "h2", code=2)  # neither a word nor an agent
    run("evacuate", "h9", "--fenced", "it is off", code=4)
    run("uncordon", "h1")
    assert "h1" in run("hosts").output
    steps = [(each["step"], each["host"]) for each in told("events")]
    assert steps[:3] == [("migrate", "h1"), ("hand over", "h3"), ("cordon", "h1")]
    assert "migrate" in run("events", "--guest", "g1", "--since", "1h").output

    run("detach", "g1", f"{{{VOLUME}}}", code=3)
    run("detach", "g1", "3f2a", code=4)
    assert told("detach", "g1", VOLUME.upper())["steps"] == ["detach"]
    assert told("detach", "g1", VOLUME)["steps"] == []
    assert run("detach", "g1", VOLUME).stdout == f"volume {VOLUME} is no disk of g1\n"
    run("attach", "g1", "--connection", str(file))
    done_by_text = run("detach", "g1", VOLUME[:8]).stdout
    assert done_by_text == f"volume {VOLUME} is detached from g1\n"
    assert told("list") == []
    run("show", VOLUME, code=4)
    assert not toys.centre.violations
