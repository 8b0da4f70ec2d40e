"""Nova's own volume drivers, connecting many shares at once: run by a Python that has Nova.

``PYTHON -m bench.nova_drivers KIND DIRECTORY < connections.json`` prints the seconds that it
took. It imports nothing of ours. Daemon start and first imports are not measured: the first
share is connected beforehand.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def main(kind: str, directory: str) -> None:
    first, *rest = json.load(sys.stdin)
    driver = _driver(kind, directory)
    driver.connect_volume(first, None)
    start = time.perf_counter()
    with ThreadPoolExecutor(len(rest)) as pool:
        list(pool.map(lambda connection: driver.connect_volume(connection, None), rest))
    print(time.perf_counter() - start)


def _driver(kind: str, directory: str) -> Any:
    # Native threads, as nova-compute has them by default since 2025.2.
    from nova import monkey_patch

    monkey_patch.patch(backend="threading")
    import nova.conf
    from nova.virt.libvirt.volume import quobyte, vzstorage

    conf = nova.conf.CONF
    conf([], project="nova", default_config_files=[])
    helper = str(Path(sys.executable).with_name("privsep-helper"))
    conf.set_override("helper_command", helper, group="nova_sys_admin")
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
    import os_brick.privileged  # noqa: F401 - registers the options of its daemon

    conf.set_override("helper_command", helper, group="privsep_osbrick")
    return drivers[kind](None)


if __name__ == "__main__":
    main(*sys.argv[1:])
