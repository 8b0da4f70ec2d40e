"""The check that a test leaves nothing behind must notice what it is there to notice."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from lab import leftovers, standin

DOMAIN = (
    "<domain type='qemu'><name>left</name><memory>65536</memory>"
    "<os><type arch='x86_64'>hvm</type></os></domain>"
)


def test_nothing_left_is_nothing_told(libvirt_conn: Any) -> None:
    assert leftovers.after(libvirt_conn, leftovers.look(libvirt_conn)) == []


def test_each_kind_is_told_and_taken_away(libvirt_conn: Any, tmp_path: Path) -> None:
    before = leftovers.look(libvirt_conn)
    standin.mount("left", str(tmp_path), "tmpfs")
    process = subprocess.Popen(["sleep", "1234"])
    libvirt_conn.defineXML(DOMAIN)
    assert leftovers.after(libvirt_conn, before, patience=0) == [
        f"mount: tmpfs left on {tmp_path}",
        "process: sleep 1234",
        "domain: left",
    ]
    leftovers.clean(libvirt_conn, before)
    process.wait()
    assert leftovers.after(libvirt_conn, before) == []


def test_a_server_that_tests_share_is_not_told(libvirt_conn: Any) -> None:
    before = leftovers.look(libvirt_conn)
    server = subprocess.Popen(["sleep", "1234"], env={leftovers.SERVICE: "its name"})
    assert leftovers.after(libvirt_conn, before, patience=0) == []
    server.kill()
    server.wait()


def test_a_guest_that_is_welcome_is_not_told(libvirt_conn: Any) -> None:
    before = leftovers.look(libvirt_conn)
    libvirt_conn.defineXML(DOMAIN)
    assert leftovers.after(libvirt_conn, before, welcome=["left"]) == []
    leftovers.clean(libvirt_conn, before)
