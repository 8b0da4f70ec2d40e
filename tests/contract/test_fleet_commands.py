"""``moorline fleet …`` on a real etcd: from its certificates to a host that is put out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner, Result

from moorline.cli.commands import main
from moorline.errors import Denied
from moorline.ports import Put
from tests.support import etcd

if TYPE_CHECKING:
    from lab.etcd import Cluster
    from moorline.stores.etcd.store import EtcdStore

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with etcd.etcd_lab() as cluster:
        yield cluster


@pytest.fixture
def admin(tmp_path: Path) -> Path:
    return tmp_path / "admin"


@pytest.fixture
def run(tmp_path: Path, admin: Path) -> Run:
    def run(*words: str, code: int = 0, directory: Path = admin) -> Result:
        words = ("fleet", *words, "--directory", str(directory))
        result = CliRunner().invoke(main, list(words), catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return run


def told(result: Result) -> Any:
    return json.loads(result.output)


@pytest.fixture
def fleet(run: Run, cluster: Cluster, admin: Path) -> Run:
    """One that is set up, with the authority that etcd has already."""
    admin.mkdir(mode=0o700)
    for name in ("ca.pem", "ca.key"):
        shutil.copy(cluster.directory / "users" / name, admin)
    run("certify")
    run("init", "--endpoints", ",".join(cluster.endpoints))
    return run


def as_host(directory: Path) -> EtcdStore:
    from moorline.stores.etcd.joining import Membership
    from moorline.stores.etcd.store import EtcdStore

    return EtcdStore(Membership.open(directory).access)


def test_a_host_joins_is_renewed_and_put_out(fleet: Run, tmp_path: Path) -> None:
    file, there = tmp_path / "h1.join", tmp_path / "host"
    assert "moorline fleet join" in fleet("enrol", "h1", "--to", str(file)).output
    assert file.stat().st_mode & 0o777 == 0o600
    fleet("join", str(file), directory=there)
    store = as_host(there)
    store.commit([], [Put("/moorline/status/h1/x", b"1")])
    before = (there / "host.pem").read_bytes()
    # Renewed: the agent that runs goes on, with the new certificate.
    fleet("renew", "h1", "--to", str(tmp_path / "again.join"))
    fleet("join", str(tmp_path / "again.join"), directory=there)
    assert (there / "host.pem").read_bytes() != before
    retired = told(fleet("retire", "h1", "--output", "json"))["revoked"]
    assert len(retired) == 1
    store.commit([], [Put("/moorline/status/h1/x", b"2")])
    hosts = told(fleet("enrolled", "--output", "json"))
    assert [each["host"] for each in hosts if each["box"]] == ["h1"]
    fleet("revoke", "h1")
    with pytest.raises(Denied):
        store.get("/moorline/epoch")
    assert "revoked" in fleet("enrolled").output
    assert "nothing" in fleet("revoke", "h1").output
    assert "no sealed box" in fleet("renew", "h1", code=3).output
    store.close()


def test_all_of_it_can_be_repeated(fleet: Run, cluster: Cluster, admin: Path) -> None:
    files = {file: file.read_bytes() for file in admin.rglob("*") if file.is_file()}
    fleet("certify")
    again = fleet("init", "--endpoints", ",".join(cluster.endpoints), "--output", "json")
    assert {file: file.read_bytes() for file in admin.rglob("*") if file.is_file()} == files
    epoch = told(again)["epoch"]
    assert told(fleet("restored", "--output", "json"))["epoch"] != epoch


def test_what_is_known_of_etcd_is_told(fleet: Run, cluster: Cluster) -> None:
    from moorline.stores.etcd.versions import warnings_of

    member = cluster.members[0]
    known = warnings_of(cluster.status(member)["version"], member.endpoint)
    result = fleet("init", "--endpoints", ",".join(cluster.endpoints))
    for warning in known:
        assert warning in result.output


def in_a_process(*words: str) -> subprocess.CompletedProcess[str]:
    """Where nobody has set a log up, as pytest has."""
    argv = [sys.executable, "-m", "moorline.cli", "fleet", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_an_error_for_programs_has_standard_error_to_itself(
    fleet: Run, admin: Path, output: str
) -> None:
    """What is logged (of etcd's release, say) is told who asks for it."""
    words = ("show", "3f2a", "--directory", str(admin), "-o", output)
    done = in_a_process(*words)
    assert done.returncode == 4, done.stderr
    problem = json.loads(done.stderr) if output == "json" else yaml.safe_load(done.stderr)
    assert problem["error"] == "notfound"
    assert problem.keys() == {"error", "code", "message", "hint", "volume", "guest"}
    assert "moorline" in in_a_process(*words, "--log-level", "debug").stderr.partition("{")[0]


def test_etcds_client_says_nothing_beside_an_error(fleet: Run, admin: Path, tmp_path: Path) -> None:
    """It is a library in C, with a log of its own."""
    there = tmp_path / "other"
    fleet("certify", directory=there)
    shutil.copytree(admin, tmp_path / "mixed")
    shutil.copy(there / "ca.pem", tmp_path / "mixed")
    done = in_a_process("hosts", "--directory", str(tmp_path / "mixed"), "-o", "json")
    assert json.loads(done.stderr)["error"] == "unavailable", done.stderr


def test_the_directory_is_for_its_owner_alone(run: Run, admin: Path) -> None:
    made = told(run("certify", "--member", "etcd1,192.0.2.11", "--output", "json"))["members"]
    assert made == [str(admin / "members/etcd1")]
    assert admin.stat().st_mode & 0o777 == 0o700
    for key in admin.rglob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600, key
    assert {file.name for file in Path(made[0]).iterdir()} == {
        *("ca.pem", "peer-ca.pem", "server.pem", "server.key", "peer.pem", "peer.key")
    }
    # Who is a user cannot take part in the cluster, and the other way about.
    assert (admin / "ca.pem").read_bytes() != (admin / "peers/ca.pem").read_bytes()


@pytest.mark.parametrize("name", ["", ",", "../x", "a/b", "-x"])
def test_a_member_has_a_name(run: Run, admin: Path, name: str) -> None:
    run("certify", f"--member={name}", code=3)
    assert not (admin / "members").exists()


def test_what_is_wrong_is_told_and_nothing_changes(fleet: Run, tmp_path: Path) -> None:
    file = tmp_path / "h2.join"
    file.write_text("mine")
    assert "there already" in fleet("enrol", "h2", "--to", str(file), code=3).output
    assert file.read_text() == "mine"
    file.chmod(0o644)
    there = tmp_path / "host"
    assert "read by others" in fleet("join", str(file), code=9, directory=there).output
    file.chmod(0o600)
    assert "not a file to join" in fleet("join", str(file), code=3, directory=there).output
    assert not there.exists()
    assert "name" in fleet("enrol", "h2/x", code=3).output
    fleet("enrol", "host12", "--to", str(tmp_path / "host12"))
    for verb in ("retire", "revoke", "renew"):
        for more in ((), ("--dry-run",)):
            output = fleet(verb, "host11", *more, code=4).output
            assert "host11 is not enrolled" in output
            assert "did you mean host12?" in output
    fleet("revoke", "host12")
    assert "nothing" in fleet("revoke", "host12", "--dry-run").output
    assert told(fleet("enrolled", "-o", "json")) == [] or "h2" not in fleet("enrolled").output


def test_before_it_is_set_up_the_next_command_is_told(run: Run, admin: Path) -> None:
    assert "moorline fleet init" in run("enrol", "h1", code=4).output
    assert "moorline fleet certify" in run("init", "--endpoints", "https://e:1", code=4).output
    assert "https://NAME:2379" in run("init", "--endpoints", "http://e:1", code=3).output
    assert not admin.exists()


def test_what_is_not_installed_is_told(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['grpc'] = None; from moorline.cli.commands import main;"
        f"main(['fleet', 'enrolled', '--directory', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "moorline[fleet]" in done.stderr


def test_dry_runs_change_nothing(run: Run, cluster: Cluster, admin: Path, tmp_path: Path) -> None:
    """Each verb of the set-up, once as a dry run and once in earnest."""
    member = ("--member", "m9,192.0.2.9")
    assert "m9" in run("certify", *member, "--dry-run").output
    assert not admin.exists()
    run("certify", "--member", " , ", "--dry-run", code=3)
    admin.mkdir(mode=0o700)
    for name in ("ca.pem", "ca.key"):
        shutil.copy(cluster.directory / "users" / name, admin)
    run("certify")
    endpoints = ("--endpoints", ",".join(cluster.endpoints))
    run("init", *endpoints, "--dry-run")
    assert not (admin / "fleet.json").exists()
    run("init", *endpoints)
    entries = all_entries(cluster)
    told_first = told(run("enrol", "dry1", "--dry-run", "-o", "json"))
    assert all_entries(cluster) == entries
    file = tmp_path / "dry1.join"
    run("enrol", "dry1", "--to", str(file))
    assert told_first == {"host": "dry1", "user": "host:dry1:1"}
    there = tmp_path / "there"
    assert "would be dry1" in run("join", str(file), "--dry-run", directory=there).output
    assert not there.exists()
    entries = all_entries(cluster)
    assert "host:dry1:2" in run("renew", "dry1", "--dry-run").output
    run("renew", "nobody", "--dry-run", code=4)
    renewed = tmp_path / "renewed"
    run("renew", "dry1", "--to", str(renewed))
    run("join", str(renewed), "--dry-run", directory=there, code=3)
    for verb, gone in (("retire", "host:dry1:1"), ("revoke", "host:dry1:2")):
        before = cluster.control("user", "list")
        assert f"would revoke {gone}" in run(verb, "dry1", "--dry-run").output
        assert cluster.control("user", "list") == before
        run(verb, "dry1")
        assert gone not in cluster.control("user", "list").split()
    epoch = cluster.control("get", "/moorline/epoch", "--print-value-only").strip()
    assert epoch in run("restored", "--dry-run").output
    assert cluster.control("get", "/moorline/epoch", "--print-value-only").strip() == epoch


def all_entries(cluster: Cluster) -> str:
    return cluster.control("get", "--prefix", "/moorline/", "-w", "json")
