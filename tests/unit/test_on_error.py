"""What an I/O error of a disk does, where the configuration says it of a back end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moorline import installed, wiring
from moorline.config_check import misconfigured
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Refused
from moorline.model import DiskOptions, GuestId, Key, Level, VolumeId
from moorline.ports import StorageBackend
from moorline.testing.toy_host import ToyHost
from moorline.testing.toys import ToyHypervisor, ToyShare
from tests.support.rig import Rig


def backends(said: str) -> installed.InstalledBackends:
    return installed.InstalledBackends(ToyHost({}), {"disk_on_error": said})


def test_it_is_said_of_back_ends_by_name() -> None:
    said = backends("quobyte=stop, local=report")
    assert [said.on_error(kind) for kind in ("quobyte", "local", "nfs")] == ["stop", "report", ""]
    assert backends("").on_error("quobyte") == ""
    assert "disk_on_error" in [option.name for option in installed.options()]


@pytest.mark.parametrize("said", ["stop", "quobyte=ignore", "quobyte", "no=stop", "quobyte=stop=x"])
def test_what_cannot_be_is_refused_and_found_by_the_check(tmp_path: Path, said: str) -> None:
    with pytest.raises(Refused, match="disk_on_error has"):
        backends(said).on_error("quobyte")
    file = tmp_path / "moorline.conf"
    file.write_text(f"[libvirt]\ndisk_on_error = {said}\n")
    (found,) = misconfigured(wiring.settings([file], state_dir=tmp_path))
    assert "disk_on_error has" in found
    file.write_text("[libvirt]\ndisk_on_error = quobyte=stop\n")
    assert misconfigured(wiring.settings([file], state_dir=tmp_path)) == []


class Saying(dict[str, StorageBackend[object]]):
    def on_error(self, kind: str) -> str:
        return {"toy": "stop"}.get(kind, "")


@pytest.mark.parametrize(("asked", "given"), [("", "stop"), ("report", "report")])
def test_an_attachment_that_says_it_has_its_own(
    monkeypatch: pytest.MonkeyPatch, asked: str, given: str
) -> None:
    rig, plugged = Rig("g1"), []
    hypervisor = ToyHypervisor(rig.world)
    attach = hypervisor.attach

    def noted(guest: GuestId, volume: VolumeId, source: object, options: DiskOptions) -> None:
        plugged.append(options.on_error)
        attach(guest, volume, source, DiskOptions())  # type: ignore[arg-type]

    monkeypatch.setattr(hypervisor, "attach", noted)
    rig.attachment("a", "g1", Level.ATTACHED)
    (row,) = rig.records.all()
    rig.records.put(replace(row, options=DiskOptions(on_error=asked)))
    reconciler = Reconciler(
        rig.records, Saying(toy=ToyShare(rig.world)), hypervisor, Locks(patience=1.0)
    )
    for _ in range(3):
        reconciler.advance(Key(rig.records.host, VolumeId("a"), GuestId("g1")))
    assert plugged == [given]
    assert rig.records.all()[0].options.on_error == asked, "what was asked is what is recorded"
