"""apply, diff, export: on libvirt's own test driver."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from tests.support.libvirt_test_driver import Run, run
from tests.support.luks_image import luks_image

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


def bomb(key: str, more: str) -> str:
    """A few lines of aliases that stand for more than any memory holds."""
    lines = [f"  {key}{n}: &a{n + 1} {more.replace('X', f'a{n}')}" for n in range(40)]
    return "\n".join(["attachments:", "- guest: &a0 {x: y}", *lines, f"  {key}: *a40", ""])


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
        'attachments: [{guest: g, connection_file: "a\\0hunter2"}]',
        'attachments: [{guest: g, storage: "/x\\0hunter2", format: raw}]',
        'label: "\\ud800"\nattachments: []',
        bomb("connection", "{p: *X, q: *X, r: *X}"),
        bomb("<<", "{<<: [*X, *X, *X]}"),
    ],
)
@pytest.mark.parametrize("command", ["apply", "diff"])
def test_a_file_that_is_none_is_refused_and_not_quoted(run: Run, text: str, command: str) -> None:
    done = run(command, "-f", "-", input=text)
    assert done.exit_code == 3, done.output
    assert "hunter2" not in done.output


def test_a_file_whose_name_is_a_dash_is_not_standard_input(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    connection = {"driver_volume_type": "local", "data": {"device_path": "hunter2"}}
    text = "attachments: [{guest: test, connection_file: '-'}]"
    Path("c.yaml").write_text(text)
    done = run("apply", "-f", "c.yaml", input=json.dumps(connection))
    assert (done.exit_code, "No such file" in done.stderr) == (3, True), done.output


def test_a_volume_that_is_there_twice_changes_nothing(run: Run, tmp_path: Path) -> None:
    """However it is spelled; the two may say otherwise of it."""
    path = tmp_path / "a.raw"
    again = entry(path, shared=True) | {"storage": f"{tmp_path}/../{tmp_path.name}/a.raw"}
    file = declare(tmp_path, entry(tmp_path / "b.raw"), entry(path), again)
    for command in ("diff", "apply"):
        done = run(command, "-f", file)
        assert (done.exit_code, "attachments 2 and 3 are one" in done.stderr) == (3, True)
    assert storages(run) == []


def test_a_host_with_thousands_of_attachments_has_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("attachments: []\n#" + "x" * (900 << 10))
    assert run("diff", "-f", file).exit_code == 0
    file.write_text("attachments: []\n#" + "x" * (1 << 20))
    assert run("diff", "-f", file).exit_code == 3


def test_the_key_of_a_luks_volume_is_in_a_file_of_its_own(run: Run, tmp_path: Path) -> None:
    image, key, file = (tmp_path / name for name in ("sealed.luks", "key", "attachments.yaml"))
    luks_image(image, b"correct horse", 1 << 20)
    key.write_bytes(b"correct horse")

    def write(**more: object) -> Path:
        file.write_text(yaml.safe_dump({"attachments": [entry(image, format="luks", **more)]}))
        return file

    key.chmod(0o644)
    assert run("apply", "-f", write(luks_key_file="key")).exit_code == 9
    key.chmod(0o600)
    for more, why in (({}, "luks_key_file"), ({"luks_key_file": "-"}, "not standard input")):
        refused = run("apply", "-f", write(**more))
        assert refused.exit_code == 3
        assert why in refused.output
    assert storages(run) == []
    done = run("apply", "-f", write(luks_key_file="key"))
    assert done.exit_code == 0, done.output
    assert storages(run) == ["sealed"]
    (again,) = json.loads(run("apply", "-f", file, "-o", "json").stdout)
    assert again["steps"] == []
    key.unlink()
    assert run("apply", "-f", file).exit_code == 3


def test_an_empty_list_detaches_what_has_the_label(run: Run, write: Callable[..., Path]) -> None:
    run("apply", "-f", write("a", label="web"))
    assert run("apply", "-f", write(label="web")).exit_code == 0
    assert storages(run) == ["a"]
    assert run("apply", "-f", write(label="web"), "--prune").exit_code == 0
    assert storages(run) == []


def declare(directory: Path, *entries: dict[str, object]) -> Path:
    file = directory / "declared.yaml"
    file.write_text(yaml.safe_dump({"label": "web", "attachments": entries}))
    return file


def elsewhere(path: Path, way: str) -> str:
    """The same file, spelled in another way."""
    if way == "linked directory":
        link = path.parent / "link"
        link.symlink_to(path.parent)
        return str(link / path.name)
    spelled = {
        "..": f"{path.parent}/../{path.parent.name}/{path.name}",
        "//": f"{path.parent}//{path.name}",
        "file:///": f"file://{path}",
        "relative": os.path.relpath(path),
    }
    return spelled[way]


@pytest.mark.parametrize("way", ["linked directory", "..", "//", "file:///", "relative"])
def test_what_is_spelled_otherwise_is_the_same_volume(run: Run, tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.raw"
    assert run("apply", "-f", declare(tmp_path, entry(path))).exit_code == 0
    before = run("list", "-o", "json").stdout
    file = declare(tmp_path, entry(path) | {"storage": elsewhere(path, way)})
    done = run("diff", "-f", file, "--prune")
    assert (done.exit_code, done.stdout) == (0, "nothing is different\n"), done.output
    assert actions(run("apply", "-f", file, "--prune", "-o", "json")) == ["none"]
    assert run("list", "-o", "json").stdout == before


@pytest.mark.parametrize(
    "spelled", [lambda id: id, lambda id: id[:8], str.upper, lambda id: id.upper()[:12]]
)
def test_a_guest_that_is_spelled_otherwise_is_the_same_guest(
    run: Run, tmp_path: Path, spelled: Callable[[str], str]
) -> None:
    path = tmp_path / "a.raw"
    assert run("apply", "-f", declare(tmp_path, entry(path))).exit_code == 0
    (view,) = json.loads(run("list", "-o", "json").stdout)
    file = declare(tmp_path, entry(path, guest=spelled(view["guest_id"])))
    assert actions(run("diff", "-f", file, "--prune", "-o", "json")) == ["none"]
    assert actions(run("apply", "-f", file, "--prune", "-o", "json")) == ["none"]
    assert storages(run) == ["a"]


@pytest.mark.parametrize(
    ("slip", "code"),
    [
        ({"guest": "tets"}, 4),
        ({"bus": "scsi"}, 3),
        ({"format": "qcow2"}, 3),
        ({"storage": "nonsense://x/a.raw"}, 3),
    ],
)
def test_nothing_is_pruned_where_an_entry_fails(
    run: Run, tmp_path: Path, slip: dict[str, object], code: int
) -> None:
    a, b, c = (entry(tmp_path / f"{name}.raw") for name in "abc")
    assert run("apply", "-f", declare(tmp_path, a, b)).exit_code == 0
    file = declare(tmp_path, a | slip, c)
    told = run("diff", "-f", file, "--prune")
    assert told.exit_code in (10, code), told.output
    assert "- " not in told.stdout
    assert "nothing is pruned" in told.output
    assert run("apply", "-f", file, "--prune", "--dry-run").exit_code == code
    assert sorted(storages(run)) == ["a", "b"]
    done = run("apply", "-f", file, "--prune")
    assert (done.exit_code, "nothing is pruned" in done.output) == (code, True), done.output
    assert sorted(storages(run)) == ["a", "b", "c"]
    told = json.loads(run("apply", "-f", file, "--prune", "-o", "json").stdout)
    assert {"problem", "action"} <= told[0].keys()
    assert {each["action"] for each in told[2:]} == {"spared"}


def test_two_that_fail_are_both_told(run: Run, tmp_path: Path) -> None:
    a, b = (entry(tmp_path / f"{name}.raw") for name in "ab")
    file = declare(tmp_path, a | {"guest": "tets"}, b | {"guest": "nobody"}, b)
    done = run("apply", "-f", file)
    assert done.exit_code == 4
    assert [name in done.stderr for name in ("tets", "nobody")] == [True, True]
    assert storages(run) == ["b"]


def test_what_is_exported_can_be_edited_and_pruned(
    run: Run, write: Callable[..., Path], tmp_path: Path
) -> None:
    run("apply", "-f", write("a", "b", label="web"))
    exported = yaml.safe_load(run("export").stdout)
    assert exported["label"] == "web"
    exported["attachments"].pop()
    (kept,) = (Path(each["storage"]).stem for each in exported["attachments"])
    assert run("apply", "-f", "-", "--prune", input=yaml.safe_dump(exported)).exit_code == 0
    assert storages(run) == [kept]
    run("apply", "-f", write("c"))
    done = run("export")  # one of them is of no label
    assert "label" not in yaml.safe_load(done.stdout)
    assert "--label" in done.stderr


NODE = """<node>
<domain type='test'><name>web01</name><uuid>11111111-0000-4000-8000-000000000001</uuid>
<memory>8192</memory><os><type>hvm</type></os></domain>
<domain type='test'><name>web02</name><uuid>22222222-0000-4000-8000-000000000002</uuid>
<memory>8192</memory><os><type>hvm</type></os></domain>
</node>
"""


def test_a_volume_that_is_declared_for_another_guest_stays_where_it_is(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "node.xml").write_text(NODE)
    driver = ("--hypervisor", f"test://{tmp_path}/node.xml")
    path = tmp_path / "a.raw"
    file = declare(tmp_path, entry(path, guest="web01"))
    assert run("apply", "-f", file, *driver).exit_code == 0
    before = run("list", "-o", "json", *driver).stdout
    file = declare(tmp_path, entry(path, guest="web02"))
    assert run("diff", "-f", file, "--prune", *driver).exit_code == 3
    assert run("apply", "-f", file, "--prune", "--dry-run", *driver).exit_code == 3
    done = run("apply", "-f", file, "--prune", *driver)
    assert (done.exit_code, "is wanted on web01" in done.stderr) == (3, True), done.output
    assert run("list", "-o", "json", *driver).stdout == before
