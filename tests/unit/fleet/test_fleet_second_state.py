"""Whichever state is opened on a host of a fleet, and whenever it joined: the fleet is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorline import config, wiring
from moorline.api import Moorline
from moorline.errors import MoorlineError, Refused, Unavailable
from moorline.fleet.host_memory import Marks
from moorline.state_wiring import demand_followers
from moorline.testing.toy_store import MemoryStore

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""Of the guest ``test`` in libvirt's own toy."""


@pytest.fixture(autouse=True)
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host's own state is."""
    monkeypatch.setattr(config, "FLEET_DIR", tmp_path / "fleet")
    monkeypatch.setattr(config, "HOST_STATE_DIR", tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    return join(tmp_path)


def join(tmp_path: Path) -> Path:
    """As ``fleet join`` leaves a host whose agent has not followed yet."""
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/fleet.json").write_text("{}")
    return tmp_path / "fleet"


@contextmanager
def opened(state: Path) -> Iterator[Moorline]:
    given = wiring.settings(state_dir=state, hypervisor="test:///default")
    with wiring.open_host(given) as moorline:
        yield moorline


def attach(moorline: Moorline, tmp_path: Path, vouch: str = "") -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    connection = {
        "driver_volume_type": "local",
        "data": {"path": str(tmp_path / "a.raw"), "format": "raw"},
    }
    moorline.attachments.attach("test", connection, vouch=vouch)


def wanted(moorline: Moorline) -> int:
    return len(moorline.attachments.list())


@pytest.mark.usefixtures("joined")
def test_another_state_goes_not_round_the_fleet(tmp_path: Path) -> None:
    """Two hosts would write one volume."""
    with opened(tmp_path / "other") as moorline:
        with pytest.raises(Refused, match="this host is in a fleet") as error:
            attach(moorline, tmp_path)
        assert "leave --state-dir out" in error.value.hint
        with pytest.raises(Refused, match="this host is in a fleet"):
            attach(moorline, tmp_path, vouch="ticket 4711")  # the fleet would never hear of it
        assert wanted(moorline) == 0
        for ours in (True, False):
            with pytest.raises(Refused, match="this host is in a fleet"):
                moorline.guests.permit(UUID, ours=ours, arriving=False)


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("lost", [True, False])
def test_before_the_agents_first_pass(tmp_path: Path, hosts: Path, lost: bool) -> None:
    """Also with a state that was lost, and is made anew."""
    if not lost:
        with opened(hosts):
            pass
    with opened(hosts) as moorline:
        with pytest.raises(Refused, match="this host is in a fleet"):
            attach(moorline, tmp_path)
        with pytest.raises(Unavailable, match="this host is in a fleet"):
            moorline.guests.permit(UUID, ours=True, arriving=False)
        moorline.guests.permit(UUID, ours=False, arriving=False)  # of whom the fleet never spoke
        assert wanted(moorline) == 0


def test_who_was_opened_before_the_host_joined(tmp_path: Path, hosts: Path) -> None:
    """An agent that runs when its host joins follows the fleet from its next start on."""
    given = wiring.settings(state_dir=hosts, hypervisor="test:///default")
    moorline, *_ = wiring.open_agent(given)
    with moorline:
        moorline.guests.permit(UUID, ours=True, arriving=False)
        join(tmp_path)
        with pytest.raises(Refused, match="this host is in a fleet"):
            attach(moorline, tmp_path)
        with pytest.raises(Unavailable, match="anew") as error:
            moorline.guests.permit(UUID, ours=True, arriving=False)
        assert "moorline agent" in str(error.value)


def test_credentials_that_cannot_be_looked_for_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "fleet").symlink_to("fleet")
    with opened(tmp_path / "other") as moorline, pytest.raises(MoorlineError, match="in a fleet"):
        attach(moorline, tmp_path)


def test_a_host_of_no_fleet_asks_nobody(tmp_path: Path, hosts: Path) -> None:
    for state in (hosts, tmp_path / "other"):
        with opened(state) as moorline:
            moorline.guests.permit(UUID, ours=True, arriving=False)


def test_credentials_elsewhere_are_of_the_state_that_is_configured_with_them(
    tmp_path: Path,
) -> None:
    """Several hosts of a lab on one machine."""
    credentials = join(tmp_path).rename(tmp_path / "elsewhere")
    for agent_fleet, asks in ((credentials, True), (tmp_path / "none", False)):
        conf = tmp_path / "moorline.conf"
        conf.write_text(f"[moorline]\nagent_fleet = {agent_fleet}\nstate_dir = {tmp_path}/own\n")
        given = wiring.settings([conf], hypervisor="test:///default")
        with wiring.open_host(given) as moorline:
            if asks:
                with pytest.raises(Unavailable):
                    moorline.guests.permit(UUID, ours=True, arriving=False)
            else:
                moorline.guests.permit(UUID, ours=True, arriving=False)


@pytest.mark.parametrize("said", ["state_dir = {0}/own", ""], ids=["another", "none"])
def test_a_state_that_is_typed_beside_the_configured_one_is_another(
    tmp_path: Path, hosts: Path, said: str
) -> None:
    """The credentials that are configured are those of the state that is: not of any."""
    conf = tmp_path / "moorline.conf"
    credentials = join(tmp_path).rename(tmp_path / "elsewhere")
    conf.write_text(f"[moorline]\nagent_fleet = {credentials}\n{said.format(tmp_path)}\n")
    given = wiring.settings([conf], state_dir=tmp_path / "typed", hypervisor="test:///default")
    with wiring.open_host(given) as moorline:
        with pytest.raises(Refused, match="this host is in a fleet"):
            attach(moorline, tmp_path, vouch="ticket 4711")
        with pytest.raises(Refused, match="this host is in a fleet"):
            moorline.guests.permit(UUID, ours=True, arriving=False)
    configured = tmp_path / "own" if said else hosts
    same = wiring.settings([conf], state_dir=configured, hypervisor="test:///default")
    with wiring.open_host(same) as moorline, pytest.raises(Unavailable):
        moorline.guests.permit(UUID, ours=True, arriving=False)
    demand_followers(same, Marks(MemoryStore(), "h1"))
    with pytest.raises(Refused, match="another state"):
        demand_followers(given, Marks(MemoryStore(), "h1"))
    followed = Marks(MemoryStore(), "h1")
    followed.accept("an epoch")
    demand_followers(given, followed)
