"""Where the agent is, found without oslo.config: as oslo.config says, or not at all."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from moorline import agent_location, config, installed
from moorline.errors import Refused

WORDS = ("state_dir", "agent_socket", "agent_group", "agent_grup", "host", "config_dir", "colour")
VALUES = ("/a", "/a/b/", "/x//y", "$host", "${moorline.host}/s", '"/q"', "'", '"', "", "a b", "é")
LINES = st.one_of(
    st.sampled_from(
        ("", "  ", "# a = b", "; c", "[moorline]", "[DEFAULT]", "[Moorline]", "[nova]")
    ),
    st.sampled_from(("[", "[]", "[moorline", "nonsense", "= x", " continued = 1", "\tx", "[a] ")),
    st.builds(
        lambda name, space, sign, value: f"{name}{space}{sign}{space}{value}",
        st.sampled_from(WORDS),
        st.sampled_from(("", " ", "\t")),
        st.sampled_from(("=", ":")),
        st.sampled_from(VALUES),
    ),
    st.text(alphabet=" =:[]#;$'\"ab\t\r\f\x1c\x85é", max_size=6),
)
PLAIN = st.builds(
    lambda name, value: f"{name} = {value}",
    st.sampled_from(("state_dir", "agent_socket", "agent_group")),
    st.sampled_from(("/a", "/a/b/", "/x//y", '"/q"', "'/r'")),
)


@pytest.fixture(autouse=True)
def nothing_else_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("OS_", "SNAP"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


def compare(file: Path, state_dir: str | None) -> bool:
    """Whether it was told, and then by both alike."""
    found = agent_location.find(state_dir, str(file))
    if found is None:
        return False
    loaded = config.load([file], tuple, state_dir=Path(state_dir) if state_dir else None)
    assert Path(found.state_dir) == loaded.state_dir
    assert Path(found.socket) == Path(loaded.agent["agent_socket"])
    assert found.personal == loaded.personal
    return True


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.lists(LINES, max_size=8),
        st.lists(PLAIN, max_size=4).map(lambda lines: ["[moorline]", *lines]),
    ),
    st.sampled_from([None, "/typed"]),
)
@example(["[moorline]", "state_dir = /a", "  /b"], None)
@example(["[moorline]", "state_dir = /a", "[moorline]", "state_dir : /b"], None)
@example(["[moorline]", "state_dir =", "# none"], None)
@example(["[DEFAULT]", "config_source = x"], None)
def test_a_file_says_the_same_to_both(
    tmp_path: Path, lines: list[str], state_dir: str | None
) -> None:
    file = tmp_path / "moorline.conf"
    file.write_bytes("\n".join(lines).encode())
    compare(file, state_dir)  # where it is told


@pytest.mark.parametrize("state_dir", [None, "/typed"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[moorline]\nstate_dir = /srv/moorline\n",
        "[moorline]\nagent_socket = /run/moorline.sock\n[nova]\nx = y\n",
        "# all\n[DEFAULT]\nhost = c1\n[moorline]\nstate_dir: '/q'\nagent_group=storage\n",
    ],
)
def test_a_plain_file_is_read(tmp_path: Path, text: str, state_dir: str | None) -> None:
    file = tmp_path / "moorline.conf"
    file.write_text(text)
    assert compare(file, state_dir)


def test_what_oslo_config_refuses_is_left_to_it(tmp_path: Path) -> None:
    file = tmp_path / "moorline.conf"
    for text in ("nonsense", "[moorline]\nagent_grup = x\n", "[moorline]\nnonsense\n", "a = b\n"):
        file.write_text(text)
        assert agent_location.find("/typed", str(file)) is None
        with pytest.raises(Refused):
            config.load([file], tuple)


def test_the_options_are_the_agents() -> None:
    assert sorted(agent_location.AGENT_OPTIONS) == sorted(option.name for option in config.AGENT)


@pytest.mark.parametrize("where", ["environment", "beside"])
def test_what_is_told_elsewhere_is_left_to_oslo_config(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads OS_GROUP__OPTION, and the folders moorline.conf.d, though nobody named them."""
    none = tmp_path / "none"
    assert agent_location.find(None, str(none))
    if where == "environment":
        monkeypatch.setenv("OS_MOORLINE__STATE_DIR", "/elsewhere")
    else:
        folder = tmp_path / ".moorline/moorline.conf.d"
        folder.mkdir(parents=True)
        (folder / "a.conf").write_text("[moorline]\nstate_dir = /elsewhere\n")
    assert agent_location.find(None, str(none)) is None
    assert config.load([], tuple).state_dir == Path("/elsewhere")


@pytest.mark.parametrize("hypervisor", [None, "test:///default"])
@pytest.mark.parametrize("state_dir", [None, Path("/typed")])
def test_where_nothing_is_configured_the_defaults_are_oslo_configs(
    state_dir: Path | None, hypervisor: str | None, tmp_path: Path
) -> None:
    """An empty file is read by oslo.config, no file is not."""
    empty = tmp_path / "empty.conf"
    empty.touch()
    options, typed = installed.options, {"state_dir": state_dir, "hypervisor": hypervisor}
    plain, read = config.load([], options, **typed), config.load([empty], options, **typed)
    assert isinstance(plain.values, config.Defaults)
    assert plain == read
    assert config.digest(plain) == config.digest(read)


@pytest.mark.parametrize("entry", [*entry_points(group=installed.BACKENDS)], ids=lambda e: e.name)
def test_each_back_end_is_told_what_it_declares_and_no_other_is_loaded_for_it(
    entry: EntryPoint,
) -> None:
    declared = entry.load().options
    every = config.load([], installed.options, state_dir=Path("/typed")).values
    mine = config.only(config.Defaults(unasked, Path("/typed")), declared)
    assert mine == {name: every[name] for name in mine}
    assert mine.keys() == {option.name for option in declared} | {"state_dir"}


def unasked() -> NoReturn:
    raise AssertionError("all that is installed was loaded")


def test_a_state_directory_with_a_dollar_is_oslo_configs(tmp_path: Path) -> None:
    """It reads a name after the sign, and is the one to say so."""
    with pytest.raises(Refused, match="cannot be used"):
        config.load([], tuple, state_dir=tmp_path / "$x")
