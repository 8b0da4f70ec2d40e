"""Who is not root: a member of the agent's group, one who is none, one with a state of his own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.agent import Agent
from lab.command import Moorline
from moorline.config import HOST_STATE_DIR

ROOT = Path(__file__).parents[2]
GROUP = "users"
DENIED, UNAVAILABLE = 9, 11


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


@pytest.fixture(scope="module", autouse=True)
def reachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Who is not root finds the command, though root's home, where the checkout may be, is shut.

    The host's mounts are private: there a home lies over root's that has only what is run.
    """
    shut = [each for each in reversed(ROOT.parents) if not each.stat().st_mode & 0o001]
    if not shut:
        yield
        return
    home = shut[0]
    run = [each for each in (ROOT, Path(sys.base_prefix)) if each.is_relative_to(home)]
    aside = {each: tmp_path_factory.mktemp("aside") for each in run}
    for each, at in aside.items():
        mount("--bind", each, at)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", home)
    for each, at in aside.items():
        each.mkdir(parents=True)
        mount("--bind", at, each)
    yield
    for each in [*run, home, *aside.values()]:
        subprocess.run(["umount", "--lazy", str(each)], check=True)


@pytest.fixture
def home(moorline: Moorline) -> Path:
    """Of a user who has nothing yet."""
    assert moorline.state is not None
    directory = moorline.state.with_name("home")
    directory.mkdir()
    shutil.chown(directory, "nobody")
    return directory


@pytest.fixture
def conf(home: Path) -> Path:
    file = home.with_name("moorline.conf")
    file.write_text(f"[moorline]\nagent_group = {GROUP}\n")
    return file


@pytest.fixture
def agent(conf: Path, lab: Path) -> Iterator[Agent]:
    """The host's: its state is where root's is."""
    started = Agent(Moorline(HOST_STATE_DIR), conf.with_name("log"), "--config-file", str(conf))
    yield started
    started.stop()
    for file in HOST_STATE_DIR.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def user(home: Path, *groups: str) -> Moorline:
    rights = f"--groups={','.join(groups)}" if groups else "--clear-groups"
    become = ("setpriv", "--reuid=nobody", "--regid=nogroup", rights, "--")
    return Moorline(None, {"HOME": str(home), "XDG_STATE_HOME": ""}, become)


def attach(moorline: Moorline, domain: Any, image: Path) -> None:
    image.write_bytes(bytes(1 << 20))
    moorline("attach", domain.name(), str(image), "--format", "raw", "--level", "connected")


def test_a_member_sees_and_changes_what_the_hosts_agent_keeps(
    agent: Agent, home: Path, conf: Path, stopped: Any
) -> None:
    attach(Moorline(HOST_STATE_DIR), stopped, conf.with_name("disk.raw"))
    member = user(home, GROUP)
    (row,) = member.json("list")
    assert row["guest"] == stopped.name()
    assert member.json("list", "--config-file", str(conf)) == [row]
    member("detach", stopped.name(), row["volume"])
    assert member.json("list") == agent.client.attachments.list() == []
    assert list(home.iterdir()) == []


def test_who_is_no_member_is_told_so(agent: Agent, home: Path) -> None:
    for words in (["list"], ["doctor"], ["attach", "web01", "/x.raw", "--format", "raw"]):
        told = user(home)(*words, code=DENIED)
        assert str(HOST_STATE_DIR / "agent.sock") in told.stderr
        assert "member of the agent's group" in told.stderr
        assert told.stdout == ""
    assert list(home.iterdir()) == []


def test_without_an_agent_nobody_is_told_that_nothing_is_wanted(agent: Agent, home: Path) -> None:
    agent.kill()  # its socket is left behind
    assert "no agent answers" in user(home, GROUP)("list", code=UNAVAILABLE).stderr
    (HOST_STATE_DIR / "agent.sock").unlink()
    assert "no agent answers" in user(home, GROUP)("list", code=UNAVAILABLE).stderr


def test_who_has_a_state_of_his_own_keeps_it(
    agent: Agent, home: Path, conf: Path, lab: Path
) -> None:
    mine = user(home, GROUP)
    image = home / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    uri = ("--hypervisor", "test:///default")
    own = home / ".local/state/moorline"
    # By root, because a user may be unable to start the interpreter that tests run with.
    Moorline(own)("attach", "test", str(image), "--format", "raw", "--level", "connected", *uri)
    for made in (own, *own.iterdir()):
        shutil.chown(made, "nobody")
    (row,) = mine.json("list", *uri)
    assert row["guest"] == "test"
    assert mine.json("list", *uri, "--state-dir", str(own)) == [row]
    # Not even where the configuration tells him of the host's agent is that one asked for it.
    with conf.open("a") as stream:
        stream.write(f"agent_socket = {HOST_STATE_DIR}/agent.sock\n")
    assert mine.json("list", *uri, "--config-file", str(conf)) == [row]


def test_an_empty_state_that_only_a_look_made_is_nobodys(
    agent: Agent, home: Path, conf: Path, stopped: Any
) -> None:
    """Older versions made one for whoever said `moorline list`."""
    from moorline.stores.sqlite import SqliteStore

    own = home / ".local/state/moorline"
    own.mkdir(parents=True)
    SqliteStore(own / "moorline.db").close()
    for made in (own, own / "moorline.db"):
        shutil.chown(made, "nobody")
    attach(Moorline(HOST_STATE_DIR), stopped, conf.with_name("disk.raw"))
    assert len(user(home, GROUP).json("list")) == 1


def test_a_host_without_a_state_is_an_empty_one(home: Path, lab: Path) -> None:
    assert not list(HOST_STATE_DIR.iterdir())
    assert user(home).json("list") == []
    assert list(home.iterdir()) == []
