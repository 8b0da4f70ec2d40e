"""Several volumes at once, --wait=false and wait, dry runs, status: on libvirt's test driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from moorline.cli.commands import main
from tests.support.libvirt_test_driver import Run, run

__all__ = ["run"]  # the fixture


@pytest.fixture
def connect(run: Run, tmp_path: Path) -> Run:
    """Attach files of these names, as far as libvirt's test driver goes along."""

    def connect(*names: str, more: tuple[str, ...] = ()) -> Result:
        files = [tmp_path / f"{name}.raw" for name in names]
        return run("attach", "test", *files, "--format", "raw", "--level", "connected", *more)

    return connect


def test_several_volumes_have_one_result_each(run: Run, connect: Run) -> None:
    done = connect("a", "b")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2), done.output
    ids = [view["volume"] for view in json.loads(run("list", "-o", "json").stdout)]
    started = run("start", "test").stdout.splitlines()
    assert started == ["guest test runs", *(f"volume {id} is connected" for id in ids)]
    told = json.loads(connect("a", "c", more=("-o", "json")).stdout)
    assert [each["view"]["wanted"] for each in told] == ["connected", "connected"]
    done = run("detach", "test", *ids)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2), done.output
    assert len(json.loads(run("list", "-o", "json").stdout)) == 1


def test_which_volumes_are_meant_is_settled_before_one_of_them_goes(
    run: Run, tmp_path: Path
) -> None:
    ids = [f"aaaa0000-0000-4000-8000-00000000000{n}" for n in (1, 2)]
    for id, name in zip(ids, "ab", strict=True):
        file = str(tmp_path / f"{name}.raw")
        how = ("--format", "raw", "--level", "connected", "--volume", id)
        assert run("attach", "test", file, *how).exit_code == 0
    done = run("detach", "test", ids[0], "aaaa")
    assert (done.exit_code, "aaaa is the beginning of" in done.stderr) == (3, True), done.output
    assert [view["volume"] for view in json.loads(run("list", "-o", "json").stdout)] == [ids[1]]


def test_one_that_fails_stops_no_other_and_its_code_is_told(run: Run, tmp_path: Path) -> None:
    files = [tmp_path / "a.raw", "nonsense://x", tmp_path / "b.raw"]
    done = run("attach", "test", *files, "--format", "raw", "--level", "connected")
    assert (done.exit_code, len(done.stdout.splitlines())) == (3, 2), done.output
    assert "nonsense" in done.stderr
    done = run("detach", "test", "slip", "vdz", "-o", "json")
    told = json.loads(done.stdout)
    assert [each["problem"]["error"] for each in told] == ["notfound", "notfound"]
    assert [(each["problem"]["volume"], each["problem"]["guest"]) for each in told] == [
        ("slip", "test"),
        ("vdz", "test"),
    ]
    assert done.exit_code == 4
    assert run("detach", "test", "slip", "").exit_code == 3


def test_each_that_fails_has_its_own_error(run: Run, tmp_path: Path) -> None:
    files = ["nonsense://x/a", tmp_path / "a.raw", "rubbish://x/b"]
    how = ("--format", "raw", "--level", "connected")
    done = run("attach", "test", *files, *how)
    assert (done.exit_code, len(done.stdout.splitlines())) == (3, 1), done.output
    assert done.stderr.count("moorline: ") == 2, done.stderr
    done = run("detach", "test", "slip", tmp_path / "a.raw", "vdz")
    assert (done.exit_code, len(done.stdout.splitlines())) == (4, 1), done.output
    assert [name in done.stderr for name in ("slip", "vdz")] == [True, True]
    told = json.loads(run("attach", "nobody", *files, *how, "-o", "json").stdout)
    assert {each["problem"]["guest"] for each in told} == {"nobody"}


@pytest.mark.parametrize(
    "more", [("--volume", "v1"), ("--target", "vdx"), ("--boot-order", "1"), ("--device", "lun")]
)
def test_what_is_of_one_volume_is_not_said_of_several(connect: Run, more: tuple[str, ...]) -> None:
    assert connect("a", "b", more=more).exit_code == 2


def test_who_does_not_wait_records_alone_and_can_wait_later(run: Run, connect: Run) -> None:
    done = connect("a", more=("--wait=false", "-o", "json"))
    view = json.loads(done.stdout)["view"]
    assert (done.exit_code, view["wanted"]) == (0, "connected")
    id = view["volume"]
    assert run("wait", id[:8], "--for", "connected").exit_code == 0
    late = run("wait", id, "--for", "attached", "--timeout", "0", "-o", "json")
    told = json.loads(late.stderr)
    assert (late.exit_code, told["error"], told["volume"]) == (5, "failed", id)
    late = run("wait", id, "--for", "detached", "--timeout", "0")
    assert (late.exit_code, "it is wanted connected" in late.stderr) == (5, True)
    gone = run("detach", "test", id, "--wait=false", "-o", "json")
    assert json.loads(gone.stdout)["view"]["wanted"] == "absent"
    still = run("wait", id, "--for", "detached", "--timeout", "0")
    assert still.exit_code == 5
    assert run("sweep").exit_code == 0
    assert run("wait", id, "--for", "detached").exit_code == 0
    assert run("wait", id, "--for", "connected").exit_code == 4


@pytest.mark.parametrize("slip", ["3f2a", "vdz", "/srv/mistyped.raw"])
@pytest.mark.parametrize("guest", [(), ("--guest", "test"), ("--guest", "nobody")])
def test_a_slip_is_not_detached(run: Run, slip: str, guest: tuple[str, ...]) -> None:
    assert run("wait", slip, "--for", "detached", *guest).exit_code == 4


