"""Images of Ceph against the back end contract, by the stand-in for the command that asks.

The same is asked of a real cluster in ``tests/lab/test_rbd.py`` (``make test-rbd``).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.ceph.standin import FSID, KEY, MONITOR, USER, StandIn
from moorline.backends.rbd import Rbd
from moorline.errors import Denied, Failed, MoorlineError, Refused, Uncertain
from moorline.host.linux import Linux
from moorline.model import Linked, NetworkDisk
from moorline.ports import Command, Output
from moorline.testing.contracts.backend import BackendContract, BackendRig, look
from moorline.testing.toy_host import ToyHost

SECONDS = 60.0
"""For a machine that others use too: what answers, answers at once."""
KEYRING = f'[client.{USER}]\n\tkey = {KEY}\n\tcaps mon = "profile rbd"\n'
STRANGER = {"address": "10.0.0.7:0/1180763356", "client": 4167, "cookie": 139924732990064}


def connection(name: Any = "vols/v1", **more: Any) -> dict[str, Any]:
    """As Cinder's driver gives it, and older ones gave it: with a keyring."""
    host, port = MONITOR.split(":")
    data = {
        "name": name,
        "hosts": [host],
        "ports": [port],
        "cluster_name": "ceph",
        "auth_enabled": True,
        "auth_username": USER,
        "secret_type": "ceph",
        "secret_uuid": "457eb676-33da-42ec-9a8c-9293d545c337",
        "volume_id": "6f1c7f3e-7a0e-4c8e-9f0a-3f6f0f9b8a11",
        "discard": True,
        "keyring": KEYRING,
        "encrypted": False,
        "qos_specs": None,
        "access_mode": "rw",
        **more,
    }
    return {"driver_volume_type": "rbd", "data": data}


class RbdRig(BackendRig):
    given = True
    secrets = (KEY, KEYRING)

    def __init__(self, directory: Path) -> None:
        self.cluster = StandIn(directory)
        for name in ("vols/v1", "vols/v2", "v 3/a:b", "other/v1"):
            self.cluster.image(name)
        self.cluster.image("vols/small", 0)
        self.cluster.image("vols/theirs", forbidden=True)
        self.cluster.image("vols/kept", locks=[{**STRANGER, "id": "mine", "locker": "client.1"}])
        self.backend = Rbd(Linux(), directory, user=USER, deadline=SECONDS)
        (directory / f"ceph.client.{USER}.keyring").write_text(KEYRING)
        self.good = connection()
        self.other = connection("vols/v2")
        self.missing = connection("vols/none")
        self.respelled = (
            connection(keyring=None),
            connection(keyring=None, auth_key=KEY),
            connection(hosts=["10.0.0.9", "127.0.0.5"], ports=[6789, 6789]),
            connection(hosts=["127.0.0.5", "2001:db8::1"], ports=["6789", "3300"]),
            connection(ports=None),
            connection(size=0, fsid=FSID, image_id="100b49e59bec"),
            {"driver_volume_type": "rbd", **self.good["data"]},
        )
        self.unfit = {
            "empty": connection("vols/small"),
            "smaller than is said": connection(size=1),
            "of another id": connection(image_id="1027cc429770"),
            "of another cluster": connection(fsid="11111111-2222-3333-4444-555555555556"),
            "not its user's": connection("vols/theirs"),
            "of no such pool": connection("nopool/v1"),
            "no such snapshot": connection("vols/v1@none"),
            "another key": connection(keyring=None, auth_key=base64.b64encode(b"x" * 28).decode()),
            "another user": connection(auth_username="nobody", keyring=None, auth_key=KEY),
            "no key, where one is wanted": connection(auth_enabled=False),
        }
        self.hostile = {
            **{
                f"the name {name!r}": connection(name)
                for name in (
                    *("", "v1", "vols/", "/v1", "vols/ns/v1", "vols/-v1", "-vols/v1", "vols/v1@"),
                    *("vols/v1@a@b", "vols/..", "../v1", "vols/v1\n", "vols/v1@-s", None, 7),
                )
            },
            **{
                f"the hosts {hosts!r}": connection(hosts=hosts)
                for hosts in ("127.0.0.5", ["a b"], ["-a"], ["a,b"], [None], ["[::g]"], ["a"] * 2)
            },
            **{
                f"the port {port!r}": connection(ports=[port])
                for port in (0, 65536, "", "a", "1 2", None, True, -1)
            },
            **{
                f"the user {user!r}": connection(auth_username=user)
                for user in ("", "a b", "../a", "a/b", "-a", None, 7)
            },
            "a cluster's name that is a path": connection(cluster_name="../x"),
            "another secret": connection(secret_type="iscsi"),
            "odd auth": connection(auth_enabled="yes"),
            "a keyring of somebody else": connection(keyring="[client.x]\n\tkey = " + KEY),
            "a keyring that is none": connection(keyring=KEY),
            "no key": connection(keyring=None, auth_key="hunter2"),
            "qcow2": connection(format="qcow2"),
            "mount options": connection(options="-o ro"),
        }

    def world(self) -> object:
        return json.dumps(self.cluster.images)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RbdRig:
    rig = RbdRig(tmp_path)
    monkeypatch.setenv("PATH", f"{rig.cluster.commands}:{os.environ['PATH']}")
    return rig


