"""What the pages show can be typed, and what they link to is there."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from moorline import config, errors, installed
from moorline.cli.commands import EPILOG, main
from moorline.core import state_owner
from moorline.disk_options import OPTIONS
from moorline.errors import MoorlineError
from moorline.exit_codes import EXIT_CODES, EXIT_FOUND, EXIT_INTERRUPTED, EXIT_READER_GONE
from moorline.fleet import results as fleet_results
from moorline.model import DiskSource
from moorline.ports import hypervisor, inspection, moving, recognising, storage
from moorline.ports import results as port_results
from moorline.ports.inspection import Finding
from moorline.ports.results import Result, Trouble

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^(?:# |\$ )?(?:/\S+/)?moorline (.+)$", re.MULTILINE)
CONFIGURED = {"vsphere.md": "vsphere://vcenter.example.org"}
"""The hypervisor that a page has its readers configure, where it is another than the default."""
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(page: Path) -> str:
    return "\n".join(re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL))


def documented() -> list[tuple[str, str]]:
    return [(page.name, line) for page in PAGES for line in COMMAND.findall(blocks(page))]


def helps() -> list[tuple[str, str]]:
    """The examples in the commands' own help."""
    found = []
    for name, command in main.commands.items():
        text = (command.help or "").replace("\b", "")
        found += [
            (name, line.strip()) for line in COMMAND.findall(re.sub(r"^ +", "", text, flags=re.M))
        ]
    return found


@pytest.mark.parametrize(("page", "line"), documented() + helps())
def test_a_command_parses(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORLINE_HYPERVISOR", CONFIGURED.get(page, "qemu:///system"))
    words = shlex.split(line.partition(" | ")[0].partition(" > ")[0], comments=True)
    words = words[1:] if words[0].startswith("-") and words[0] not in ("--help",) else words
    command = main.commands[words[0]]
    try:
        command.make_context(words[0], words[1:])
    except click.exceptions.Exit:
        pass  # --help
    except click.BadParameter as e:
        if "does not exist" not in e.message:  # a file of the example's
            raise


def test_the_pages_show_commands() -> None:
    assert len(documented()) > 15
    assert len(helps()) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_option_is_in_the_reference() -> None:
    text = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for option in (*config.OPTIONS, *installed.options()):
        assert f"`{option.name}`" in text, option.name


def test_every_option_of_a_disk_is_in_the_reference_as_it_is_declared() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    for each in OPTIONS:
        names = [each.short] * bool(each.short) + [each.typed]
        assert f"| {', '.join(f'`--{name}`' for name in names)} | {each.help} |\n" in text


def test_every_command_and_exit_code_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    for name in main.commands:
        assert f"`{name}" in text, name
    for code in (*EXIT_CODES.values(), EXIT_FOUND, EXIT_INTERRUPTED, EXIT_READER_GONE):
        assert f"| {code} |" in text, code
    for code in (*EXIT_CODES.values(), EXIT_FOUND):
        assert f" {code}  " in EPILOG, code


def test_what_the_pages_import_is_there() -> None:
    lines = {
        line
        for page in PAGES
        for line in page.read_text().splitlines()
        if re.match(r"from moorline[\w.]* import \w", line)
    }
    assert len(lines) > 5
    for line in sorted(lines):
        exec(line, {})


def printed_fields() -> list[tuple[str, str]]:
    """Each field that ``--output json`` prints, with the class that has it."""
    modules = (port_results, state_owner, fleet_results)
    all_kinds = (each for module in modules for each in vars(module).values())
    kinds: set[Any] = {each for each in all_kinds if isinstance(each, type)}
    kinds = {kind for kind in kinds if issubclass(kind, Result)} | {Trouble, Finding}
    return sorted((kind.__name__, field.name) for kind in kinds for field in fields(kind))


@pytest.mark.parametrize(("kind", "field"), printed_fields())
def test_every_field_that_is_printed_is_in_the_reference(kind: str, field: str) -> None:
    assert f"`{field}`" in (ROOT / "docs/reference.md").read_text()


def test_every_kind_of_source_is_in_the_row_of_it() -> None:
    (row,) = re.findall(r"^\| `source` \|.*$", (ROOT / "docs/reference.md").read_text(), re.M)
    kinds = get_args(DiskSource)
    assert len(kinds) >= 4
    for kind in kinds:
        assert f"`{kind.__name__}`" in row


def test_every_error_is_named_in_the_reference_as_events_and_answers_name_it() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    listed = text[text.index("`error` is the error's class") :].partition("\n\n")[0]
    kinds = {each for each in vars(errors).values() if isinstance(each, type)}
    for kind in kinds - {MoorlineError}:
        if issubclass(kind, MoorlineError):
            assert f"`{kind('x').kind}`" in listed, kind


GUIDES = [
    ("add-a-backend.md", storage.StorageDriver),
    ("add-a-backend.md", storage.StorageBackend),
    ("add-a-hypervisor.md", hypervisor.Hypervisor),
    ("add-a-hypervisor.md", hypervisor.HypervisorDriver),
]
OPTIONAL = {
    "add-a-backend.md": (storage, recognising, (inspection.Discovering, inspection.Diagnosing)),
    "add-a-hypervisor.md": (hypervisor, moving, (inspection.OpenImages,)),
}
"""Protocols that an adapter may have besides, by the page for who writes one."""


def optional(page: str) -> list[type]:
    found: list[type] = []
    for each in OPTIONAL[page]:
        members = each if isinstance(each, tuple) else vars(each).values()
        found += [m for m in members if getattr(m, "_is_runtime_protocol", False)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("page", "protocol"), GUIDES, ids=str)
def test_all_that_an_adapter_must_have_is_in_its_guide(page: str, protocol: type) -> None:
    text = (ROOT / "docs" / page).read_text()
    members = {name for name in (*vars(protocol), *protocol.__annotations__) if name[0] != "_"}
    assert [name for name in sorted(members) if not re.search(rf"[`(\s.]{name}\b", text)] == []


@pytest.mark.parametrize("page", OPTIONAL)
def test_all_that_an_adapter_may_have_is_in_its_guide(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    protocols = optional(page)
    assert len(protocols) >= 7
    for protocol in protocols:
        names = [name for name in vars(protocol) if name[0] != "_"]
        for name in (protocol.__name__, *names):
            assert f"`{name}`" in text, f"{protocol.__name__}.{name}"
