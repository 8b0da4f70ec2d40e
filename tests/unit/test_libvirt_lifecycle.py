"""libvirt's guests themselves, on libvirt's own test driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moorline.errors import Failed, NotFound, NotOurs, Refused
from moorline.hypervisors.libvirt.connection import Connection
from moorline.hypervisors.libvirt.launch_options import Hardware
from moorline.hypervisors.libvirt.lifecycle import LibvirtLifecycle, twins
from moorline.model import GuestId

libvirt = pytest.importorskip("libvirt")

GOLDEN = Hardware(
    template=(
        "<domain type='test'><name>golden</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        "<os><type>hvm</type></os></domain>"
    )
)
THEIRS = GuestId("6695eb01-f6a4-8304-79aa-97f2502e193f")
NODE = f"""
<node><domain type='test'><name>test</name><uuid>{THEIRS}</uuid><memory>65536</memory>
<os><type>hvm</type></os></domain></node>
"""


class Seen(LibvirtLifecycle):
    """Also tells a guest's id by its name, which is the hypervisor's part elsewhere."""

    def id(self, name: str) -> GuestId:
        found = self._connection.look(name, lambda virt: virt.lookupByName(name).UUIDString())
        return GuestId(found)


@pytest.fixture
def lifecycle(tmp_path: Path) -> Iterator[Seen]:
    node = tmp_path / "node.xml"  # unlike that of test:///default, it ends with its connection
    node.write_text(NODE)
    connection = Connection(f"test://{node}", 60)
    yield Seen(connection)
    connection.close()


def test_defined_started_stopped_each_twice(lifecycle: Seen) -> None:
    for _ in range(2):
        lifecycle.define("web01", GOLDEN)
        id = lifecycle.id("web01")
    seen = lifecycle.look(id)
    assert (seen.guest.name, seen.launched) == ("web01", True)
    assert (seen.running, seen.saved) == (False, False)
    for _ in range(2):
        lifecycle.start(id)
        assert lifecycle.look(id).running
    for _ in range(2):
        lifecycle.stop(id, force=True)
        assert not lifecycle.look(id).running


def test_a_guest_that_is_gone(lifecycle: Seen) -> None:
    gone = GuestId("7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f")
    for ask in (lifecycle.look, lifecycle.start):
        with pytest.raises(NotFound):
            ask(gone)
    lifecycle.stop(gone, force=False)
    lifecycle.remove(gone)


def test_a_guest_that_runs_is_not_removed(lifecycle: Seen) -> None:
    with pytest.raises(Failed, match="runs again"):
        lifecycle.remove(THEIRS)


def test_two_of_one_template_are_two(lifecycle: Seen) -> None:
    lifecycle.define("web01", GOLDEN)
    lifecycle.define("web02", GOLDEN)
    assert lifecycle.id("web01") != lifecycle.id("web02")


MAC = "52:54:00:AB:cd:01"


def with_card(mac: str) -> Hardware:
    card = f"<interface type='user'>{mac}</interface>"
    xml = GOLDEN.template.replace("</os>", f"</os><devices>{card}</devices>")
    return Hardware(template=(xml))


def test_two_guests_do_not_get_one_mac_address(lifecycle: Seen) -> None:
    golden = with_card(f"<mac address='{MAC}'/>")
    lifecycle.define("web01", golden)
    for ask in (lifecycle.check, lifecycle.define):
        ask("web01", golden)  # it is its own
        with pytest.raises(Refused, match="52:54:00:ab:cd:01, which web01 has"):
            ask("web02", golden)
    with pytest.raises(NotFound):
        lifecycle.id("web02")
    for name in ("web02", "web03"):
        lifecycle.define(name, with_card(""))


@dataclass
class Unread:
    """libvirt's connection, one of whose guests cannot be read."""

    virt: Any
    why: Callable[[], str]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.virt, name)

    def listAllDomains(self, flags: int = 0) -> list[Any]:
        return [Unread(each, self.why) for each in self.virt.listAllDomains(flags)]

    def XMLDesc(self, flags: int = 0) -> str:
        return self.why() if self.virt.name() == "broken" else str(self.virt.XMLDesc(flags))


def not_printed() -> str:
    raise libvirt.libvirtError("it is so")


@pytest.mark.parametrize("why", [not_printed, lambda: "<domain"])
def test_a_guest_that_cannot_be_read_keeps_none_from_being_made(
    lifecycle: Seen, why: Callable[[], str]
) -> None:
    lifecycle.define("web01", with_card(f"<mac address='{MAC}'/>"))
    lifecycle.define("broken", GOLDEN)
    macs = frozenset({MAC.lower()})
    found = lifecycle._connection.look("guests", lambda v: twins(Unread(v, why), "x", macs))
    assert found == [(MAC.lower(), "web01")]


def test_of_two_at_once_one_gets_the_mac_address(lifecycle: Seen) -> None:
    golden = with_card(f"<mac address='{MAC}'/>")

    def define(name: str) -> bool:
        try:
            lifecycle.define(name, golden)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(define, ["web01", "web02", "web03", "web04"])) == 1


def test_what_is_there_is_not_changed(lifecycle: Seen) -> None:
    with pytest.raises(NotOurs):
        lifecycle.define("test", GOLDEN)
    assert not lifecycle.look(THEIRS).launched
    lifecycle.define("web01", GOLDEN)
    for asked in (Hardware(memory=128, template=GOLDEN.template), Hardware(vcpus=2)):
        with pytest.raises(Refused, match="is there already, and has"):
            lifecycle.define("web01", asked)
        with pytest.raises(Refused, match="is there already, and has"):
            lifecycle.check("web01", asked)
    lifecycle.check("web01", Hardware(memory=64, vcpus=1, template=GOLDEN.template))


def test_checking_defines_nothing(lifecycle: Seen) -> None:
    lifecycle.check("web01", GOLDEN)
    with pytest.raises(NotFound):
        lifecycle.id("web01")


def test_saved_memory_is_dropped_by_force_alone(lifecycle: Seen) -> None:
    lifecycle.define("web01", GOLDEN)
    id = lifecycle.id("web01")
    lifecycle.start(id)
    lifecycle._connection.change("web01", lambda virt: virt.lookupByUUIDString(id).managedSave())
    assert lifecycle.look(id).saved
    with pytest.raises(Refused, match="would be lost"):
        lifecycle.stop(id, force=False)
    lifecycle.stop(id, force=True)
    assert not lifecycle.look(id).saved
