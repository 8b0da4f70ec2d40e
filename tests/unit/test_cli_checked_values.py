"""Options whose values would do harm if they were taken as they are typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moorline.cli.checked_values import Seconds, persons_word
from moorline.cli.commands import main
from moorline.core.retry_loop import keeping_timeout
from moorline.core.validation import check_reason
from moorline.deadline import Deadline
from moorline.errors import Refused
from moorline.local_api.routes import REASONS, ROUTES

NO_DURATIONS = ("nan", "NaN", "-nan", "inf", "-inf", "1e400", "-1", "86401", "")


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name)


def _command(path: tuple[str, ...]) -> click.Command:
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        command = found.get_command(click.Context(found), name)
        assert command is not None
        found = command
    return found


def _options() -> Iterator[tuple[tuple[str, ...], click.Option]]:
    for path in _commands(main):
        for each in _command(path).params:
            if isinstance(each, click.Option):
                yield path, each


def _is_number(option: click.Option) -> bool:
    kind = option.type
    # float() as a type is one of click's FuncParamTypes, which a range is not
    return isinstance(kind, click.types.FloatParamType) or "float" in kind.name


FLOATS = [(path, each) for path, each in _options() if _is_number(each)]


def test_there_are_durations() -> None:
    assert ("wait",) in [path for path, _ in FLOATS]
    assert ("fleet", "evacuate") in [path for path, _ in FLOATS]


@pytest.mark.parametrize(
    ("path", "option"), FLOATS, ids=[f"{' '.join(path)} {each.name}" for path, each in FLOATS]
)
def test_a_duration_is_a_number_of_seconds(path: tuple[str, ...], option: click.Option) -> None:
    assert isinstance(option.type, Seconds)
    for word in NO_DURATIONS:
        done = CliRunner().invoke(main, [*path, f"{option.opts[0]}={word}"])
        assert done.exit_code == 2, (word, done.output)
        assert option.opts[0] in done.stderr


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_a_library_call_is_refused_what_is_no_number_of_seconds(seconds: float) -> None:
    called = []

    @keeping_timeout
    def verb(*, timeout: float = 60.0) -> None:
        called.append(timeout)

    with pytest.raises(Refused):
        verb(timeout=seconds)
    assert called == []


def test_no_wait_is_made_that_is_never_over() -> None:
    with pytest.raises(Refused):
        Deadline(float("nan"))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 86401.0], ids=str)
def test_a_client_is_refused_the_timeout_that_its_agent_would_refuse(seconds: float) -> None:
    waiting = [route for route in ROUTES if "timeout" in route.fields]
    assert waiting
    for route in waiting:
        with pytest.raises(Refused):
            route.patience({"timeout": seconds})


NO_WORDS = ("", " ", "   ", "\t", "\u3000", "yes\x1b[2J", "yes\nno", "yes\x07", "yes\u202eno")
WORDS = [
    (path, each)
    for path, each in _options()
    if each.metavar in ("REASON", "WHY") or any(name.startswith("--i-know") for name in each.opts)
]


def test_there_are_options_for_a_persons_word() -> None:
    assert {" ".join(path) for path, _ in WORDS} >= {"abort", "attach", "start", "fleet evacuate"}


@pytest.mark.parametrize(
    ("path", "option"), WORDS, ids=[f"{' '.join(path)} {each.name}" for path, each in WORDS]
)
def test_blanks_are_no_persons_word(path: tuple[str, ...], option: click.Option) -> None:
    assert option.callback is persons_word
    context = click.Context(_command(path))
    assert persons_word(context, option, None) == ""
    assert persons_word(context, option, "power cut by N., ticket 4711 \u2013 \u00e4") != ""
    for word in NO_WORDS:
        with pytest.raises(click.BadParameter):
            option.process_value(context, word)


def test_a_request_takes_blanks_for_no_persons_word() -> None:
    found = [route.fields[name] for route in ROUTES for name in REASONS & route.fields.keys()]
    assert found
    for field in found:
        assert field.decode("") == ""
        for word in NO_WORDS[1:]:
            with pytest.raises(Refused):
                field.decode(word)
    with pytest.raises(Refused):
        check_reason("")


def _is_text(option: click.Option) -> bool:
    """Whether what is typed is taken as it is, or for a path."""
    texts = click.types.StringParamType, click.Path
    return isinstance(option.type, texts) or type(option.type).shell_complete is not _NO_COMPLETION


_NO_COMPLETION = click.ParamType.shell_complete
TEXTS = sorted(
    (path, each.opts[0])
    for path, each in _options()
    if _is_text(each) and not isinstance(each.type, click.Choice) and not each.is_flag
)


def test_there_are_texts() -> None:
    assert {(("list",), "--label"), (("apply",), "--file"), (("fleet", "list"), "--host")} <= {
        *TEXTS
    }


@pytest.mark.parametrize(("path", "option"), TEXTS, ids=[f"{' '.join(p)} {o}" for p, o in TEXTS])
def test_a_variable_that_was_not_set_is_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...], option: str
) -> None:
    """It would be no filter, no label, or the current directory."""
    monkeypatch.chdir(tmp_path)
    words = [*path, option, ""]
    for parameter in _command(path).params:
        if parameter.required and parameter.opts[0] != option:
            value = getattr(parameter.type, "choices", ["x"])[0]
            words += (
                [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]
            )
    Path("x").write_text("")
    runner = CliRunner(
        env={"MOORLINE_STATE_DIR": "state", "MOORLINE_HYPERVISOR": "test:///default"}
    )
    done = runner.invoke(main, words)
    assert done.exit_code in (2, 3), done.output
    assert "is empty" in done.stderr or option in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