class TestImages(BackendContract):
    @pytest.fixture
    def rig(self, rig: RbdRig) -> BackendRig:
        return rig


def verify(rig: RbdRig, **more: Any) -> NetworkDisk:
    return rig.backend.verify(rig.backend.parse(connection(**more)))


def test_the_key_goes_to_the_command_and_to_the_hypervisor_alone(rig: RbdRig) -> None:
    ran: list[str] = []

    def asked(host: ToyHost, command: Command) -> Output:
        ran.append(str(command))
        path = command.argv[command.argv.index("--keyfile") + 1]
        assert Path(path).stat().st_size == len(KEY), "Ceph reads no more than that"
        assert Path(path).read_text() == KEY
        told = {"size": 1 << 20, "watchers": []}
        return Output(json.dumps([] if "lock" in command.argv else told), "")

    for more in ({}, {"keyring": None}, {"keyring": None, "auth_key": KEY}):
        backend = Rbd(ToyHost({"rbd": asked}), rig.cluster.commands.parent)
        image = backend.parse(connection(**more))
        disk = backend.verify(image)
        assert disk.login is not None
        assert (disk.login.user, disk.login.password.reveal()) == (USER, KEY)
        assert KEY not in f"{ran}{image}{disk}{backend.url(image)}"
    assert len(ran) == 9


def test_what_is_typed(rig: RbdRig) -> None:
    for url, name, servers in (
        ("rbd://mon/vols/v1", "vols/v1", ("mon:6789",)),
        ("rbd://Mon:3300,[::1]/vols/v1@s", "vols/v1@s", ("mon:3300", "[::1]:6789")),
        ("rbd:///v%203/a:b", "v 3/a:b", ()),
    ):
        for format in (None, "raw"):
            parsed = rig.backend.parse(rig.backend.from_url(url, format))  # type: ignore[arg-type]
            assert parsed.disk == NetworkDisk("rbd", name, servers)
            assert (parsed.user, parsed.key) == (USER, None)
            assert rig.backend.parse(rig.backend.from_url(rig.backend.url(parsed), None)) == parsed
    nobody = Rbd(ToyHost())
    assert nobody.parse(nobody.from_url("rbd://mon/vols/v1", None)).user == ""
    with pytest.raises(Refused, match="not qcow2"):
        rig.backend.from_url("rbd://mon/vols/v1", "qcow2")


@pytest.mark.parametrize(
    "url",
    [
        "rbd:vols/hunter2",
        "rbd://vols/hunter2",
        "rbd://moor:hunter2@mon/vols/v1",
        "rbd://mon/vols/v1?key=hunter2",
        "rbd://mon/vols/ns/hunter2",
        "rbd://mon/vols/%2Fhunter2",
        "rbd://mon:hunter2/vols/v1",
        "rbd://mon/vols/v1#hunter2",
    ],
)
def test_what_is_no_url_of_an_image_is_refused_and_not_quoted(rig: RbdRig, url: str) -> None:
    with pytest.raises(Refused) as refused:
        rig.backend.parse(rig.backend.from_url(url, None))
    assert "hunter2" not in str(refused.value)


def test_who_has_it_open_is_told_and_a_lock_of_somebody_is_waited_for(rig: RbdRig) -> None:
    assert verify(rig).opened == ()
    own = {**STRANGER, "id": "auto 139924732990064", "locker": "client.4167"}
    rig.cluster.image("vols/open", watchers=[STRANGER], locks=[own])
    assert verify(rig, name="vols/open").opened == ("10.0.0.7:0/1180763356 (client.4167)",)
    rig.cluster.image("vols/left", locks=[own])  # librbd breaks it, as nobody watches
    assert verify(rig, name="vols/left").opened == ()
    with pytest.raises(Failed, match=r"is locked by 10.0.0.7:0/1180763356 \(client.1\)"):
        verify(rig, name="vols/kept")


def test_a_snapshot_is_read_and_asked_nothing_else(rig: RbdRig) -> None:
    rig.cluster.image("vols/snapped", snapshots=["s1"], watchers=[STRANGER])
    disk = verify(rig, name="vols/snapped@s1")
    assert (disk.readonly, disk.opened) == (True, ())
    assert not verify(rig).readonly


