"""A real etcd with a host and a controller enrolled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support import etcd

if TYPE_CHECKING:
    from lab.etcd import Cluster
    from moorline.stores.etcd.enrolment import Enrolment
    from moorline.stores.etcd.store import EtcdStore


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with etcd.etcd_lab() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def enrolment(cluster: Cluster) -> Iterator[Enrolment]:
    from moorline.stores.etcd.enrolment import Enrolment

    enrolment = Enrolment(etcd.access(cluster))
    enrolment.initialise()
    enrolment.controller("c1")
    enrolment.enrol("h1", "box of h1")
    yield enrolment
    enrolment.close()


@pytest.fixture
def as_user(cluster: Cluster, enrolment: Enrolment) -> Iterator[Callable[[str], EtcdStore]]:
    made = []

    def store(user: str) -> EtcdStore:
        made.append(etcd.store(cluster, user))
        return made[-1]

    yield store
    for one in made:
        one.close()
