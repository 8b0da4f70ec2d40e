"""Attach and detach on PowerVM, side by side with stock pypowervm calls.

``python bench/powervm.py [--rounds N]`` starts the NovaLink stand-in as a process of
its own and takes turns between the two, so that both meet the same machine.

*stock* is what nova-powervm does with pypowervm 1.1.27 as it comes: look at the
LPAR, then change the server's mappings in a FeedTask over all of its feed, which
acts on one; its detach does the same. *ours* does all that Moorline does, the look
at the file and the check of the result included.

Stock verifies no certificate here, and would verify that of the logon at most. Ours
verifies every call.

The server's own work is in the wall times of both. The processor times are the
client's alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pypowervm import adapter as pvm_adapter
from pypowervm import const
from pypowervm.tasks import partition, scsi_mapper
from pypowervm.utils.transaction import FeedTask
from pypowervm.wrappers.logical_partition import LPAR
from pypowervm.wrappers.storage import FileIO, VDisk
from pypowervm.wrappers.virtual_io_server import VIOS

from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.remembered_slots import MemorySlots
from moorline.hypervisors.powervm.session import Logon, NovaLink
from moorline.model import DiskOptions, ImageFile, VolumeId
from moorline.secret import Secret

ROOT = Path(__file__).parents[1]
TARGET = 0.6
VOLUME = VolumeId("bench")


@contextmanager
def stand_in(preload: int) -> Iterator[dict[str, Any]]:
    argv = [sys.executable, "-W", "ignore", "-m", "lab.novalink", "--preload", str(preload)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=-1, stdout=-1, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.communicate()


class Stock:
    """nova-powervm's calls."""

    def __init__(self, where: dict[str, Any]) -> None:
        session = pvm_adapter.Session(
            "localhost", where["user"], where["password"], port=where["port"], certpath=""
        )
        self.api = pvm_adapter.Adapter(session)
        self.server = partition.get_mgmt_partition(self.api).uuid
        self.lpar = LPAR.search(self.api, name="web01", one_result=True).uuid

    def attach(self, path: Path) -> None:
        assert LPAR.get(self.api, uuid=self.lpar).can_modify_io()[0]

        def add(vios: Any) -> Any:
            if vios.uuid != self.server:
                return None
            disk = FileIO.bld(self.api, str(path), backstore_type="loop", tag=VOLUME)
            mapping = scsi_mapper.build_vscsi_mapping(None, vios, self.lpar, disk)
            return scsi_mapper.add_map(vios, mapping)

        self._change(add)

    def detach(self, path: Path) -> None:
        match = scsi_mapper.gen_match_func(VDisk, names=[str(path)])

        def remove(vios: Any) -> Any:
            if vios.uuid != self.server:
                return None
            return scsi_mapper.remove_maps(vios, self.lpar, match_func=match)

        self._change(remove)

    def _change(self, edit: Callable[[Any], Any]) -> None:
        task = FeedTask("bench", VIOS.getter(self.api, xag=[const.XAG.VIO_SMAP]))
        task.add_functor_subtask(edit)
        task.execute()

    def close(self) -> None:
        self.api.session._logoff()


class Ours:
    def __init__(self, where: dict[str, Any]) -> None:
        logon = Logon(
            "localhost", where["port"], where["user"], Secret(where["password"]), Path(where["ca"])
        )
        self.vm = PowerVM(
            NovaLink(logon), MemorySlots(), lambda path: path.stat() and None, os.path.getsize
        )
        self.guest = self.vm.find("web01").id

    def attach(self, path: Path) -> None:
        self.vm.attach(self.guest, VOLUME, ImageFile(path, "raw"), DiskOptions())

    def detach(self, path: Path) -> None:
        self.vm.detach(self.guest, VOLUME)

    def close(self) -> None:
        self.vm.close()


def measure(call: Callable[[Path], None], path: Path) -> tuple[float, float]:
    """Wall and processor time, in ms."""
    wall, cpu = time.perf_counter(), time.process_time()
    call(path)
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def compare(mappings: int, rounds: int, path: Path) -> bool:
    with stand_in(mappings) as where:
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        sides = {"stock": Stock(where), "ours": Ours(where)}
        for n in range(rounds + 1):
            for name, side in sides.items():
                for verb in ("attach", "detach"):
                    spent = measure(getattr(side, verb), path)
                    if n:  # the first round warms up
                        times.setdefault((verb, name), []).append(spent)
        for side in sides.values():
            side.close()
    good = True
    for verb in ("attach", "detach"):
        stock, ours = (list(zip(*times[verb, name], strict=True)) for name in ("stock", "ours"))
        ratio = statistics.median(ours[0]) / statistics.median(stock[0])
        good &= ratio <= TARGET
        print(
            f"{mappings:8} {verb:7}"
            f" {statistics.median(stock[0]):8.1f} {statistics.median(ours[0]):8.1f} {ratio:7.2f}"
            f" {min(ours[0]) / min(stock[0]):7.2f}"
            f" {statistics.median(ours[1]) / statistics.median(stock[1]):7.2f}"
        )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ.pop(name, None)  # they would overrule stock's choice
    print(f"medians of {rounds} rounds, ms; ratios ours/stock, target {TARGET}")
    print("mappings verb       stock     ours   ratio (of min) (of CPU)")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "image")
        path.write_bytes(bytes(1 << 20))
        results = [compare(mappings, rounds, path) for mappings in (1, 100, 500)]
    print("good" if all(results) else f"not all within {TARGET}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
