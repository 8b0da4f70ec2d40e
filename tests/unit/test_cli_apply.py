"""apply, diff, export: on libvirt's own test driver."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from tests.support.libvirt_test_driver import Run, run

__all__ = ["run"]  # the fixture


def entry(path: Path, **more: object) -> dict[str, object]:
    found = {"guest": "test", "storage": str(path), "format": "raw", "level": "connected"}
    return {**found, **more}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*names: str, **more: object) -> Path:
        file = tmp_path / "attachments.yaml"
        entries = [entry(tmp_path / f"{name}.raw") for name in names]
        file.write_text(yaml.safe_dump({**more, "attachments": entries}))
        return file

    return write


def storages(run: Run) -> list[str]:
    return [Path(view["storage"]).stem for view in json.loads(run("list", "-o", "json").stdout)]


def actions(done: Result) -> list[str]:
    return [each["action"] for each in json.loads(done.stdout)]


def test_what_is_declared_is_attached_and_then_left_alone(
    run: Run, write: Callable[..., Path]
) -> None:
    file = write("a", "b")
    assert run("diff", "-f", file).exit_code == 10
    assert storages(run) == []
    assert run("apply", "-f", file, "--dry-run").exit_code == 0
    assert storages(run) == []
    done = run("apply", "-f", file)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2), done.output
    assert sorted(storages(run)) == ["a", "b"]
    done = run("diff", "-f", file)
    assert (done.exit_code, done.stdout) == (0, "nothing is different\n")
    assert actions(run("apply", "-f", file, "-o", "json")) == ["none", "none"]


def test_prune_goes_by_the_label_alone(
    run: Run, write: Callable[..., Path], tmp_path: Path
) -> None:
    run("apply", "-f", write("c"))  # of no label
    assert run("apply", "-f", write("a"), "--prune").exit_code == 2
    assert run("apply", "-f", write("a", "b", label="web")).exit_code == 0
    views = json.loads(run("list", "--label", "web", "-o", "json").stdout)
    assert len(views) == 2
    file = write("b", label="web")
    assert actions(run("diff", "-f", file, "--prune", "-o", "json")) == ["none", "detach"]
    assert actions(run("diff", "-f", file, "-o", "json")) == ["none"]
    done = run("apply", "-f", file, "--prune")
    assert done.exit_code == 0, done.output
    assert sorted(storages(run)) == ["b", "c"]
    again = tmp_path / "b.raw"
    assert run("attach", "test", again, "--format", "raw", "--level", "connected").exit_code == 0
    assert len(json.loads(run("list", "--label", "web", "-o", "json").stdout)) == 1  # it is kept
    assert run("attach", "test", again, "--format", "raw", "--label", "no good").exit_code == 3


def test_what_belongs_to_another_label_is_not_taken_over(
    run: Run, write: Callable[..., Path]
) -> None:
    assert run("apply", "-f", write("a", label="web")).exit_code == 0
    file = write("a", label="db")
    assert "belongs to 'web'" in run("diff", "-f", file).stdout
    assert run("apply", "-f", file, "--dry-run").exit_code == 3
    assert run("apply", "-f", file).exit_code == 3
    assert run("apply", "-f", write(label="db"), "--prune").exit_code == 0
    assert storages(run) == ["a"]


@pytest.mark.parametrize("where", ["attachments", "storage"])
def test_a_key_that_is_there_twice_is_refused(run: Run, tmp_path: Path, where: str) -> None:
    one, other = (f"- guest: test\n  storage: {tmp_path}/{name}.raw\n" for name in "ab")
    if where == "attachments":
        text = f"attachments:\n{one}attachments:\n{other}"
    else:
        text = f"attachments:\n{one}  storage: {tmp_path}/b.raw\n"
    done = run("apply", "-f", "-", input=text)
    assert (done.exit_code, "key twice" in done.stderr) == (3, True), done.output
    assert storages(run) == []


def test_who_does_not_wait_is_not_told_that_it_is_done(
    run: Run, write: Callable[..., Path]
) -> None:
    run("apply", "-f", write("a", label="web"))
    done = run("apply", "-f", write(label="web"), "--prune", "--wait=false")
    assert "is to be detached" in done.stdout, done.output


def test_what_is_exported_applies_to_the_same(run: Run, write: Callable[..., Path]) -> None:
    run("apply", "-f", write("a", "b", label="web"))
    text = run("export").stdout
    ids = {each["volume"] for each in yaml.safe_load(text)["attachments"]}
    assert run("diff", "-f", "-", input=text).exit_code == 0
    for id in ids:
        assert run("detach", "test", id).exit_code == 0
    assert run("apply", "-f", "-", input=text).exit_code == 0
    assert {view["volume"] for view in json.loads(run("list", "-o", "json").stdout)} == ids
    assert yaml.safe_load(run("export", "test", "--label", "web").stdout)["label"] == "web"
    assert json.loads(run("export", "-o", "json").stdout)["attachments"]
    assert run("export", "nobody").exit_code == 4


def test_what_is_there_otherwise_is_told_and_left_alone(
    run: Run, write: Callable[..., Path], tmp_path: Path
) -> None:
    run("apply", "-f", write("a"))
    before = run("list", "-o", "json").stdout
    entries = [entry(tmp_path / "a.raw", bus="scsi"), entry(tmp_path / "b.raw")]
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump({"attachments": entries}))
    done = run("diff", "-f", file)
    assert (done.exit_code, "bus is '', not 'scsi'" in done.stdout) == (10, True)
    done = run("apply", "-f", file, "-o", "json")
    told = json.loads(done.stdout)
    assert done.exit_code == 3
    assert told[0]["problem"]["error"] == "refused"
    assert told[0]["problem"]["guest"] == "test"
    assert told[1]["view"]["wanted"] == "connected"  # it did not stop the other
    assert json.loads(before)[0] in json.loads(run("list", "-o", "json").stdout)


def test_a_connection_in_the_file_or_beside_it(run: Run, tmp_path: Path) -> None:
    data = {"path": str(tmp_path / "a.raw"), "format": "raw", "volume_id": "vol-a"}
    connection = {"driver_volume_type": "local", "data": data}
    beside = {**connection, "data": {**data, "path": str(tmp_path / "b.raw"), "volume_id": "vol-b"}}
    (tmp_path / "b.json").write_text(json.dumps(beside))
    file = tmp_path / "c.yaml"
    entries = [
        {"guest": "test", "connection": connection, "level": "connected"},
        {"guest": "test", "connection_file": "b.json", "level": "connected"},
    ]
    file.write_text(yaml.safe_dump({"attachments": entries, "label": "x"}))
    assert run("apply", "-f", file, "--prune").exit_code == 0
    assert run("apply", "-f", file, "--prune").exit_code == 0
    ids = [view["volume"] for view in json.loads(run("list", "-o", "json").stdout)]
    assert ids == ["vol-a", "vol-b"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "attachments: 5",
        "attachments: [5]",
        "attachments: [{storage: /x}]",
        "attachments: [{guest: g}]",
        "attachments: [{guest: g, storage: /hunter2, connection: {a: b}}]",
        "attachments: [{guest: g, storage: /x, fromat: hunter2}]",
        "attachments: [{guest: on, storage: /x}]",
        "attachments: [{guest: g, storage: /x, format: hunter2}]",
        "attachments: [{guest: g, storage: /x, level: hunter2}]",
        "attachments: [{guest: g, storage: /x, shared: hunter2}]",
        "attachments: [{guest: g, storage: /x}, {guest: g, storage: /x}]",
        "attachments: [{guest: g, connection: hunter2}]",
        "attachments: [{guest: g, connection: {password: hunter2}, format: raw}]",
        "attachments: [{guest: g, connection_file: nothing.json}]",
        "labl: x\nattachments: []",
        "label: [1]\nattachments: []",
        "attachments: !!python/object/apply:os.system ['hunter2']",
        "a: &a [x]\nb: [*a, *a",
    ],
)
@pytest.mark.parametrize("command", ["apply", "diff"])
def test_a_file_that_is_none_is_refused_and_not_quoted(run: Run, text: str, command: str) -> None:
    done = run(command, "-f", "-", input=text)
    assert done.exit_code == 3, done.output
    assert "hunter2" not in done.output


def test_an_empty_list_detaches_what_has_the_label(run: Run, write: Callable[..., Path]) -> None:
    run("apply", "-f", write("a", label="web"))
    assert run("apply", "-f", write(label="web")).exit_code == 0
    assert storages(run) == ["a"]
    assert run("apply", "-f", write(label="web"), "--prune").exit_code == 0
    assert storages(run) == []
