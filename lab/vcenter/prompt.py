"""The ``moorline`` command in front of the stand-in, with its settings."""

from __future__ import annotations

from pathlib import Path

from lab.command import Moorline
from lab.vcenter import VCenter


def moorline(lab: VCenter, directory: Path) -> Moorline:
    """Its state directory and settings lie in *directory*."""
    return Moorline(directory / "state", after=("--config-file", str(settings(lab, directory))))


def settings(lab: VCenter, directory: Path) -> Path:
    """A configuration file for the stand-in, and the password's."""
    password = directory / "password"
    password.touch(mode=0o600)
    password.write_text(lab.password)
    written = directory / "moorline.conf"
    written.write_text(
        f"[libvirt]\nconnection_uri = vsphere://localhost:{lab.port}\n"
        f"[vsphere]\nvcenter_user = {lab.user}\nvcenter_ca = {lab.ca}\n"
        f"vcenter_password_file = {password}\n"
    )
    return written
