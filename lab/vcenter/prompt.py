"""The ``moorline`` command in front of the stand-in, with its settings."""

from __future__ import annotations

from pathlib import Path

from lab.command import Moorline
from lab.vcenter import VCenter


def moorline(lab: VCenter, directory: Path) -> Moorline:
    """Its state directory and settings lie in *directory*."""
    password = directory / "password"
    password.touch(mode=0o600)
    password.write_text(lab.password)
    settings = directory / "moorline.conf"
    settings.write_text(
        f"[libvirt]\nconnection_uri = vsphere://localhost:{lab.port}\n"
        f"[vsphere]\nvcenter_user = {lab.user}\nvcenter_ca = {lab.ca}\n"
        f"vcenter_password_file = {password}\n"
    )
    return Moorline(directory / "state", after=("--config-file", str(settings)))
