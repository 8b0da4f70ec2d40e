"""A survey of libvirt's domains: what it asks, and what it need not read again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

libvirt = pytest.importorskip("libvirt")

from moorline.errors import Unavailable  # noqa: E402
from moorline.hypervisors.libvirt.survey import GuestSurvey, located, look  # noqa: E402

DISK = (
    "<disk><alias name='ua-{0}'/><serial>{0}</serial><source file='/mnt/{0}'/>"
    "<target dev='vda' bus='virtio'/></disk>"
)


def xml(name: str, *volumes: str, id: str = "") -> str:
    disks = "".join(DISK.format(volume) for volume in volumes)
    mark = f" id='{id}'" if id else ""
    return f"<domain type='qemu'{mark}><name>{name}</name><devices>{disks}</devices></domain>"


def error(code: int) -> Exception:
    found = libvirt.libvirtError("it is so")
    found.err = (code, 0, "it is so", 0, "", "", "", 0, 0)
    return found


@dataclass(eq=False)
class Virt:
    """A domain, and the questions that it was asked."""

    uuid: str
    now: str
    defined: str = ""
    saved: str = ""
    fails: int = 0
    broken: int = 0
    """The error that its saved state is read with."""
    connected: bool = True
    listed: int = 0
    """Its id when it was listed; 0: as it is now."""
    condition: tuple[int, int] = (1, 1)
    """As libvirt tells it: 3, 5 is paused by an I/O error."""
    asked: list[str] = field(default_factory=list)

    def name(self) -> str:
        return f"name-{self.uuid}"

    @property
    def id(self) -> bool:
        return " id=" in self.now

    def ID(self) -> int:
        return self.listed or (7 if self.id else -1)

    def connect(self) -> Virt:
        return self

    def isAlive(self) -> bool:
        return self.connected

    def UUIDString(self) -> str:
        return self.uuid

    def XMLDesc(self, flags: int = 0) -> str:
        self.asked.append(f"xml {flags}")
        if self.fails:
            raise error(self.fails)
        return self.defined if flags else self.now

    def state(self) -> list[int]:
        return list(self.condition)

    def isPersistent(self) -> bool:
        self.asked.append("persistent?")
        return bool(self.defined)

    def hasManagedSaveImage(self) -> bool:
        self.asked.append("saved?")
        return bool(self.saved)

    def managedSaveGetXMLDesc(self) -> str:
        if self.broken:
            raise error(self.broken)
        return self.saved


@dataclass
class Pool:
    text: str

    def XMLDesc(self) -> str:
        return self.text


@dataclass
class Host:
    domains: list[Virt]
    pools: dict[str, str] = field(default_factory=dict)
    lists: list[int] = field(default_factory=list)

    def isAlive(self) -> bool:
        return True

    def storagePoolLookupByName(self, name: str) -> Pool:
        if name not in self.pools:
            raise error(libvirt.VIR_ERR_NO_STORAGE_POOL)
        return Pool(self.pools[name])

    def listAllDomains(self, flags: int = 0) -> list[Virt]:
        chosen = {
            libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE: lambda each: each.saved,
            libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED: lambda each: each.state()[0] == 3,
            libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT: lambda each: each.defined or not each.id,
        }
        self.lists.append(flags)
        return [each for each in self.domains if not flags or chosen[flags](each)]


def test_a_stopped_guest_is_one_question() -> None:
    one = Virt("1", xml("one", "v"))
    (guest,) = GuestSurvey().guests(Host([one]))
    assert (guest.name, guest.running, set(guest.disks)) == ("one", False, {"v"})
    assert one.asked == ["xml 0"]


def test_what_is_printed_as_before_is_not_read_again() -> None:
    one, survey = Virt("1", xml("one", "v")), GuestSurvey()
    host = Host([one])
    (first,) = survey.guests(host)
    assert survey.guests(host)[0] is first
    one.now = xml("one", "w")
    (second,) = survey.guests(host)
    assert set(second.disks) == {"w"}


def test_who_is_persistent_is_one_question_for_all_that_run() -> None:
    kept = Virt("1", xml("kept", "live", id="7"), defined=xml("kept", "config"))
    transient = Virt("2", xml("transient", "v", id="8"))
    one, two = GuestSurvey().guests(Host([kept, transient]))
    assert (one.paths, two.paths) == ({"/mnt/live", "/mnt/config"}, {"/mnt/v"})
    assert (kept.asked, transient.asked) == (["xml 0", "xml 2"], ["xml 0"])


def test_where_all_run_nobody_is_asked_who_is_saved() -> None:
    host = Host([Virt("1", xml("runs", "v", id="7"))])
    GuestSurvey().guests(host)
    paused = libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED
    assert host.lists == [0, libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT, paused]


def test_who_was_saved_since_all_were_seen_to_run_has_its_disks() -> None:
    saved = Virt("1", xml("saved"), saved=xml("saved", "kept"), listed=7)
    (guest,) = GuestSurvey().guests(Host([saved]))
    assert (guest.running, guest.paths) == (False, {"/mnt/kept"})


def test_both_halves_of_a_running_guest_and_a_saved_state_count() -> None:
    runs = Virt("1", xml("runs", "live", id="7"), defined=xml("runs", "config"))
    saved = Virt("2", xml("saved"), saved=xml("saved", "kept"))
    one, two = GuestSurvey().guests(Host([runs, saved]))
    assert (one.running, one.paths) == (True, {"/mnt/live", "/mnt/config"})
    assert (two.running, two.paths) == (False, {"/mnt/kept"})
    assert look(saved).disks().keys() == {"kept"}


def test_what_runs_has_open_what_it_names_and_not_what_its_definition_does() -> None:
    image = "<disk type='network'><source protocol='rbd' name='vols/{}'/><target dev='vdb'/></disk>"

    def of(image_name: str, id: str = "") -> str:
        disk = image.format(image_name) + DISK.format("file")
        return xml("g", id=id).replace("<devices>", f"<devices>{disk}")

    runs = Virt("1", of("live", "7"), defined=of("config"))
    stopped = Virt("2", of("config"))
    one, two = GuestSurvey().guests(Host([runs, stopped]))
    assert (one.opened, two.opened) == ({"rbd:vols/live"}, frozenset())


def test_a_guest_that_is_gone_meanwhile_is_left_out_and_nothing_else_is() -> None:
    gone = Virt("1", "", fails=libvirt.VIR_ERR_NO_DOMAIN)
    there = Virt("2", xml("there"))
    assert [guest.name for guest in GuestSurvey().guests(Host([gone, there]))] == ["there"]


def test_a_guest_whose_definition_cannot_be_read_hides_no_other() -> None:
    """Whatever keeps it from being read: it may have any disk, and the others are seen."""
    broken = Virt(
        "1", xml("broken"), saved="(not printed)", broken=libvirt.VIR_ERR_OPERATION_FAILED
    )
    broken.now = xml("broken", "v")
    no_xml = Virt("2", "", fails=libvirt.VIR_ERR_INTERNAL_ERROR)
    no_words = Virt("3", "<domain id='7'><name>\x02</name></domain>", defined=xml("no_words"))
    torn = Virt("4", xml("torn"), saved="<domain>")
    there = Virt("5", xml("there", "w"))
    found = GuestSurvey().guests(Host([broken, no_xml, no_words, torn, there]))
    by_id = {guest.id: guest for guest in found}
    assert by_id["5"].unreadable == ""
    assert by_id["5"].disks.keys() == {"w"}
    for id in "1234":
        assert by_id[id].unreadable
        assert by_id[id].disks == {}
        with pytest.raises(Unavailable, match=f"name-{id} cannot be read"):
            look(next(each for each in (broken, no_xml, no_words, torn) if each.uuid == id))
    assert [by_id[id].remedy for id in "1234"] == [
        "virsh managedsave-remove name-1",
        "virsh dumpxml name-2",
        "virsh dumpxml name-3",
        "virsh managedsave-remove name-4",
    ]
    assert [by_id[id].running for id in "1234"] == [False, True, True, False]
    assert by_id["1"].paths == {"/mnt/v"}, "what is known of it still counts"


def test_a_connection_that_breaks_is_no_guest_that_cannot_be_read() -> None:
    lost = Virt("1", "", fails=libvirt.VIR_ERR_RPC, connected=False)
    for asks in (lambda: GuestSurvey().guests(Host([lost])), lambda: look(lost)):
        with pytest.raises(libvirt.libvirtError):
            asks()


def of_disk(disk: str) -> Virt:
    return Virt("1", f"<domain><name>one</name><devices>{disk}</devices></domain>")


def test_a_volume_of_a_storage_pool_is_the_file_that_it_is() -> None:
    one = of_disk("<disk type='volume'><source pool='p' volume='v.raw'/><target dev='vda'/></disk>")
    pools = {"p": "<pool type='dir'><target><path>/mnt/share</path></target></pool>"}
    survey, host = GuestSurvey(), Host([one], pools)
    for _ in range(2):  # also where the definition was read before
        (guest,) = survey.guests(host)
        assert (guest.paths, guest.unresolved) == ({"/mnt/share/v.raw"}, "")
    pools.clear()
    (guest,) = survey.guests(host)
    assert guest.unresolved == "volume v.raw of storage pool p"
    pools["p"] = "<pool type='rbd'/>"
    assert survey.guests(host)[0].unresolved == ""


@pytest.mark.parametrize(
    "disk",
    [
        "<disk type='vhostuser'><source type='unix' path='/s'/><target dev='vda'/></disk>",
        "<disk type='file'><source file='share/v.raw'/><target dev='vda'/></disk>",
        "<disk type='file'><source file='/x'/><backingStore type='new'/><target dev='vda'/></disk>",
        "<filesystem type='mount'><source dir='share'/><target dir='tag'/></filesystem>",
    ],
)
def test_what_names_no_path_may_be_anywhere(disk: str) -> None:
    (guest,) = GuestSurvey().guests(Host([of_disk(disk)]))
    assert guest.unresolved.endswith((" as vda", " as tag"))


@pytest.mark.parametrize(
    "disk",
    [
        "<disk type='network'><source protocol='rbd' name='p/v'/><target dev='vda'/></disk>",
        "<disk type='file' device='cdrom'><target dev='sda'/></disk>",
        "<disk type='block'><source dev='/dev/sdb'/><target dev='vda'/></disk>",
        "<interface type='direct'><source dev='eth0' mode='bridge'/></interface>",
    ],
)
def test_what_is_no_file_of_this_host_leaves_nothing_unresolved(disk: str) -> None:
    (guest,) = GuestSurvey().guests(Host([of_disk(disk)]))
    assert guest.unresolved == ""


def test_where_paths_lead_counts_but_for_what_we_plugged() -> None:
    one = Virt("1", xml("one", "v"))
    two = of_disk("<disk><source file='/a'/></disk><disk><source file='/b'/></disk>")
    two.uuid = "2"
    asked = []

    def places(paths: Iterable[str]) -> dict[str, frozenset[str] | None]:
        asked.extend(paths)
        return {"/a": frozenset({"/mnt/a"}), "/b": None}

    first, second = located(GuestSurvey().guests(Host([one, two])), places)
    assert first.paths == {"/mnt/v"}
    assert (second.paths, second.unresolved) == ({"/a", "/b", "/mnt/a"}, "/b")
    assert sorted(asked) == ["/a", "/b"]


def test_who_is_paused_by_an_error_is_told_and_no_qemu_is_asked() -> None:
    conditions = {"1": (3, 5), "2": (3, 1), "3": (1, 1)}
    domains = [Virt(id, xml(id, "v", id=id), condition=so) for id, so in conditions.items()]
    guests = GuestSurvey().guests(Host(domains))
    assert [guest.name for guest in guests if guest.paused_by_error] == ["1"]
    silent = GuestSurvey().guests(Host(domains), frozenset({"1"}))
    assert not any(guest.paused_by_error for guest in silent), "a call about it hangs"
