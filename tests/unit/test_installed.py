"""What is installed is found by entry points, also what others installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline import installed
from moorline.errors import Refused
from moorline.testing.toy_host import ToyHost

ENTRIES = """\
[moorline.backends]
broken = there_is_no_such_module:Backend
[moorline.hypervisors]
broken = there_is_no_such_module:Driver
toy = toy_hypervisor:ToyDriver
"""
TOY = """\
from moorline.ports import Option


class ToyDriver:
    uris = "toy:///NAME"
    options = (Option("toy_mood", "merry", "How it feels.", group="toy"),)

    @staticmethod
    def open(uri, context):
        return (uri, context)
"""


@pytest.fixture
def somebodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's package with a hypervisor of its own, and one that lacks its library."""
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "toy_hypervisor.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("somebodys")
def test_a_hypervisor_of_others_is_one_file_and_one_line() -> None:
    assert installed.driver("toy:///web01").uris == "toy:///NAME"
    assert "toy:///NAME" in installed.known_uris()
    assert "toy_mood" in [option.name for option in installed.options()]


@pytest.mark.usefixtures("somebodys")
def test_what_lacks_its_library_is_refused_when_it_is_asked_for_and_only_then() -> None:
    backends = installed.InstalledBackends(ToyHost({}), {})
    assert "broken" in backends
    with pytest.raises(Refused, match="there_is_no_such_module"):
        backends["broken"]
    with pytest.raises(Refused, match="there_is_no_such_module"):
        installed.driver("broken:///")
    assert "local" in backends


@pytest.mark.parametrize("uri", ["", "web01", "esx://user:secret@host/", "QEMU:///system"])
def test_a_uri_that_nobody_knows_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(Refused) as refused:
        installed.driver(uri)
    assert "secret" not in f"{refused.value} {refused.value.hint}"
    assert "qemu:///system" in str(refused.value.hint)


@pytest.mark.parametrize(
    "uri", ["qemu:///session", "test:///default", "qemu+unix:///system?socket=/run/x"]
)
def test_a_transport_of_libvirts_is_libvirt(uri: str) -> None:
    assert installed.driver(uri).uris.startswith("qemu:///system")
