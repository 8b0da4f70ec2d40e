"""A host whose whole ``/var`` is full: the state, libvirt's files, and the journal."""

from __future__ import annotations

from lab.machine import operations
from lab.machine.container import Machine
from tests.support.stage import Stage

SMALL = """
systemctl stop moorline-agent libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
rm -rf /var/lib/moorline-lab /var/cache/apt
mkdir -p /mnt/var
mount -t tmpfs -o size=$(( $(du -sm /var | cut -f1) + 24 ))m,mode=755 small /mnt/var
cp -a /var/. /mnt/var
mount --bind /mnt/var /var
systemctl restart systemd-journald
systemctl start libvirtd moorline-agent
"""
FILL = "dd if=/dev/zero of=/var/filler bs=64k; dd if=/dev/zero of=/var/crumbs bs=512; df /var"


def test_nothing_is_lost_and_all_goes_on_when_there_is_room(bare: Machine) -> None:
    operations.install(bare)
    stage = Stage(bare, "vol-full")
    stage.run(SMALL)
    guest, volume = stage.writing("web01")
    stage.share.disk("other.raw")
    attach = f"moorline attach web01 quobyte://{stage.share.export}/other.raw --format raw"
    clients = stage.clients()
    assert " 100% " in stage.run(FILL, code=None).stdout

    told = stage.run(attach, code=None)
    assert told.returncode == 11, told
    assert "full" in told.stderr or "No space" in told.stderr, told.stderr
    assert stage.rows() == {volume: ("attached", "attached")}
    stage.run("systemctl restart systemd-journald")
    stage.run("systemctl kill --signal=KILL moorline-agent")  # what it wrote last is written
    stage.await_(lambda: stage.property("SubState") == "running")
    stage.run("systemctl restart libvirtd")
    stage.await_(lambda: stage.rows() == {volume: ("attached", "attached")})
    guest.writes_on()
    assert stage.clients() == clients
    stage.moorline("list")

    stage.run("rm /var/filler /var/crumbs")
    stage.run(attach)
    stage.await_(lambda: len(stage.rows()) == 2)
    guest.writes_on()
    guest.saw_no_error()
    stage.moorline("doctor")
    for each in stage.rows():
        stage.moorline(f"detach web01 {each}")
    assert stage.rows() == {}
    stage.run("sqlite3 /var/lib/moorline/moorline.db 'pragma integrity_check' | grep -qx ok")
