"""The commands are loaded late, and nobody can tell."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moorline.cli.commands import COMMANDS, main
from moorline.cli.groups import Group
from moorline.cli.typed_words import _FLAGS, _GROUPS, _VALUES, MEANT, command_first

LOOKS = """completion, config check, config example, config show, datastores, diff, disks, doctor,
events, explain, export, fleet enrolled, fleet events, fleet explain, fleet guests, fleet hosts,
fleet list, fleet show, help, list, show, state show, status, support-bundle, ui, version, wait"""
RUNS = ["agent", "fleet controller", "hook run"]
"""What goes on, or is run by another program."""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_of_a_command_what_the_command_says(name: str) -> None:
    """Without loading it, and to the end of its sentence, however narrow the screen is."""
    command, context = main.commands[name], click.Context(main)
    assert command.name == name
    assert command.help
    assert " ".join(command.help.partition("\n\n")[0].split()) == COMMANDS[name][1]
    for width in (40, 60, 80):
        lazy, eager = (click.HelpFormatter(width=width) for _ in range(2))
        main.format_commands(context, lazy)
        Group.format_commands(main, context, eager)  # type: ignore[arg-type]
        assert lazy.getvalue() == eager.getvalue()
        assert "..." not in lazy.getvalue()


def test_every_command_is_in_the_table() -> None:
    modules = [
        import_module(f"moorline.cli.{where.partition(':')[0]}") for where, _ in COMMANDS.values()
    ]
    groups = [each for each in main.commands.values() if isinstance(each, click.Group)]
    listed = [*main.commands.values(), *(c for group in groups for c in group.commands.values())]
    for module in modules:
        for each in vars(module).values():
            assert not isinstance(each, click.Command) or each in listed, each.name


def test_a_command_that_is_not_there_is_told_with_what_was_meant() -> None:
    done = CliRunner().invoke(main, ["lst"])
    assert done.exit_code == 2
    assert "No such command 'lst'" in done.stderr
    assert CliRunner().invoke(main, ["list", "--help"]).exit_code == 0


@pytest.mark.parametrize(("typed", "meant"), MEANT.items())
def test_what_other_programs_call_a_command_is_told(typed: str, meant: str) -> None:
    assert typed not in COMMANDS
    done = CliRunner().invoke(main, [typed, "web01"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Did you mean {meant!r}?" in done.stderr
    group, _, command = meant.partition(" ")
    assert not command or command in main.commands[group].commands  # type: ignore[attr-defined]
    assert CliRunner().invoke(main, [*meant.split(), "--help"]).exit_code == 0


def test_help_of_a_group_says_whole_sentences() -> None:
    told = CliRunner().invoke(main, ["fleet", "--help"]).stdout
    assert "..." not in told.partition("Commands:")[2]
    assert all(isinstance(main.commands[name], Group) for name in _GROUPS)


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("-v list", "list -v"),
        ("-c qemu:///session -o json list web01", "list -c qemu:///session -o json web01"),
        ("--output=json config show --set", "config show --output=json --set"),
        ("-v fleet hosts", "fleet hosts -v"),
        ("list -v", "list -v"),
        ("--version", "--version"),
        ("-v --help", "--help -v"),
        ("--frobnicate list", "--frobnicate list"),
        ("-c", ""),
        ("", ""),
    ],
)
def test_options_of_every_command_may_stand_before_it(typed: str, taken: str) -> None:
    assert command_first(typed.split()) == taken.split()


def test_those_that_may_are_those_that_every_command_has() -> None:
    groups = {name for name, each in main.commands.items() if isinstance(each, click.Group)}
    assert groups == {*_GROUPS}
    every = set.intersection(*(_options(each) for each in _all().values() if _options(each)))
    assert every == _FLAGS | _VALUES


def _options(command: click.Command) -> set[str]:
    """Those of a command; none of one that has not even ``--output``, as `help`."""
    found = {word for each in command.params for word in each.opts if word.startswith("-")}
    return found if "--output" in found else set()


def test_an_option_before_the_command_counts(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["-o", "json", "--state-dir", str(tmp_path), "show", "3f2a"])
    assert (done.exit_code, json.loads(done.stderr)["error"]) == (4, "notfound")


@pytest.mark.parametrize("words", [["--help"], ["completion", "bash"]], ids=" ".join)
def test_only_the_command_that_is_called_is_loaded(words: list[str]) -> None:
    code = f"""if True:
        import sys
        from moorline.cli.commands import main
        main({words!r}, standalone_mode=False)
        print(*sys.modules, file=sys.stderr)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands = {f"moorline.cli.{where.partition(':')[0]}" for where, _ in COMMANDS.values()}
    loaded = commands.intersection(run.stderr.split())
    assert loaded == {f"moorline.cli.{word}" for word in words if word in COMMANDS}


def _all() -> dict[str, click.Command]:
    commands = {name: each for name, each in main.commands.items() if name not in RUNS}
    for name, group in main.commands.items():
        if isinstance(group, click.Group):
            del commands[name]
            commands |= {f"{name} {word}": each for word, each in group.commands.items()}
    return commands


def test_whatever_changes_something_says_first_what_it_would_do() -> None:
    """What it says, and that it changes nothing, is in test_cli_dry_runs.py."""
    assert _without("--dry-run") - {*RUNS} == {*LOOKS.replace("\n", " ").split(", ")}


def test_whatever_tells_something_tells_programs() -> None:
    assert _without("--output") == {"completion", "help"}


def _without(option: str) -> set[str]:
    return {
        name
        for name, each in _all().items()
        if not any(option in parameter.opts for parameter in each.params)
    }