def test_a_clone_is_an_image(rig: RbdRig) -> None:
    rig.cluster.image("vols/c1", parent={"pool": "vols", "image": "v1", "snapshot": "s1"})
    assert verify(rig, name="vols/c1").name == "vols/c1"


def test_a_cluster_that_asks_for_no_key(rig: RbdRig) -> None:
    rig.cluster.keyless = True
    rig.cluster.save()
    assert verify(rig, auth_enabled=False).login is None


def test_a_cluster_that_hangs_or_is_away_is_uncertain_in_time(rig: RbdRig) -> None:
    hasty = Rbd(Linux(), deadline=0.5)
    rig.cluster.hang()
    for known in (rig.good, connection(hosts=["127.0.0.9"])):
        with pytest.raises(Uncertain, match="did not answer within"):
            hasty.verify(hasty.parse(known))
        assert isinstance(look(rig, known), Linked), "nothing is asked for a look"
        rig.cluster.hang(False)
    verify(rig)


@pytest.mark.parametrize(
    ("said", "family"),
    [
        ("rbd exited 22: unable to parse addrs in 'nohost.invalid:6789'", Failed),
        ("rbd exited 110: rbd: couldn't connect to the cluster!", Failed),
        ("there is no command rbd", Failed),
        ("rbd exited 130: x", Failed),
        ("rbd exited 1: rbd: unrecognised option", Failed),
        ("rbd exited 1: rbd: error opening image x: (1) Operation not permitted", Refused),
        ("rbd exited 2: monclient: get_monmap_and_config cannot identify monitors", Failed),
        ("rbd exited 2: rbd: error opening pool 'p': (2) No such file or directory", Refused),
        ("rbd exited 2: error setting snapshot context: (2) No such file", Refused),
        ("rbd exited 13: rbd: couldn't connect to the cluster!", Refused),
    ],
)
def test_what_is_not_known_to_last_is_asked_again(said: str, family: type[MoorlineError]) -> None:
    def fail(host: ToyHost, command: Command) -> Output:
        raise Failed(said)

    backend = Rbd(ToyHost({"rbd": fail}))
    with pytest.raises(family):
        backend.verify(backend.parse(connection()))


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("info", "no JSON"),
        ("info", "[]"),
        ("info", '{"name":"v1"}'),
        ("info", '{"size":"all"}'),
        ("status", "{}"),
        ("status", '{"watchers":[{}]}'),
        ("status", "null"),
        ("lock", '[{"id":7}]'),
        ("lock", "7"),
    ],
)
def test_what_is_not_understood_is_not_taken_for_nothing(asked: str, answer: str) -> None:
    def odd(host: ToyHost, command: Command) -> Output:
        known = {"info": '{"size":1048576}', "status": '{"watchers":[]}', "lock": "[]"}
        (verb,) = known.keys() & set(command.argv)
        return Output(answer if verb == asked else known[verb], "")

    backend = Rbd(ToyHost({"rbd": odd}))
    with pytest.raises(Failed):
        backend.verify(backend.parse(connection()))


def test_others_than_root_use_the_keys_of_the_host_only_where_they_may(rig: RbdRig) -> None:
    def demand(**more: Any) -> None:
        rig.backend.demand_for_others(rig.backend.parse(connection(**more)))

    demand(keyring=None)
    demand(auth_username="admin", keyring=None, auth_key=KEY)
    demand(auth_enabled=False)
    with pytest.raises(Denied):
        demand(auth_username="admin", keyring=None)


def test_a_key_that_the_host_has_not_is_told_by_its_file(rig: RbdRig, tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"ceph.client.nova.keyring: No such file"):
        verify(rig, auth_username="nova", keyring=None)
    file = tmp_path / "ceph.client.nova.keyring"
    for text in ("", "hunter2", KEYRING, "[client.nova]\n\tkey = hunter2"):
        file.write_text(text)
        with pytest.raises(Refused, match="has no key of the user") as refused:
            verify(rig, auth_username="nova", keyring=None)
        assert "hunter2" not in str(refused.value)
        assert KEY not in str(refused.value)


def test_without_the_command_it_is_said_which_is_missing(
    monkeypatch: pytest.MonkeyPatch, rig: RbdRig
) -> None:
    assert rig.backend.diagnose() == []
    monkeypatch.setenv("PATH", "/nowhere")
    (finding,) = rig.backend.diagnose()
    assert finding.check == "missing-client"
    with pytest.raises(Failed, match="no command rbd"):
        verify(rig)


@pytest.mark.parametrize("values", [{"rbd_user": "a b"}, {"rbd_keyrings": "etc"}])
def test_options_that_are_odd_are_refused(values: dict[str, str]) -> None:
    make: Callable[..., Rbd] = Rbd.from_options
    with pytest.raises(Refused):
        make(ToyHost(), {"rbd_user": "", "rbd_keyrings": "/etc/ceph", **values})
