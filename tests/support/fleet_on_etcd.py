"""The toy fleet on a real etcd: each host with its own certificate, grants and sealed box."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from moorline.secret import Secret
from tests.support import etcd
from tests.support.fleet_store import Backing
from tests.support.toy_fleet import ToyFleet

if TYPE_CHECKING:
    from lab.etcd import Cluster

HOSTS = ("h1", "h2", "h3")


@contextmanager
def toy_fleet_on(cluster: Cluster, guests: Mapping[str, str]) -> Iterator[ToyFleet]:
    """*guests*: which of the three hosts each of them runs on."""
    from moorline.stores.etcd.enrolment import Enrolment
    from moorline.stores.fleet_seal import BoxKey, for_controllers, for_host

    with ExitStack() as stack:
        enrolment = Enrolment(etcd.access(cluster))
        stack.callback(enrolment.close)
        enrolment.initialise()
        boxes = {name: BoxKey(Secret(os.urandom(32))) for name in ("", *HOSTS)}
        public = {name: box.public for name, box in boxes.items()}
        stores = {"": etcd.store(cluster, enrolment.controller("c1"))}
        for name in HOSTS:
            stores[name] = etcd.store(cluster, enrolment.enrol(name, public[name]).user)
        for store in stores.values():
            stack.callback(store.close)
        seals = {name: for_host(boxes[name], public[""]) for name in HOSTS}
        seals[""] = for_controllers(boxes[""], public.__getitem__)
        backing = Backing(stores[""], stores.__getitem__, seals.__getitem__)
        yield ToyFleet(HOSTS, dict(guests), backing=backing)
