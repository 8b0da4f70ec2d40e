"""The description of vCenter's API (WSDL) that oslo.vmware's client asks the server for.

oslo.vmware brings the data types; the operations are made of pyVmomi's tables. Both are VMware's
and are read where they are installed: nothing of them is kept here. Operations whose types are
younger than the data types (8.0) are left out.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

SCHEMAS = ("core-types.xsd", "query-types.xsd", "reflect-types.xsd", "vim-types.xsd")
_OPTIONAL = 4
_PLAIN = {
    "string": "xsd:string",
    "boolean": "xsd:boolean",
    "byte": "xsd:byte",
    "short": "xsd:short",
    "int": "xsd:int",
    "long": "xsd:long",
    "float": "xsd:float",
    "double": "xsd:double",
    "anyType": "xsd:anyType",
    "vmodl.Any": "xsd:anyType",
    "vmodl.DateTime": "xsd:dateTime",
    "vmodl.URI": "xsd:anyURI",
    "vmodl.Binary": "xsd:base64Binary",
}
_SERVICE = """<?xml version="1.0" encoding="UTF-8"?>
<definitions targetNamespace="urn:vim25Service" xmlns="http://schemas.xmlsoap.org/wsdl/"
 xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:interface="urn:vim25">
<import location="vim.wsdl" namespace="urn:vim25"/>
<service name="VimService"><port binding="interface:VimBinding" name="VimPort">
<soap:address location="https://localhost/sdk"/></port></service></definitions>
"""
_BEGIN = """<?xml version="1.0" encoding="UTF-8"?>
<definitions targetNamespace="urn:vim25" xmlns="http://schemas.xmlsoap.org/wsdl/"
 xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:vim25="urn:vim25"
 xmlns:xsd="http://www.w3.org/2001/XMLSchema">
<types><schema targetNamespace="urn:vim25" xmlns="http://www.w3.org/2001/XMLSchema"
 elementFormDefault="qualified"><include schemaLocation="vim-types.xsd"/>
"""


class Names:
    """What pyVmomi's names are called on the wire."""

    def __init__(self, schemas: Path) -> None:
        from pyVmomi import VmomiSupport, vim  # noqa: F401 - the tables are filled by it

        self.managed: dict[str, Any] = dict(VmomiSupport._managedDefMap)
        self._data = {**VmomiSupport._dataDefMap, **VmomiSupport._enumDefMap}
        text = "".join((schemas / name).read_text() for name in SCHEMAS)
        self._known = set(re.findall(r'<(?:complex|simple)Type name="(\w+)"', text))

    def element(self, name: str, kind: str, flags: int) -> str:
        """A parameter or a result. Raises KeyError if the schemas do not know its type."""
        plain = kind.removesuffix("[]")
        bounds = ' minOccurs="0"' if flags & _OPTIONAL else ""
        bounds += ' maxOccurs="unbounded"' if plain != kind else ""
        return f"<element name={quoteattr(name)} type={quoteattr(self._type(plain))}{bounds}/>"

    def _type(self, kind: str) -> str:
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind in self.managed or kind == "vmodl.ManagedObject":
            return "vim25:ManagedObjectReference"
        name = self._data[kind][1] if kind in self._data else kind.rpartition(".")[2]
        if name not in self._known:
            raise KeyError(name)
        return f"vim25:{name}"


def available() -> bool:
    """Whether what it is made of is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("oslo_vmware", "pyVmomi"))


def write(directory: Path) -> None:
    """Write the description and the schemas into *directory*. Raises ImportError."""
    import oslo_vmware

    schemas = Path(str(oslo_vmware.__file__)).parent / "wsdl" / "8.0"
    for name in SCHEMAS:
        shutil.copy(schemas / name, directory / name)
    operations = dict(_operations(Names(schemas)))
    (directory / "vimService.wsdl").write_text(_SERVICE)
    with (directory / "vim.wsdl").open("w") as file:
        file.write(_BEGIN)
        file.writelines(types for types in operations.values())
        file.write("</schema></types>\n")
        file.writelines(
            f'<message name="{each}{way}Msg"><part name="parameters" element="vim25:{each}{way}"/>'
            "</message>\n"
            for each in operations
            for way in ("", "Response")
        )
        file.write('<portType name="VimPortType">\n')
        file.writelines(
            f'<operation name="{each}"><input message="vim25:{each}Msg"/>'
            f'<output message="vim25:{each}ResponseMsg"/></operation>\n'
            for each in operations
        )
        file.write(
            '</portType>\n<binding name="VimBinding" type="vim25:VimPortType">'
            '<soap:binding style="document" transport="http://schemas.xmlsoap.org/soap/http"/>\n'
        )
        file.writelines(
            f'<operation name="{each}">'
            '<soap:operation soapAction="urn:vim25/8.0" style="document"/>'
            '<input><soap:body use="literal"/></input><output><soap:body use="literal"/></output>'
            "</operation>\n"
            for each in operations
        )
        file.write("</binding></definitions>\n")


def _operations(names: Names) -> Iterator[tuple[str, str]]:
    """Each operation's name on the wire, and the types of its request and its answer."""
    for entry in names.managed.values():
        if not entry[0].startswith(("vim.", "vmodl.")):
            continue
        for _, operation, _, parameters, (flags, result, _), *_ in entry[5] or ():
            try:
                given = [names.element(name, kind, may) for name, kind, _, may, _ in parameters]
                told = "" if result == "void" else names.element("returnval", result, flags)
            except KeyError:
                continue
            this = '<element name="_this" type="vim25:ManagedObjectReference"/>'
            yield (
                operation,
                f'<element name="{operation}"><complexType><sequence>{this}{"".join(given)}'
                f'</sequence></complexType></element>\n<element name="{operation}Response">'
                f"<complexType><sequence>{told}</sequence></complexType></element>\n",
            )
