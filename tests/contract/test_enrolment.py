"""Hosts are enrolled in a real etcd: repeated, renewed, revoked, and by root alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from moorline.errors import Conflict, Denied, NotFound, Refused
from tests.support import etcd

if TYPE_CHECKING:
    from lab.etcd import Cluster
    from moorline.stores.etcd.enrolment import Enrolment
    from moorline.stores.etcd.store import EtcdStore


def test_all_of_it_can_be_repeated(enrolment: Enrolment) -> None:
    epoch = enrolment.initialise()
    assert enrolment.initialise() == epoch
    assert enrolment.controller("c1") == enrolment.controller("c1")
    with pytest.raises(NotFound, match="is not enrolled"):
        enrolment.revoke("never")


def test_the_grants_of_a_role_are_those_of_the_table(
    cluster: Cluster, enrolment: Enrolment
) -> None:
    """Also after an upgrade that took some away."""
    enrolment.enrol("h4", "box")
    before = cluster.control("role", "get", "host:h4")
    cluster.control("role", "grant-permission", "host:h4", "readwrite", "/moorline/leader")
    cluster.control("role", "revoke-permission", "host:h4", "/moorline/epoch")
    assert cluster.control("role", "get", "host:h4") != before
    enrolment.enrol("h4")
    assert cluster.control("role", "get", "host:h4") == before


def test_a_certificate_is_renewed_and_the_old_one_retired(
    enrolment: Enrolment, as_user: Callable[[str], EtcdStore]
) -> None:
    enrolment.enrol("h5", "box")
    assert enrolment.enrol("h5").user == "host:h5:2"
    old, new = as_user("host:h5:1"), as_user("host:h5:2")
    for store in (old, new):
        store.list("/moorline/desired/h5/")
    assert enrolment.retire("h5") == ["host:h5:1"]
    with pytest.raises(Denied):
        old.list("/moorline/desired/h5/")
    new.list("/moorline/desired/h5/")
    assert enrolment.retire("h5") == []
    assert enrolment.enrolled("h5").box == "box"


def test_a_number_is_never_used_again(enrolment: Enrolment) -> None:
    """The certificate of a user that was deleted would be valid again."""
    enrolment.enrol("h6", "box")
    enrolment.revoke("h6")
    with pytest.raises(Refused, match="no sealed box"):
        enrolment.enrol("h6")
    assert enrolment.enrol("h6", "another").user == "host:h6:2"


def test_of_two_who_enrol_a_host_one_is_told(cluster: Cluster, enrolment: Enrolment) -> None:
    from moorline.stores.etcd.enrolment import Enrolment

    several = [Enrolment(etcd.access(cluster)) for _ in range(4)]

    def enrol(one: Enrolment) -> int:
        try:
            return one.enrol("h7", "box").number
        except Conflict:
            return 0

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for number in pool.map(enrol, several) if number]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    for one in several:
        one.close()


@pytest.mark.parametrize("name", ["", "a/b", "../h1", "h1:1", "h1/", ".h", "h\n", "ä", "h" * 49])
def test_a_name_that_would_reach_further_is_refused(enrolment: Enrolment, name: str) -> None:
    with pytest.raises(Refused):
        enrolment.enrol(name, "box")
    with pytest.raises(Refused):
        enrolment.controller(name)
    with pytest.raises(Refused):
        enrolment.revoke(name)


def test_only_root_enrols(cluster: Cluster, enrolment: Enrolment) -> None:
    from moorline.stores.etcd.enrolment import Enrolment

    for user in ("host:h1:1", "controller:c1"):
        other = Enrolment(etcd.access(cluster, user))
        with pytest.raises(Denied):
            other.enrol("h8", "box")
        with pytest.raises(Denied):
            other.initialise()
        other.close()
    with pytest.raises(NotFound):
        enrolment.retire("h9")


def test_the_list_of_hosts_has_those_that_were_revoked(enrolment: Enrolment) -> None:
    enrolment.enrol("h11", "box")
    enrolment.revoke("h11")
    assert {each.host: each.box for each in enrolment.all()}["h11"] == ""
    enrolment.forget("h11")
    assert "h11" not in {each.host for each in enrolment.all()}
    enrolment.forget("h11")


def test_an_etcd_of_somebody_else_is_left_alone(cluster: Cluster, enrolment: Enrolment) -> None:
    cluster.control("put", "/registry/pods/x", "")
    with pytest.raises(Refused, match=re.escape("/registry/pods/x")):
        enrolment.initialise()
    cluster.control("del", "/registry/pods/x")
    enrolment.initialise()
