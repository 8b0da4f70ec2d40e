"""What a host is given to join, and keeps: whole, for its owner alone, and told nowhere."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from moorline import wiring
from moorline.cli.commands import main
from moorline.errors import Denied, NotFound, Refused, Unavailable
from moorline.secret import Secret
from moorline.stores.fleet_seal import BoxKey

pytest.importorskip("grpc")

from moorline.stores.etcd.authority import Authority
from moorline.stores.etcd.joining import Fleet, Joining, Membership
from tests.support.full_disk import full_disk

FLEET_BOX = BoxKey(Secret(b"f" * 32))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def joining(authority: Authority) -> Joining:
    made = authority.user("host:h1:1")
    fleet = Fleet(("https://etcd1:2379", "https://etcd2:2379"), authority.pem, FLEET_BOX.public)
    return Joining("h1", fleet, made.certificate, made.key, Secret(b"b" * 32))


def test_it_is_carried_and_installed(joining: Joining, tmp_path: Path) -> None:
    assert Joining.load(joining.dump().reveal()) == joining
    member = joining.install(tmp_path / "fleet")
    assert member.host == "h1"
    assert member.access.endpoints == joining.fleet.endpoints
    assert member.access.certificate.read_bytes() == joining.certificate
    member.access.credentials()
    again = Membership.open(tmp_path / "fleet")
    at = "/moorline/status/h1/x"
    assert again.box.open(at, member.box.seal(at, b"text")) == b"text"


def test_its_files_are_for_their_owner_alone(joining: Joining, tmp_path: Path) -> None:
    joining.install(tmp_path / "fleet")
    assert (tmp_path / "fleet").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "fleet").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    (tmp_path / "fleet/box.key").chmod(0o640)
    with pytest.raises(Denied):
        Membership.open(tmp_path / "fleet")


def test_a_renewed_certificate_leaves_the_box(joining: Joining, tmp_path: Path) -> None:
    joining.install(tmp_path)
    box = (tmp_path / "box.key").read_bytes()
    replace(joining, box=None).install(tmp_path)
    assert (tmp_path / "box.key").read_bytes() == box


def test_what_renews_a_certificate_makes_no_member(joining: Joining, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="renews"):
        replace(joining, box=None).install(tmp_path / "fleet")
    assert not (tmp_path / "fleet").exists()


def test_a_full_disk_leaves_no_member(joining: Joining, tmp_path: Path) -> None:
    with full_disk(), pytest.raises(Unavailable):
        joining.install(tmp_path / "fleet")
    with pytest.raises(NotFound, match="in no fleet"):
        Membership.open(tmp_path / "fleet")
    joining.install(tmp_path / "fleet")
    with full_disk(), pytest.raises(Unavailable):
        replace(joining, box=Secret(b"c" * 32)).install(tmp_path / "fleet")
    assert Membership.open(tmp_path / "fleet").host == "h1"


def test_another_s_certificate_is_not_taken(joining: Joining, authority: Authority) -> None:
    for user in ("host:h2:1", "root", "controller:c1", "host:h1", "host:h1:x"):
        strange = replace(joining, certificate=authority.user(user).certificate)
        with pytest.raises(Refused, match=f"its certificate for {user}"):
            Joining.load(strange.dump().reveal())
    nobody = replace(joining, certificate=authority.member(["etcd1"]).certificate)
    with pytest.raises(Refused, match="nobody"):
        Joining.load(nobody.dump().reveal())


@given(
    st.binary(max_size=200) | st.dictionaries(st.text(), st.text()).map(json.dumps).map(str.encode)
)
def test_whatever_else_is_refused(junk: bytes) -> None:
    with pytest.raises(Refused):
        Joining.load(junk)


def test_a_file_that_is_damaged_tells_no_secret(joining: Joining) -> None:
    fields = json.loads(joining.dump().reveal())
    secrets = (fields["key"].splitlines()[1], fields["box"])
    for name in fields:
        for value in (None, 7, [], "x"):
            try:
                Joining.load(json.dumps({**fields, name: value}).encode())
            except Refused as e:
                told = f"{e} {e!r} {e.__cause__!r}"
                assert not any(secret in told for secret in secrets)
    with pytest.raises(Refused, match="format 1"):
        Joining.load(json.dumps({**fields, "moorline_join": 2}).encode())
    with pytest.raises(Refused, match="too large"):
        Joining.load(b" " * (2 << 20))


def test_it_prints_no_secret(joining: Joining) -> None:
    for secret in ("PRIVATE", "bbbb"):
        assert secret not in repr(joining)
        assert secret not in str(joining.dump())


def test_a_damaged_directory_is_told_so(joining: Joining, tmp_path: Path) -> None:
    joining.install(tmp_path)
    for text in ("", "[]", "{}", '{"host": "h1"}', '{"endpoints": null}'):
        (tmp_path / "fleet.json").write_text(text)
        with pytest.raises(Unavailable, match="damaged"):
            Membership.open(tmp_path)


def test_another_hosts_is_not_installed(joining: Joining, tmp_path: Path) -> None:
    """It would tell the fleet of the other's volumes that they are gone."""
    joining.install(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for box in (joining.box, None):
        strange = replace(joining, host="h2", box=box)
        for refused in (strange.check, strange.install):
            with pytest.raises(Refused, match="for h2, and this host is h1") as error:
                refused(tmp_path)
            assert "moorline fleet leave" in error.value.hint
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    joining.check(tmp_path, "renamed-since")  # what it is in the fleet is what counts
    (tmp_path / "fleet.json").write_text("{}")
    with pytest.raises(Unavailable, match="damaged"):
        joining.check(tmp_path)


@pytest.mark.parametrize("called", ["h1", "H1", "h1.example.org", ""])
def test_the_first_is_for_who_is_called_so(joining: Joining, tmp_path: Path, called: str) -> None:
    joining.check(tmp_path, called)


@pytest.mark.parametrize("called", ["h2", "h11", "h1x.h1", "h2.example.org"])
def test_the_first_is_not_for_another(joining: Joining, tmp_path: Path, called: str) -> None:
    with pytest.raises(Refused, match=f"for h1, and this host is called {called}") as error:
        joining.check(tmp_path, called)
    assert "moorline state rename h1" in error.value.hint
    joining.check(tmp_path, "h1")


def test_the_command_compares_with_the_state(
    joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, there, state = tmp_path / "h1.join", tmp_path / "fleet", tmp_path / "state"
    file.write_bytes(joining.dump().reveal())
    file.chmod(0o600)
    conf = tmp_path / "moorline.conf"
    conf.write_text(f"[moorline]\nagent_fleet = {there}\nstate_dir = {state}\n")

    def join(*words: str, code: int) -> str:
        given = ["fleet", "join", str(file), "--config-file", str(conf), *words]
        done = CliRunner().invoke(main, given, catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    monkeypatch.setattr(socket, "gethostname", lambda: "h3")
    with wiring.open_host(wiring.settings([conf], hypervisor="test:///default")):
        pass  # its state is of h3 from now on
    monkeypatch.setattr(socket, "gethostname", lambda: "h1")
    for words in (("--dry-run",), ()):
        assert "this host is called h3" in join(*words, code=3)
        assert not there.exists()
    conf_state = ("state", "rename", "h1", "--config-file", str(conf))
    assert CliRunner().invoke(main, list(conf_state)).exit_code == 0
    join("--dry-run", code=0)
    assert not there.exists()
    assert str(there) in join(code=0)
    assert Membership.open(there).host == "h1"
