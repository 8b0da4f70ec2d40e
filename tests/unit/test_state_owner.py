"""Whose a state is: no attachment vanishes because the host has another name, address or house."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from moorline import config
from moorline.cli.commands import main
from moorline.core.records import Records
from moorline.core.state_owner import Identity, Owner
from moorline.errors import Refused
from moorline.host.machine_id import machine_id_digest
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from moorline.ports import Put
from moorline.ports.results import Trouble
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.faults import Fault, Faults, Killed
from moorline.testing.toys import MemoryStore

CODEC = Codec(Secret(b"k" * 32))
HERE = Identity("h1", "m1", "qemu:///system")
CONNECTION: Mapping[str, Any] = {"driver_volume_type": "toy", "data": {"password": "p"}}


def owner(store: MemoryStore) -> Owner:
    return Owner(store, CODEC)


def attachment(store: MemoryStore, host: str, *volumes: str) -> None:
    records = Records(store, CODEC, host)
    for volume in volumes:
        key = Key(host, VolumeId(volume), GuestId("g"))
        row = records.put(
            Attachment(key, "toy", Secret(CONNECTION), LinkName("/l"), "p", Level.ATTACHED)
        )
        records.note(row, Trouble("", "Failed", "why", 1.0))


def test_it_is_recorded_by_an_owner_alone_and_then_kept() -> None:
    store = MemoryStore()
    owner(store).check(HERE, own=False)
    assert owner(store).recorded() is None
    owner(store).check(HERE, own=True)
    assert owner(store).recorded() == HERE
    owner(store).check(HERE, own=False)


@pytest.mark.parametrize(
    ("field", "value", "way_out"),
    [
        ("host", "h2", "moorline state rename h2"),
        ("machine", "m2", "moorline state rebind"),
        ("hypervisor", "qemu:///session", "moorline state rebind"),
        ("hypervisor", "powervm://", "moorline state rebind"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_anything_else_is_refused_and_the_way_out_is_told(
    field: str, value: str, way_out: str, own: bool
) -> None:
    store = MemoryStore()
    owner(store).check(HERE, own=True)
    with pytest.raises(Refused, match=way_out):
        owner(store).check(replace(HERE, **{field: value}), own=own)
    assert owner(store).recorded() == HERE


def test_a_machine_without_an_id_is_bound_when_it_has_one() -> None:
    store = MemoryStore()
    owner(store).check(replace(HERE, machine=""), own=True)
    owner(store).check(HERE, own=True)
    owner(store).check(replace(HERE, machine=""), own=True)
    assert owner(store).recorded() == HERE, "not to know it is not to forget it"


def test_a_state_of_before_is_taken_once_unless_it_is_another_hosts() -> None:
    store = MemoryStore()
    attachment(store, "h1", "v")
    with pytest.raises(Refused, match="belongs to host h1, not h2"):
        owner(store).check(replace(HERE, host="h2"), own=True)
    assert owner(store).host() == "h1", "also where the file with the name was lost"
    owner(store).check(HERE, own=True)
    assert owner(store).recorded() == HERE


def test_renamed_everything_is_there_under_the_new_name_and_opens() -> None:
    store = MemoryStore()
    attachment(store, "h1", *(f"v{n}" for n in range(99)))
    store.commit([], [Put("/moorline/slots/h1/g/v1", b"slot")])
    owner(store).check(HERE, own=True)
    dry = owner(store).rename("h 2".replace(" ", "/"), HERE, dry_run=True)
    assert (dry.steps, dry.attachments, owner(store).recorded()) == (["rename"], 99, HERE)
    assert owner(store).rename("h/2", HERE, dry_run=False).steps == ["rename"]
    records = Records(store, CODEC, "h/2")
    rows = records.all()
    assert len(rows) == 99
    assert {row.key.host for row in rows} == {"h/2"}
    assert rows[0].connection.reveal() == CONNECTION
    assert len(records.troubles()) == 99
    assert store.get("/moorline/slots/h%2F2/g/v1")
    assert Records(store, CODEC, "h1").all() == []
    now = replace(HERE, host="h/2")
    owner(store).check(now, own=True)
    assert owner(store).rename("h/2", now, dry_run=False).steps == []


def test_a_rename_that_is_killed_anywhere_is_gone_on_with() -> None:
    for kill in range(4):
        faults = Faults()
        store = MemoryStore(faults)
        attachment(store, "h1", *(f"v{n}" for n in range(35)))
        owner(store).check(HERE, own=True)
        faults.plan((kill, Fault.KILL_AFTER))
        with pytest.raises(Killed):
            owner(store).rename("h2", HERE, dry_run=False)
        both = [len(Records(store, CODEC, host).all()) for host in ("h1", "h2")]
        assert sum(both) == 35
        if kill < 3:
            with pytest.raises(Refused, match="moorline state rename h2"):
                owner(store).check(HERE, own=True)
        owner(store).rename("h2", HERE, dry_run=False)
        assert len(Records(store, CODEC, "h2").all()) == 35
        owner(store).check(replace(HERE, host="h2"), own=True)


def test_a_rename_loses_nothing_whichever_commit_it_is_killed_at() -> None:
    """Attachments, troubles, what was released, the slots of disks: all of it, once."""
    for fault in (Fault.KILL_BEFORE, Fault.KILL_AFTER):
        kill = 0
        while True:
            faults = Faults()
            store = MemoryStore(faults)
            attachment(store, "h1", *(f"v{n}" for n in range(45)))
            puts = [Put(f"/moorline/released/h1/g/w{n}", b"path") for n in range(9)]
            store.commit([], [*puts, Put("/moorline/slots/h1/g/v1", b"slot")])
            owner(store).check(HERE, own=True)
            before = kept(store)
            faults.plan((kill, fault))
            try:
                owner(store).rename("h2", HERE, dry_run=False)
            except Killed:
                assert kept(store) == before
                owner(store).rename("h2", HERE, dry_run=False)
            else:
                assert kill >= 4, "that many commits there are at least"
                break
            assert kept(store) == before
            assert store.list("/moorline/released/h1/")[0] == []
            assert len(store.list("/moorline/released/h2/")[0]) == 9
            assert len(Records(store, CODEC, "h2").all()) == 45
            owner(store).check(replace(HERE, host="h2"), own=True)
            kill += 1


def kept(store: MemoryStore) -> list[str]:
    """The keys of all records, without their host's name."""
    found = [entry.key.split("/") for entry in store.list("/moorline/")[0]]
    return sorted("/".join(key[:3] + key[4:]) for key in found if len(key) > 3)


