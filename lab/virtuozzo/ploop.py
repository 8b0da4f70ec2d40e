"""The lab's ploop images: directories, as Cinder's Virtuozzo driver makes them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab.quobyte.cluster import replace

BASE = "root.hds"
DESCRIPTOR = "DiskDescriptor.xml"


class Ploop:
    """The stand-in command ``ploop`` (ploop_client.py), as it finds the lab's directory."""

    def __init__(self, lab: Path) -> None:
        self.directory = lab / "ploop"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.clear()

    def command(self, image: str = "*", **control: Any) -> None:
        """Set how the command behaves with *image*; nothing: well."""
        replace(self.directory / "control.json", {image: control})

    def calls(self) -> list[list[str]]:
        """The arguments of every call but ``ploop list`` so far, oldest first."""
        lines = (self.directory / "calls.jsonl").read_text().splitlines()
        return [json.loads(line)["argv"] for line in lines]

    def clear(self) -> None:
        """Behave well again, and forget the calls."""
        (self.directory / "control.json").unlink(missing_ok=True)
        (self.directory / "calls.jsonl").write_text("")


def create(directory: Path, size: int = 16 << 20) -> Path:
    """Create an image in *directory*, which must not be there; return the file with its data."""
    directory.mkdir()
    file = directory / BASE
    with file.open("xb") as new:
        os.truncate(new.fileno(), size)
    describe(directory, BASE)
    return file


def describe(directory: Path, *files: str) -> None:
    """Write a DiskDescriptor.xml that names *files*."""
    root = ET.Element("Parallels_disk_image", Version="1.0")
    storage = ET.SubElement(ET.SubElement(root, "StorageData"), "Storage")
    for file in files:
        image = ET.SubElement(storage, "Image")
        ET.SubElement(image, "Type").text = "Plain"
        ET.SubElement(image, "File").text = file
    ET.ElementTree(root).write(directory / DESCRIPTOR, encoding="UTF-8", xml_declaration=True)
