"""A stand-in for vCenter: SOAP, storage policies and uploads over real HTTPS.

``simulator/main.go`` says what is known of the real one, what is assumed, and
where the stand-in differs. Unmodified pyVmomi is its client. It misbehaves when
told so: :meth:`VCenter.fault`.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.novalink import certificates
from lab.vcenter import wsdl
from lab.vcenter.build import Missing, binary

__all__ = ["FIVE_TYPES", "Missing", "VCenter"]

GIB = 1 << 30
FIVE_TYPES: tuple[dict[str, Any], ...] = (
    {"Name": "vvol1", "Type": "VVOL", "Capacity": 1000 * GIB, "Free": 800 * GIB},
    {
        "Name": "vvol-maint",
        "Type": "VVOL",
        "Capacity": 1000 * GIB,
        "Free": 900 * GIB,
        "Maintenance": "inMaintenance",
    },
    {
        "Name": "vvol-lost",
        "Type": "VVOL",
        "Capacity": 1000 * GIB,
        "Free": 950 * GIB,
        "Accessible": False,
    },
    {
        "Name": "vmfs-local",
        "Type": "VMFS",
        "Capacity": 900 * GIB,
        "Free": 890 * GIB,
        "Hosts": ["DC0_C0_H0"],
    },
    {"Name": "vmfs1", "Type": "VMFS", "Capacity": 500 * GIB, "Free": 400 * GIB},
    {"Name": "nfs1", "Type": "NFS", "Capacity": 500 * GIB, "Free": 300 * GIB},
    {"Name": "nfs41", "Type": "NFS41", "Capacity": 500 * GIB, "Free": 200 * GIB},
    {"Name": "vsan1", "Type": "vsan", "Capacity": 500 * GIB, "Free": 100 * GIB},
    {"Name": "cifs", "Type": "CIFS", "Capacity": 5000 * GIB, "Free": 5000 * GIB},
)
"""Datastores of all five types and one more; each best by free space has something against it."""


class VCenter:
    """The stand-in on a port of its own, from ``with`` to its end. Raises Missing."""

    user = "lab"
    password = "lab-secret"
    cluster = "DC0_C0"
    guests = ("DC0_C0_RP0_VM0", "DC0_C0_RP0_VM1")

    def __init__(
        self,
        datastores: Sequence[dict[str, Any]] = FIVE_TYPES,
        *,
        clusters: int = 1,
        hosts: int = 3,
        vms: int = 2,
        idle: float = 0,
        datacenters: int = 1,
        standalone: int = 0,
        pools: int = 0,
        vapps: int = 0,
        folders: int = 0,
        described: bool = False,
    ) -> None:
        """*described*: the API's description can be had, which clients on suds ask for."""
        self._binary = binary()
        self._directory = tempfile.TemporaryDirectory(prefix="lab-vcenter-")
        self.directory = Path(self._directory.name)
        self.ca, self.certificate, self._key = certificates.make(self.directory)
        stores = self.directory / "datastores.json"
        stores.write_text(json.dumps(list(datastores)))
        self._arguments = [
            f"-dir={self.directory}",
            f"-datastores={stores}",
            f"-clusters={clusters}",
            f"-hosts={hosts}",
            f"-vms={vms}",
            f"-idle={idle}s",
            f"-datacenters={datacenters}",
            f"-standalone={standalone}",
            f"-pools={pools}",
            f"-vapps={vapps}",
            f"-folders={folders}",
        ]
        if described:
            wsdl.write(self.directory)
            self._arguments.append(f"-wsdl={self.directory}")
        self.port = 0

    def __enter__(self) -> VCenter:
        self._process = subprocess.Popen(
            [
                str(self._binary),
                f"-user={self.user}",
                f"-password={self.password}",
                f"-cert={self.certificate}",
                f"-key={self._key}",
                *self._arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.directory / "log").open("wb"),
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__(None, None, None)
            raise RuntimeError("the vCenter simulator did not start")
        self.port = int(json.loads(line)["port"])
        context = ssl.create_default_context(cafile=str(self.ca))
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        ).open
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()
        self._directory.cleanup()

    def fault(self, method: str = "*", count: int = 1, **rule: Any) -> None:
        """Let the next *count* calls of *method* go wrong (0: all). See ``simulator/faults.go``.

        ``Fault`` or ``Status``: answered instead. ``TaskFault``: the task ends
        so though it was done. ``TaskMs``, ``DelayMs``, ``ReplyMs``: slow.
        ``Drop``, ``DropAfter``: the connection is cut. ``Match``, ``Skip``: which.
        """
        self._control("POST", [{"Method": method, "Count": count, **rule}])

    def datastore(self, name: str, **change: Any) -> None:
        """Change a datastore: ``Capacity`` and ``Free``, ``Accessible``, ``Maintenance``."""
        self._control("PUT", {"Name": name, **change})

    def machine(self, name: str, config: str) -> None:
        """Say whether a machine's configuration is ``readable``, ``inaccessible`` or ``new``."""
        self._control("PUT", {"Name": name, "Config": config})

    def heal(self) -> None:
        """Forget the faults and the counts."""
        self._control("DELETE")

    def calls(self) -> dict[str, int]:
        """How often each method was called."""
        return dict(self._control("GET")["calls"] or {})

    def uploads(self) -> dict[str, dict[str, Any]]:
        """What was uploaded through leases: ``Bytes`` and ``Sha256``, by path."""
        return dict(self._control("GET")["uploads"] or {})

    def disks(self) -> dict[str, int]:
        """The virtual disks that there are and their sizes, by ``[datastore] path``."""
        return dict(self._control("GET")["disks"])

    def disks_of(self, name: str) -> list[str]:
        """The virtual disks in the folders called *name*."""
        return [
            disk
            for disk in self.disks()
            for store, _, file in [disk[1:].partition("] ")]
            if file.partition("/")[0] == self.folder(store, name)
        ]

    def files(self, datastore: str) -> list[str]:
        """What lies on a datastore of the first datacenter, by its folders' friendly names."""
        root = self.directory / datastore
        names = {str(p.readlink()): p.name for p in root.iterdir() if p.is_symlink()}
        found = (p.relative_to(root) for p in root.rglob("*") if p.is_file())
        return sorted("/".join((names.get(p.parts[0], p.parts[0]), *p.parts[1:])) for p in found)

    def folder(self, datastore: str, name: str) -> str:
        """A folder's own name, which on VVOL and vSAN is the id of an object."""
        return (self.directory / datastore / name).resolve().name

    def _control(self, method: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"https://localhost:{self.port}/lab",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        with self._open(request, timeout=10) as answer:
            return json.load(answer)
