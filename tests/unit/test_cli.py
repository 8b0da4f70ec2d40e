"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from moorline import errors
from moorline.cli.attachments import named
from moorline.cli.commands import main
from moorline.cli.extend import extend
from moorline.cli.list_show import show
from moorline.cli.output import age, details, dump, table
from moorline.cli.progress import Progress
from moorline.exit_codes import EXIT_CODES, exit_code
from moorline.ports.results import Trouble, View
from tests.support.toy_loop import until

VIEW = View(
    volume="v1",
    guest="web01",
    guest_id="g",
    host="h",
    backend="quobyte",
    link="/mnt/x",
    wanted="attached",
    seen="attached",
    device="vdb",
    since=0.0,
    next="nothing",
    trouble=Trouble("", "failed", "no route", 0.0),
)


@pytest.fixture
def runner(tmp_path: Path) -> CliRunner:
    return CliRunner(
        env={"MOORLINE_STATE_DIR": str(tmp_path), "MOORLINE_HYPERVISOR": "test:///default"}
    )


def test_every_error_has_a_code_of_its_family() -> None:
    assert exit_code(errors.Conflict("x")) == EXIT_CODES[errors.Failed]
    assert exit_code(errors.NotFound("x")) == EXIT_CODES[errors.NotFound]
    codes = list(EXIT_CODES.values())
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 2} & set(codes)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["attach", "web01"], 2),
        (["attach", "web01", "/x", "--connection", "f.json"], 2),
        (["attach", "web01", "--connection", "/no/such/file"], 3),
        (["attach", "web01", "nonsense://x", "--format", "raw"], 3),
        (["attach", "test", "relative.raw", "--format", "raw"], 3),
        (["attach", "nobody", "IMAGE", "--format", "raw"], 4),
        (["attach", "test", "IMAGE", "--format", "raw", "--timeout", "-1"], 2),
        (["attach", "test", "IMAGE", "--format", "vmdk"], 2),
        (["detach", "nobody", "v1"], 4),
        (["detach", "test", "v1"], 4),
        (["detach", "test", "vda"], 4),
        (["detach", "test", ""], 3),
        (["detach", "test", "/srv/mistyped.raw"], 4),
        (["detach", "test", "relative.raw"], 3),
        (["detach", "test", "./relative.raw"], 4),
        (["detach", "test", "3F2A9C4E-1111-4222-8333-ABCDEFABCDEF"], 0),
        (["release", "test", "vda"], 4),
        (["explain", "vda"], 4),
        (["extend", "test", "v1"], 4),
        (["extend", "nobody", "v1", "20G"], 4),
        (["extend", "test", "v1", "0"], 2),
        (["extend", "test", "v1", "1.5G"], 2),
        (["extend", "test", "v1", "20GB"], 2),
        (["extend", "test", "v1", "--", "-1"], 2),
        (["show", "v1"], 4),
        (["forget", "v1"], 4),
        (["list"], 0),
        (["sweep"], 0),
    ],
)
def test_ends_with(
    runner: CliRunner, tmp_path_factory: pytest.TempPathFactory, words: list[str], code: int
) -> None:
    image = tmp_path_factory.mktemp("images") / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    done = runner.invoke(main, [str(image) if word == "IMAGE" else word for word in words])
    assert done.exit_code == code, done.output
    assert (code == 0) == (done.stderr == "")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"/srv/\xff.raw", r"the file name b'/srv/\xff.raw' is not UTF-8"),
        (b"./\xfe", "is not UTF-8"),
        (b"quobyte://u:secret\xff@reg/vol/x", "what was typed is not UTF-8"),
    ],
)
def test_a_name_that_is_not_utf_8_is_said_to_be_so(
    runner: CliRunner, name: bytes, told: str
) -> None:
    done = runner.invoke(main, ["attach", "test", os.fsdecode(name), "--format", "raw"])
    assert done.exit_code == 3
    assert told in done.stderr
    assert "surrogate" not in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("text", "bytes"),
    [("512", 512), ("3k", 3 << 10), ("20G", 20 << 30), ("20GiB", 20 << 30), ("1PiB", 1 << 50)],
)
def test_a_size_is_bytes_or_has_a_unit(text: str, bytes: int) -> None:
    given = extend.make_context("extend", ["web01", "v1", text])
    assert given.params["size"] == bytes
    assert extend.make_context("extend", ["web01", "v1"]).params["size"] is None


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "{'a': 1}"])
def test_a_connection_that_is_none_is_refused(runner: CliRunner, text: str) -> None:
    done = runner.invoke(main, ["attach", "test", "--connection", "-"], input=text)
    assert done.exit_code == 3
    assert text not in done.stderr or not text


