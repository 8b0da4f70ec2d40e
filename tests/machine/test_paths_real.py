"""Several paths to a volume, by os-brick's own connector, open-iscsi, LIO and multipathd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import servers
from lab.machine.servers import PORTALS, Iscsi
from tests.support.real import Real

SERIAL = f"{7:0<32x}"
SETTINGS = """mkdir -p /etc/moorline
printf '[libvirt]\\nvolume_use_multipath = true\\n' >/etc/moorline/moorline.conf
systemctl start multipathd
systemctl restart moorline-agent"""
UNSET = """rm /etc/moorline/moorline.conf
systemctl restart moorline-agent
systemctl stop multipathd.socket multipathd.service"""


@pytest.fixture
def iscsi(real: Real) -> Iterator[Iscsi]:
    """A target on two portals, whose LUN 1 is 64 MiB; all paths are used."""
    iscsi = Iscsi(real.machine)
    servers.disk(real.machine, "/srv/lun1")
    iscsi.add(1, "/srv/lun1", SERIAL)
    real.run(SETTINGS)
    yield iscsi
    for portal in PORTALS:
        iscsi.mend(portal)
    real.strike()
    real.run("iscsiadm -m node --logout; iscsiadm -m node -o delete", code=None)
    iscsi.remove(1)
    real.run(UNSET)


def paths(real: Real) -> list[str]:
    """The states of a volume's paths, as multipathd has them."""
    return real.run("multipathd show paths raw format '%t'").stdout.split()


def test_a_volume_has_as_many_paths_as_its_target_has_portals(real: Real, iscsi: Iscsi) -> None:
    guest, volume = real.guest("web01"), real.id()
    real.attach(guest, iscsi.connection(1, volume, paths=2))
    assert real.run("realpath /dev/moorline/iscsi-*").stdout.startswith("/dev/dm-")
    assert paths(real) == ["active", "active"]
    real.writes(guest, volume, 81, "/srv/lun1")

    iscsi.cut(PORTALS[1])
    real.writes(guest, volume, 82, "/srv/lun1")
    real.await_(lambda: sorted(paths(real)) == ["active", "failed"])
    assert real.rows() == {volume: ("attached", "attached")}
    iscsi.mend(PORTALS[1])
    real.await_(lambda: paths(real) == ["active", "active"])
    iscsi.cut(PORTALS[0])
    real.writes(guest, volume, 83, "/srv/lun1")

    real.detach(guest, volume)
    iscsi.mend(PORTALS[0])
    assert real.run("ls /dev/mapper").stdout.split() == ["control"]
    assert iscsi.sessions() == 0


def test_a_volume_without_any_path_waits_and_goes_when_there_is_one(
    real: Real, iscsi: Iscsi
) -> None:
    guest, volume = real.guest("web01"), real.id()
    connection = iscsi.connection(1, volume, paths=2)
    real.attach(guest, connection)
    for portal in PORTALS:
        iscsi.cut(portal)
    real.await_(lambda: "active" not in paths(real))
    assert real.rows() == {volume: ("attached", "attached")}
    real.moorline(f"detach {guest} {volume} --timeout 20", code=None)  # or later, by the agent

    for portal in PORTALS:
        iscsi.mend(portal)
    real.await_(lambda: not real.rows(), 600)
    assert real.run("ls /dev/mapper").stdout.split() == ["control"]
    assert iscsi.sessions() == 0
    real.attach(guest, connection)
    real.writes(guest, volume, 84, "/srv/lun1")