def test_dry_runs_change_nothing(run: Run, connect: Run) -> None:
    connect("a", more=("--wait=false",))
    before = run("list", "-o", "json").stdout
    assert run("sweep", "--dry-run").stdout == "nothing to do\n"
    assert run("start", "test", "--dry-run").stdout == "nothing to do\n"
    assert run("remove", "test", "--dry-run").exit_code == 7  # it was not launched by us
    told = run("remove", "test", "--any", "--dry-run")
    assert told.exit_code == 0, told.output
    assert "stop" in told.stdout
    assert "a.raw" in told.stdout
    assert run("relocate", "test", "vda", "ds", "--dry-run").exit_code == 3
    as_json = json.loads(run("remove", "test", "--any", "--dry-run", "-o", "json").stdout)
    assert as_json["running"] is True
    assert as_json["steps"][0] == "stop"
    assert as_json["steps"][-1] == "undefine"
    assert run("list", "-o", "json").stdout == before


def test_a_launch_that_is_only_foreseen(run: Run, tmp_path: Path) -> None:
    template = tmp_path / "template.xml"
    template.write_text(
        "<domain type='test'><name>golden</name><memory unit='MiB'>64</memory>"
        "<vcpu>1</vcpu><os><type>hvm</type></os></domain>"
    )
    words = ("launch", "web01", "--boot", tmp_path / "a.raw", "--format", "raw", "--dry-run")
    words += ("--template", template)
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("would define, attach, start: web01\n")
    assert run("start", "web01").exit_code == 4
    assert json.loads(run("list", "-o", "json").stdout) == []
    assert run(*words, "--format", "qcow2").exit_code == 3  # its header says otherwise


def test_status_tells_who_keeps_the_host(run: Run, connect: Run, tmp_path: Path) -> None:
    connect("a")
    told = json.loads(run("status", "-o", "json").stdout)
    assert told["agent"] is None
    assert told["state_dir"] == str(tmp_path / "state")
    assert (told["attachments"], told["not_as_wanted"], told["guests"]) == (1, 0, 1)
    assert "none answers" in run("status").stdout
    away = run("status", "--hypervisor", "qemu:///system?socket=/nonexistent")
    assert away.exit_code == 0
    assert "problem:" in away.stdout


def test_version_and_help(run: Run) -> None:
    told = json.loads(run("version", "-o", "json").stdout)
    assert told["moorline"] in run("--version").stdout
    assert run("help", "attach").stdout == run("attach", "--help").stdout
    assert run("help").stdout == run("--help").stdout
    assert run("help", "nonsense").exit_code == 2


def test_errors_bear_volume_and_guest(run: Run, connect: Run, tmp_path: Path) -> None:
    told = json.loads(run("detach", "nobody", "3f2a", "-o", "json").stderr)
    assert (told["volume"], told["guest"]) == ("3f2a", "nobody")
    secret = "nfs://user:hunter2@h/p/f"
    told = json.loads(run("detach", "nobody", secret, "-o", "json").stderr)
    assert told["volume"] == ""  # a URL may hold a password
    bad = run("attach", "test", tmp_path / "a.raw", "--format", "qcow2", "-o", "json", "-q")
    told = json.loads(bad.stderr)
    assert told["guest"] == "test"
    assert len(told["volume"]) == 36  # its id, which nobody typed


def complete(
    run: Run, *words: str, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> list[str]:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    shell = ShellComplete(main, {}, "moorline", "_MOORLINE_COMPLETE")
    return [item.value for item in shell.get_completions([*words[:-1]], words[-1])]


def test_what_a_shell_completes(
    run: Run, connect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect("a", "b")
    env = {
        "MOORLINE_STATE_DIR": str(tmp_path / "state"),
        "MOORLINE_HYPERVISOR": "test:///default",
    }
    ids = sorted(view["volume"] for view in json.loads(run("list", "-o", "json").stdout))

    def told(*words: str) -> list[str]:
        return complete(run, *words, monkeypatch=monkeypatch, env=env)

    assert {"attach", "apply"} & {*told("at"), *told("ap")}
    assert told("attach", "te") == ["test"]
    assert told("list", "") == ["test"]
    assert told("detach", "test", "") == ids
    assert told("detach", "test", ids[0], ids[1][:4]) == [ids[1]]
    assert told("detach", "other", "") == []
    assert told("show", "") == ids
    assert told("list", "--share", "/") == [str(tmp_path)]
    env["MOORLINE_HYPERVISOR"] = "nonsense://x"
    assert told("attach", "te") == []


def test_of_several_paths_each_is_named_that_is_not_known(run: Run) -> None:
    """Lines that are alike do not tell which of them was a slip."""
    typed = ("/p/b", "local:///p/c", "nfs://h/p/d.raw", "nonsense://x/y.raw")
    done = run("detach", "test", *typed, "/p/e")
    lines = [line for line in done.stderr.splitlines() if line.startswith("moorline: ")]
    told = ["/p/b", "local://…/c", "nfs://…/d.raw", "nonsense://…/y.raw", "/p/e"]
    assert done.exit_code == 4
    for name, line in zip(told, lines, strict=True):
        assert f"known as {name}" in line


@pytest.mark.parametrize(
    "url",
    [
        "nfs://user:hunter2@h/p/f",
        "nfs://hunter2",
        "nfs://user:half/hunter2",
        "nfs://user:hunter2@h",
        "vzstorage://cluster:hunter2/f",
        "smbfs://h/s/f?password=hunter2",
        "nonsense://user:hun/hunter2@h",
    ],
)
def test_a_password_in_a_url_is_told_nobody(run: Run, url: str) -> None:
    done = run("detach", "test", url, "/p/b")
    assert done.exit_code == 4
    assert "hunter2" not in done.output + done.stderr