def test_with_the_hypervisor_away_nothing_is_recorded_and_5_is_not_said(
    tmp_path: Path, runner: CliRunner
) -> None:
    away = ["--hypervisor", f"qemu:///system?socket={tmp_path / 'none'}", "--output", "json"]
    file = tmp_path / "a.raw"
    file.write_bytes(bytes(4096))
    for words in (
        ["attach", "web01", str(file), "--format", "raw", "--timeout", "0"],
        ["attach", "web01", str(file), "--format", "raw", "--dry-run"],
        ["detach", "web01", "3f2a9c4e-1111-4222-8333-abcdefabcdef"],
        ["detach", "web01", "vdb"],
        ["launch", "web01", "--boot", str(file), "--format", "raw"],
        ["start", "web01"],
        ["remove", "web01"],
    ):
        done = runner.invoke(main, [*words, *away])
        assert done.exit_code == 11, (words, done.output)
        assert json.loads(done.stderr)["error"] == "unavailable"
    assert json.loads(runner.invoke(main, ["list", *away]).stdout) == []


def test_errors_are_data_where_that_is_asked(runner: CliRunner) -> None:
    done = runner.invoke(main, ["show", "v1", "--output", "json"])
    told = json.loads(done.stderr)
    assert told["error"] == "notfound"
    assert told["code"] == done.exit_code == 4
    assert done.stdout == ""
    done = runner.invoke(main, ["show", "v1", "--output", "yaml"])
    assert yaml.safe_load(done.stderr)["hint"].startswith("moorline list; ")


def test_an_empty_list_is_a_list(runner: CliRunner) -> None:
    assert json.loads(runner.invoke(main, ["list", "-o", "json"]).stdout) == []
    assert runner.invoke(main, ["list"]).stdout.split() == list(table([]).split())


def test_the_configuration_can_be_nova_s(runner: CliRunner, tmp_path: Path) -> None:
    conf = tmp_path / "nova.conf"
    conf.write_text("[DEFAULT]\nhost = kvm7\ndebug = true\n[libvirt]\nvirt_type = kvm\n")
    done = runner.invoke(main, ["list", "--config-file", str(conf)])
    assert done.exit_code == 0, done.output
    conf.write_text("no section")
    assert runner.invoke(main, ["list", "--config-file", str(conf)]).exit_code == 3
    conf.write_text("[libvirt]\nquobyte_mount_point_base = $state_path/mnt\n")
    refused = runner.invoke(main, ["list", "--config-file", str(conf)])
    assert refused.exit_code == 3
    assert "quobyte_mount_point_base" in refused.stderr
    assert "state_path" in refused.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(runner: CliRunner, shell: str) -> None:
    done = runner.invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_MOORLINE_COMPLETE" in done.stdout


def test_a_view_prints() -> None:
    assert [line.split()[0] for line in table([VIEW]).splitlines()] == ["VOLUME", "v1"]
    assert "last error:   no route" in details(VIEW)
    assert "options:" not in details(VIEW)
    said = {"bus": "", "readonly": True, "total_iops_sec": 0, "read_bytes_sec": 20 << 20}
    line = "options:      read-only, total-iops-sec 0, read-bytes-sec 20MiB"
    assert line in details(replace(VIEW, options=said))
    assert json.loads(dump(VIEW.to_dict(), "json")) == yaml.safe_load(dump(VIEW.to_dict(), "yaml"))


