"""Reads which files a ploop image's DiskDescriptor.xml names.

Format: https://www.qemu.org/docs/master/interop/prl-xml.html. ``ploop`` reads it with another
XML library than ours (lib/xml.c of github.com/OpenVZ/ploop). So XML that two libraries could
read in two ways is refused: a descriptor needs none of it.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from moorline.errors import Refused

NAME = "DiskDescriptor.xml"
MAX_DESCRIPTOR_BYTES = 1 << 20
"""Bytes; a descriptor of 126 snapshots, the most there can be, has about 40000."""
_DECLARATION = re.compile(r"""<\?xml version=["']1\.0["'](?: encoding=["']UTF-8["'])? ?\?>""", re.I)


def files(data: bytes) -> list[str]:
    """The image files that a descriptor names, as it names them: untrusted. Raises Refused."""
    if len(data) > MAX_DESCRIPTOR_BYTES:
        raise Refused(f"{NAME} is larger than {MAX_DESCRIPTOR_BYTES} bytes")
    try:
        text = data.decode()
        text = text[match.end() :] if (match := _DECLARATION.match(text)) else text
        if "<!" in text or "<?" in text:  # document types, comments, instructions
            raise Refused(f"{NAME} has more than elements and text")
        root = ET.fromstring(text)  # noqa: S314 - neither document type nor entities
    except (UnicodeDecodeError, ET.ParseError) as e:
        raise Refused(f"{NAME} is not XML in UTF-8") from e
    found = [element for element in root.iter() if element.tag.rpartition("}")[2] == "File"]
    if not found or any(len(element) or not element.text for element in found):
        raise Refused(f"{NAME} does not name the files of the image")
    return [element.text or "" for element in found]
