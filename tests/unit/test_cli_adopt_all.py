"""adopt --all and release --all as they are typed: what they read, print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moorline.cli import common
from moorline.cli.commands import main
from moorline.cli.connection import read_connections
from moorline.errors import Refused
from moorline.testing.toy_host import ToyShare
from tests.support.care_rig import FILES, Scene, disk, prepared


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = prepared(tmp_path, monkeypatch)

    @contextmanager
    def open(given: Any, **how: Any) -> Iterator[Any]:
        yield scene.moorline

    monkeypatch.setattr(common.Common, "open", open)
    return scene


def run(*words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(main, [*words, "--quiet"], input=input)


@pytest.mark.parametrize(
    "words",
    [
        ["adopt"],
        ["adopt", "g1", "--local"],
        ["adopt", "g1", "--cinder"],
        ["adopt", "g1", "--connections", "-"],
        ["adopt", "g1", "/x", "--all", "--format", "raw"],
        ["adopt", "g1", "--all", "--connection", "-"],
        ["adopt", "g1", "--all", "--target", "vdb"],
        ["adopt", "g1", "--all", "--volume", "x"],
        ["release"],
        ["release", "g1"],
        ["release", "g1", "vol-a", "--all"],
    ],
)
def test_what_does_not_go_together_is_wrong_usage(scene: Scene, words: list[str]) -> None:
    assert run(*words, input="[]").exit_code == 2


def test_it_says_what_it_will_do_and_then_what_came_of_it(scene: Scene) -> None:
    link = scene.attach("b", "g2")
    scene.inventory.all["g1"] = [disk(f"{link}/a", serial="vol-a")]
    done = run("adopt", "--all")
    assert done.exit_code == 0
    plan, _, came = done.stdout.partition("adopted")
    assert "due" in plan
    assert "vol-a" in came
    again = run("adopt", "--all")
    assert (again.exit_code, again.stdout.count("GUEST")) == (0, 1)
    assert "kept" in again.stdout
    released = run("release", "g1", "--all")
    assert (released.exit_code, "released" in released.stdout) == (0, True)
    assert "nothing is attached" in run("release", "g1", "--all").stdout


def test_the_lines_to_configure_end_the_text_and_the_code_is_that_of_a_refusal(
    scene: Scene,
) -> None:
    scene.host.mount("quobyte@reg/vol", "/hand", "fuse.quobyte", ToyShare(files=FILES))
    scene.inventory.all["g1"] = [disk("/hand/a")]
    for dry in ([], ["--dry-run"]):
        told = run("adopt", "--all", *dry)
        assert told.exit_code == 3
        assert told.stdout.endswith("\n\n[libvirt]\nquobyte_mounted = reg/vol=/hand\n")
    as_json = run("adopt", "g1", "--all", "--output", "json")
    assert as_json.exit_code == 3
    found = json.loads(as_json.stdout)
    assert found["settings"] == ["quobyte_mounted = reg/vol=/hand"]
    assert [each["outcome"] for each in found["disks"]] == ["unset"]


ROWS = [{"connection_info": {"driver_volume_type": "x"}}, {"volume_id": "y"}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(map(json.dumps, ROWS)),
        "\n\n".join(json.dumps(row, indent=2) for row in ROWS) + "\n",
        json.dumps({"attachments": ROWS}),
        "\n".join(json.dumps([row]) for row in ROWS),
    ],
    ids=["list", "indented", "lines", "one after the other", "an API's answer", "lists"],
)
def test_a_file_of_connections(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    assert read_connections(str(file)) == ROWS


def test_the_answer_about_one_attachment(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text(json.dumps({"attachment": ROWS[0]}))
    assert read_connections(str(file)) == ROWS[:1]
    file.write_text("")
    assert read_connections(str(file)) == []


@pytest.mark.parametrize("text", ["{", "7", "[7]", '{"a": 1} x', '{"a": 1, "a": 2}', "[NaN]"])
def test_what_is_no_list_of_objects_is_refused_unquoted(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(Refused, match="cannot be used"):
        read_connections(str(file))


def test_a_file_that_is_not_there_is_refused(scene: Scene) -> None:
    assert run("adopt", "--all", "--connections", "/none/rows.json").exit_code == 3
