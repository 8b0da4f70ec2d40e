"""`make release`: which version the fragments make; what is refused changes nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
GALAXY = "packaging/ansible/galaxy.yml"


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "packaging/release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "nova/pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('[project]\nname = "it"\nversion = "1.4.2"\n')
    (tmp_path / GALAXY).parent.mkdir(parents=True)
    (tmp_path / GALAXY).write_text('name: it\nversion: "1.4.2"\n')
    (tmp_path / "changelog").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("kinds", "version"),
    [
        (["fixed"], "1.4.3"),
        (["fixed", "added"], "1.5.0"),
        (["changed"], "1.5.0"),
    ],
)
def test_the_fragments_say_the_version(release: ModuleType, kinds: list[str], version: str) -> None:
    assert release.next_version((1, 4, 2), kinds) == version


@pytest.mark.parametrize("kinds", [[], ["removed"]])
def test_no_version_of_no_fragment_or_an_unknown_one(release: ModuleType, kinds: list[str]) -> None:
    with pytest.raises(ValueError):
        release.next_version((1, 4, 2), kinds)


@pytest.mark.parametrize("version", ["1.4.2", "1.3.9", "1.5", "v1.5.0", "1.5.0rc1", None])
def test_what_is_refused_changes_nothing(
    release: ModuleType, project: Path, version: str | None
) -> None:
    before = {file: file.read_text() for file in project.rglob("*.toml")}
    with pytest.raises(ValueError):
        release.release(project, version)
    assert {file: file.read_text() for file in project.rglob("*.toml")} == before


def test_packages_of_different_versions_are_refused(release: ModuleType, project: Path) -> None:
    for name, text in (
        ("nova/pyproject.toml", 'version = "1.4.3"\n'),
        (GALAXY, 'version: "1.4.3"\n'),
    ):
        before = (project / name).read_text()
        (project / name).write_text(text)
        with pytest.raises(ValueError):
            release.current(project)
        (project / name).write_text(before)


def test_all_that_is_released_has_the_version(release: ModuleType, project: Path) -> None:
    release.number(project, "1.5.0")
    assert release.current(project) == (1, 5, 0)
    assert (project / GALAXY).read_text() == 'name: it\nversion: "1.5.0"\n'


def test_this_checkout_could_be_released(release: ModuleType) -> None:
    kinds = set()
    files = {*(ROOT / "changelog").iterdir()}
    kept = ROOT / "changelog/.gitkeep"  # a release removes the others, and git the directory
    assert kept in files
    for file in files - {kept}:
        found = re.fullmatch(r"[^.]+\.(added|changed|fixed)\.md", file.name)
        assert found, f"changelog/{file.name} would be left out"
        kinds.add(found.group(1))
    assert release.next_version(release.current(ROOT), kinds or {"fixed"})