def test_columns_are_where_they_are_seen() -> None:
    names = ["web01", "\N{CJK UNIFIED IDEOGRAPH-540D}", "u\N{COMBINING DIAERESIS}ber", "m\xfcll"]
    lines = table([replace(VIEW, guest=name) for name in names]).splitlines()
    ends = [
        line[: line.index(name) + len(name)] for line, name in zip(lines[1:], names, strict=True)
    ]
    rests = [line.removeprefix(end) for line, end in zip(lines[1:], ends, strict=True)]
    blanks = [len(rest) - len(rest.lstrip()) for rest in rests]
    assert blanks == [2, 5, 3, 3]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172800, "2d")]
)
def test_ages(seconds: int, text: str) -> None:
    assert age(time.time() - seconds - 0.2) == text


def test_progress_is_told_after_a_while_only(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=False, patience=1.0)
    progress("first")
    assert capsys.readouterr().err == ""
    told = ""

    def is_told() -> bool:
        nonlocal told
        told += capsys.readouterr().err
        return told.endswith("\n")

    until(is_told)
    assert told == "… first\n"
    for _ in range(3):  # who waits asks again and again
        progress("second")
    for done in (9, 10, 11):
        progress(f"third: {done} %")
    progress.end()
    assert capsys.readouterr().err == "… second\n… third: 10 %\n"


def test_what_a_test_starts_can_be_interrupted() -> None:
    # Also as a background job of a shell, which ignores SIGINT, as what it starts then does.
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_an_interrupt_while_a_command_is_loaded_is_no_traceback() -> None:
    code = """if True:
        import signal, sys
        from moorline import cli

        def loading(event, words):
            if event == "import" and words[0] == "moorline.cli.commands":
                signal.raise_signal(signal.SIGINT)

        sys.addaudithook(loading)
        sys.argv = ["moorline", "doctor"]
        cli.main()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "moorline: interrupted\n")


def test_an_interrupt_has_a_code_of_its_own(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from moorline.host.state_lock import HostLock;"
        f"l = HostLock(Path({str(tmp_path / 'lock')!r})); l.take(0, print);"
        "print('locked', flush=True); import time; time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        waiting = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("moorline")),
                "sweep",
                "--state-dir",
                str(tmp_path),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        told = waiting.stderr.readline()
        assert f"waiting for process {owner.pid}" in told
        waiting.send_signal(2)
        assert "interrupted" in waiting.communicate(timeout=10)[1]
        assert waiting.returncode == 130
        owner.kill()


@pytest.mark.parametrize("typed", ["a.raw", "./a.raw", "sub/../a.raw", "../here/a.raw"])
def test_a_relative_path_is_taken_from_the_current_directory(
    runner: CliRunner,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
) -> None:
    here = tmp_path_factory.mktemp("beside the state") / "here"
    (here / "sub").mkdir(parents=True)
    monkeypatch.chdir(here)
    attach = ["attach", "test", typed, "--format", "raw", "--level", "connected"]
    told = runner.invoke(main, [*attach, "--dry-run"])
    assert told.stderr.strip().startswith(f"moorline: there is no file a.raw in {here}")
    (here / "a.raw").write_bytes(bytes(4096))
    assert runner.invoke(main, attach).exit_code == 0
    if "/" in typed:
        assert f"{here}/a.raw" in runner.invoke(main, ["show", typed]).stdout
        assert runner.invoke(main, ["detach", "test", typed]).exit_code == 0


def test_what_is_asked_of_an_agent_is_no_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named("a.raw", None, "raw") == f"{tmp_path}/a.raw"
    assert named("/a.raw", None, "raw") == "/a.raw"
    assert named("quobyte://r/v/a.raw", None, "raw") == "quobyte://r/v/a.raw"
    context = show.make_context("show", ["sub/a.raw"])
    assert context.params["volume"] == f"{tmp_path}/sub/a.raw"
    assert show.make_context("show", ["3f2a"]).params["volume"] == "3f2a"


def test_a_current_directory_that_is_gone_is_no_traceback(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    attach = runner.invoke(main, ["attach", "test", "a.raw", "--format", "raw"])
    assert (attach.exit_code, "current directory" in attach.stderr) == (3, True)
    assert runner.invoke(main, ["show", "./a.raw"]).exit_code == 2