def test_what_was_released_is_found_under_the_new_name() -> None:
    store = MemoryStore()
    attachment(store, "h1", "v1")
    records = Records(store, CODEC, "h1")
    (row,) = records.all()
    records.release(row, "/srv/disk.raw")
    assert records.released() == {("g", "v1"): "/srv/disk.raw"}
    owner(store).check(HERE, own=True)
    owner(store).rename("h2", HERE, dry_run=False)
    assert Records(store, CODEC, "h2").released() == {("g", "v1"): "/srv/disk.raw"}
    assert records.released() == {}


def test_another_hypervisor_at_the_same_place_is_refused() -> None:
    store = MemoryStore()
    owner(store).check(HERE, own=True)
    owner(store).on_identity("one", own=False)
    assert owner(store).recorded() == HERE, "a look records nothing"
    owner(store).on_identity("", own=True)
    owner(store).on_identity("one", own=True)
    met = replace(HERE, uuid="one")
    assert owner(store).recorded() == met
    owner(store).check(HERE, own=True)
    assert owner(store).recorded() == met, "it is not met yet when a state is opened"
    owner(store).on_identity("one", own=False)
    for own in (True, False):
        with pytest.raises(Refused, match="moorline state rebind"):
            owner(store).on_identity("two", own=own)
    assert owner(store).tell(HERE).steps == []
    owner(store).rename("h2", HERE, dry_run=False)
    assert owner(store).recorded() == replace(met, host="h2")
    assert owner(store).rebind(HERE, dry_run=False).steps == ["rebind"]
    owner(store).on_identity("two", own=True)
    assert owner(store).recorded() == replace(met, host="h2", uuid="two")


def test_hosts_are_not_mixed() -> None:
    store = MemoryStore()
    attachment(store, "h1", "v")
    attachment(store, "h2", "w")
    with pytest.raises(Refused, match="which are to be kept"):
        owner(store).rename("h2", HERE, dry_run=False)
    with pytest.raises(Refused, match="no name"):
        owner(store).rename("", HERE, dry_run=False)


def test_rebound_it_belongs_to_what_is_here() -> None:
    store = MemoryStore()
    owner(store).check(HERE, own=True)
    moved = replace(HERE, machine="m2", hypervisor="qemu:///session")
    assert owner(store).rebind(moved, dry_run=True).steps == ["rebind"]
    assert owner(store).recorded() == HERE
    assert owner(store).rebind(moved, dry_run=False).steps == ["rebind"]
    owner(store).check(moved, own=False)
    assert owner(store).rebind(moved, dry_run=False).steps == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("qemu:///system", "qemu+unix:///system?socket=/run/x", True),
        ("qemu:///system", "qemu:///session", False),
        ("qemu:///embed?root=/a", "qemu:///embed?root=/b", False),
        ("powervm:///", "powervm://", True),
        ("vsphere://root:secret@vc1", "vsphere://VC1:443", True),
        ("vsphere://vc1", "vsphere://vc2", False),
    ],
)
def test_a_hypervisor_is_the_same_however_it_is_reached(one: str, other: str, same: bool) -> None:
    told = [config.hypervisor_of(config.Settings(Path(), "", uri, {})) for uri in (one, other)]
    assert (told[0] == told[1]) is same
    assert "secret" not in told[0]


