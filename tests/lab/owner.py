"""Run one change as the host's owner, and be killed by SIGKILL at its n-th effect.

Used by test_every_real_effect.py. Everything is real; what can kill stands
before the store's commits, the host's commands and the hypervisor's changes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moorline import config, installed, wiring
from moorline.api import Moorline
from moorline.core.claims import Claims
from moorline.core.driver import Driver
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.host.linux import Linux
from moorline.host.state_lock import HostLock
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.loop.controller import Controller
from moorline.loop.drift import DriftDetector
from moorline.loop.worker import Worker
from moorline.ports import Backends, Hypervisor
from moorline.stores.codec import Codec
from moorline.stores.sqlite import SqliteStore
from moorline.testing.faults import Fault, Faults, Faulty
from tests.support.environment import bare


def main(
    action: str,
    guest: str,
    what: Any,
    state: Path,
    at: int,
    fault: Fault,
    files: Sequence[str] = (),
    effects: Sequence[str] = ("run", "call", "attach", "detach", "commit"),
) -> None:
    """Do it, up to the effect number *at*.

    *files*: of the configuration. *effects*: which kinds of them count.
    """
    faults = Faults(die=lambda: os.kill(os.getpid(), signal.SIGKILL))
    faults.plan((at, fault))
    settings = wiring.settings([Path(file) for file in files], state_dir=state)
    state.mkdir(mode=0o711, parents=True, exist_ok=True)
    HostLock(state / "lock").take(30, print)
    host: Any = Faulty(Linux(), faults, {"run", "call"} & {*effects})
    hypervisor: Any = Faulty(Libvirt(), faults, {"attach", "detach"} & {*effects})
    store: Any = Faulty(SqliteStore(state / "moorline.db"), faults, {"commit"} & {*effects})
    records = Records(store, Codec.from_file(state / "key"), config.host_name(settings))
    backends = installed.InstalledBackends(host, settings.values)
    reconciler = Reconciler(records, backends, hypervisor, Locks())
    moorline = Moorline(records, reconciler, hypervisor, environment=bare())
    if action == "keep":
        _keep(records, backends, hypervisor)
    elif action == "attach":
        moorline.attachments.attach(guest, what, timeout=30)
    else:
        moorline.attachments.detach(guest, what, timeout=30)


def _keep(records: Records, backends: Backends, hypervisor: Hypervisor) -> None:
    """Run the loop until everything is as wanted."""
    reconciler, claims = Reconciler(records, backends, hypervisor, Locks()), Claims()
    controller = Controller(
        records,
        Worker(Driver(records, reconciler, claims)),
        DriftDetector(records, reconciler, hypervisor),
        claims,
    )
    controller.start()
    while controller.swept is None or controller.pending():
        time.sleep(0.01)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    given.update(state=Path(given["state"]), fault=Fault[given["fault"]])
    main(**given)
    os._exit(0)
