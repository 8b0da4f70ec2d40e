"""A volume driver in Nova's hands, timed: run by a Python that has Nova.

``PYTHON -m bench.nova_drivers KIND WHAT DIRECTORY < connections.json`` prints seconds as JSON.
KIND is ``quobyte`` or ``vzstorage`` for Nova's own drivers, ``moorline`` for the plug-in; WHAT is
a key of ``MEASURED``. Imports, and what a driver starts with its first call, are not measured.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROUNDS = 11
INSTANCE = SimpleNamespace(uuid="5f1c5f1c-0000-4000-8000-00000000beef", name="bench")


def at_once(driver: Any, connections: Sequence[dict[str, Any]]) -> dict[str, float]:
    """All but the first, which comes before."""
    first, *rest = connections
    driver.connect_volume(first, INSTANCE)

    def connect(connection: dict[str, Any]) -> None:
        driver.connect_volume(connection, INSTANCE)

    with ThreadPoolExecutor(len(rest)) as pool:
        took = _seconds(lambda: list(pool.map(connect, rest)))
    for connection in connections:
        driver.disconnect_volume(connection, INSTANCE)
    return {"at_once": took}


def one_by_one(driver: Any, connections: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Two volumes of one share: connect one, then the other, then let both go."""
    first, second = connections
    took: dict[str, list[float]] = {"mount": [], "mounted": [], "let_go": []}
    for _ in range(ROUNDS + 1):
        took["mount"].append(_seconds(lambda: driver.connect_volume(first, INSTANCE)))
        took["mounted"].append(_seconds(lambda: driver.connect_volume(second, INSTANCE)))
        begun = time.perf_counter()
        driver.disconnect_volume(second, INSTANCE)
        driver.disconnect_volume(first, INSTANCE)
        took["let_go"].append(time.perf_counter() - begun)
    return {name: statistics.median(each[1:]) for name, each in took.items()}


MEASURED = {"at_once": at_once, "one_by_one": one_by_one}


def _seconds(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


def _driver(kind: str, directory: str) -> Any:
    # Native threads, as nova-compute has them by default since 2026.2.
    from nova import monkey_patch

    monkey_patch.patch(backend="threading")
    import nova.conf

    conf = nova.conf.CONF
    conf([], project="nova", default_config_files=[])
    return _ours(conf, directory) if kind == "moorline" else _nova_s(conf, kind, directory)


def _ours(conf: Any, directory: str) -> Any:
    from moorline_nova import options
    from moorline_nova.volume import MoorlineVolumeDriver

    options.register(conf)
    conf.set_override("socket", f"{directory}/agent.sock", group="moorline")
    return MoorlineVolumeDriver(None, {})


def _nova_s(conf: Any, kind: str, directory: str) -> Any:
    import os_brick.privileged  # noqa: F401 - registers the options of its daemon
    from nova.virt.libvirt.volume import quobyte, vzstorage

    helper = str(Path(sys.executable).with_name("privsep-helper"))
    conf.set_override("helper_command", helper, group="nova_sys_admin")
    conf.set_override("helper_command", helper, group="privsep_osbrick")
    conf.set_override("lock_path", directory, group="oslo_concurrency")
    for name, value in {
        "quobyte_mount_point_base": directory,
        "vzstorage_mount_point_base": directory,
        "vzstorage_mount_user": "root",
        "vzstorage_mount_group": "root",
    }.items():
        conf.set_override(name, value, group="libvirt")
    drivers = {
        "quobyte": quobyte.LibvirtQuobyteVolumeDriver,
        "vzstorage": vzstorage.LibvirtVZStorageVolumeDriver,
    }
    return drivers[kind](None)


def main(kind: str, what: str, directory: str) -> None:
    driver = _driver(kind, directory)
    print(json.dumps(MEASURED[what](driver, json.load(sys.stdin))))


if __name__ == "__main__":
    main(*sys.argv[1:])