def test_a_machine_is_known_by_a_digest_of_its_id(tmp_path: Path) -> None:
    file = tmp_path / "machine-id"
    assert machine_id_digest(file) == ""
    file.write_text("uninitialized\n")
    assert machine_id_digest(file) == ""
    file.write_text("0123456789abcdef0123456789abcdef\n")
    known = machine_id_digest(file)
    assert known == machine_id_digest(file)
    assert "0123456789abcdef" not in known


# --- the commands


class Host:
    """A state directory, and commands that are given it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.uri = f"test://{directory}/node.xml"
        domain = (
            "<domain type='test'><name>test</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>"
            "<memory>8192</memory><os><type>hvm</type></os></domain>"
        )
        (directory / "node.xml").write_text(f"<node>{domain}</node>")
        self.state = directory / "state"

    def __call__(self, *words: str, host: str = "", uri: str = "") -> tuple[int, str]:
        conf = self.directory / f"{host}.conf"
        conf.write_text(f"[DEFAULT]\nhost = {host}\n" if host else "")
        options = ["--state-dir", str(self.state), "-c", uri or self.uri]
        done = CliRunner().invoke(main, [*words, *options, "--config-file", str(conf)])
        return done.exit_code, done.output


@pytest.fixture
def host(tmp_path: Path) -> Host:
    pytest.importorskip("libvirt")
    return Host(tmp_path)


def attach(host: Host) -> None:
    image = host.directory / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    code, told = host("attach", "test", str(image), "--format", "raw", "--level", "connected")
    assert code == 0, told


def volumes(host: Host, name: str = "") -> int:
    code, told = host("list", "--output", "json", host=name)
    assert code == 0, told
    return len(json.loads(told))


def test_under_another_name_no_command_says_that_nothing_is_wanted(host: Host) -> None:
    attach(host)
    assert volumes(host) == 1
    for words in (["list"], ["sweep"], ["doctor"], ["detach", "test", "x"], ["repair"]):
        code, told = host(*words, host="other")
        assert (code, "moorline state rename other" in told) == (3, True), told
    code, told = host("state", "rename", "other", "--dry-run", "--output", "json")
    assert (code, json.loads(told)["steps"], volumes(host)) == (0, ["rename"], 1)
    assert host("state", "rename", "other")[0] == 0
    assert (volumes(host, "other"), volumes(host)) == (1, 1), "the name is remembered, too"


def test_with_another_hypervisor_no_command_is_taken(host: Host) -> None:
    attach(host)
    for uri in ("test:///default", "qemu:///session", "powervm:///", "vsphere://vc1"):
        code, told = host("list", uri=uri)
        assert (code, "belongs to the hypervisor" in told) == (3, True), told
    shown = json.loads(host("state", "show", "-o", "json", uri="test:///default")[1])
    assert (shown["recorded"]["hypervisor"], shown["steps"]) == (host.uri, ["rebind"])
    assert host("state", "rebind", uri="test:///default")[0] == 0
    assert host("list", uri="test:///default")[0] == 0


def test_a_name_that_was_lost_is_found_again(host: Host) -> None:
    attach(host)
    name = (host.state / "host").read_text()
    (host.state / "host").write_text("another\n")
    assert volumes(host) == 1
    (host.state / "host").unlink()
    assert (volumes(host), (host.state / "host").exists()) == (1, False), "a look writes nothing"
    assert host("sweep")[0] == 0
    assert (host.state / "host").read_text() == name


def test_of_no_state_nothing_is_told_and_none_is_made(host: Host) -> None:
    assert host("state", "rename", "h2")[0] == 3
    assert not host.state.exists()


def test_what_is_gone_is_forgotten_wherever_the_options_put_it_now(host: Host) -> None:
    """Also where they say no longer that there is such a place at all."""
    base, conf = host.directory / "old", host.directory / "base.conf"

    def options(at: Path) -> None:
        conf.write_text(f"[libvirt]\ngpfs_mount_point_base = {at}\n")

    def run(*words: str) -> tuple[int, str]:
        given = ["--state-dir", str(host.state), "-c", host.uri, "--config-file", str(conf)]
        done = CliRunner().invoke(main, [*words, *given])
        return done.exit_code, done.output

    options(base)
    url = f"gpfs://{base}/disk.raw"
    words = ("attach", "test", url, "--format", "raw", "--volume", "v1", "--level", "connected")
    assert run(*words, "--timeout", "0")[0] in (5, 6)
    options(host.directory / "new")
    assert run("detach", "test", "v1")[0] == 3
    code, told = run("forget", "v1")
    assert code == 0, told
    assert json.loads(run("list", "-o", "json")[1]) == []
