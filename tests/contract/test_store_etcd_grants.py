"""Who may do what in etcd: each row is tried on a real one, with its own etcdctl where it can."""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from moorline.errors import Compacted, Denied
from moorline.ports import At, Delete, Put
from tests.support import etcd

if TYPE_CHECKING:
    from lab.etcd import Cluster
    from moorline.stores.etcd.enrolment import Enrolment
    from moorline.stores.etcd.store import EtcdStore

H1, H2, CONTROLLER = "host:h1:1", "host:h10:1", "controller:c1"


@pytest.fixture(scope="module", autouse=True)
def other_host(enrolment: Enrolment) -> None:
    enrolment.enrol("h10", "box of h10")


OWN = [*(f"/moorline/{kind}/h1/web01" for kind in ("definitions", "status")), "/moorline/held/h1"]
ALSO_READ = [
    "/moorline/epoch",
    "/moorline/hosts/h1",
    "/moorline/desired/h1/web01/v1",
]
OTHERS = [
    "/moorline/owners/volumes/v1",
    "/moorline/desired/h10/web01",
    "/moorline/definitions/h10/web01",
    "/moorline/status/h10/web01",
    "/moorline/held/h10",
    "/moorline/heartbeat/h10/agent",
    "/moorline/hosts/h10",
    "/moorline/enrolled/h1",
    "/moorline/moves/web01",
    "/moorline/leader",
    "/elsewhere",
]


@pytest.mark.parametrize("key", [*OWN, "/moorline/heartbeat/h1/agent"])
def test_a_host_writes_what_it_reports(as_user: Callable[[str], EtcdStore], key: str) -> None:
    host = as_user(H1)
    revision = host.commit([], [Put(key, b"1")])
    host.commit([At(key, revision)], [Put(key, b"2")])
    assert host.get(key)
    host.commit([], [Delete(key)])


@pytest.mark.parametrize("key", ALSO_READ)
def test_a_host_reads_what_is_wanted_of_it_and_cannot_change_it(
    as_user: Callable[[str], EtcdStore], key: str
) -> None:
    host = as_user(H1)
    host.get(key)
    for then in (Put(key, b"mine"), Delete(key)):
        with pytest.raises(Denied):
            host.commit([], [then])
    with pytest.raises(Denied):
        host.commit([], [Put("/moorline/status/h1/x", b""), Put(key, b"mine")])


@pytest.mark.parametrize("key", OTHERS)
def test_a_host_has_nothing_of_another_s_or_of_controllers(
    as_user: Callable[[str], EtcdStore], key: str
) -> None:
    host = as_user(H1)
    with pytest.raises(Denied):
        host.get(key)
    with pytest.raises(Denied):
        host.commit([], [Put(key, b"mine")])
    with pytest.raises(Denied):
        host.commit([At(key, 0)], [Put("/moorline/status/h1/x", b"")])


@pytest.mark.parametrize(
    "prefix",
    ["/", "/moorline/", "/moorline/desired/", "/moorline/desired/h10/", "/moorline/hosts/"],
)
def test_a_host_lists_and_watches_no_more_than_its_own(
    as_user: Callable[[str], EtcdStore], prefix: str
) -> None:
    host = as_user(H1)
    _, after = host.list("/moorline/desired/h1/")
    with pytest.raises(Denied):
        host.list(prefix)
    with etcd.Watching(host, prefix, after) as watching:
        assert isinstance(watching.end(), Denied)


def test_a_host_watches_what_is_wanted_of_it(as_user: Callable[[str], EtcdStore]) -> None:
    host, controller = as_user(H1), as_user(CONTROLLER)
    key = "/moorline/desired/h1/web01"
    with etcd.Watching(host, "/moorline/desired/h1/", host.list("/moorline/desired/h1/")[1]) as w:
        controller.commit([], [Put(key, b"1")])
        w.wait_for(key)


def test_a_controller_has_all_entries_and_no_users(
    cluster: Cluster, as_user: Callable[[str], EtcdStore]
) -> None:
    controller = as_user(CONTROLLER)
    controller.commit([], [Put("/moorline/owners/volumes/v1", b"h1")])
    assert controller.list("/moorline/enrolled/")[0]
    assert denied(cluster, CONTROLLER, "user", "add", "x", "--no-password")


def test_who_is_no_user_has_nothing(as_user: Callable[[str], EtcdStore]) -> None:
    for name in ("stranger", "host:h2:1", "host:h1:2", "h1", "Root"):
        with pytest.raises(Denied):
            as_user(name).get("/moorline/epoch")


@pytest.mark.parametrize(
    "words",
    [
        "user add x --no-password",
        "user delete host:h10:1",
        "user list",
        "user get root",
        "user grant-role host:h1:1 root",
        "role list",
        "role grant-permission host:h1 readwrite /",
        "auth disable",
        "member add x --peer-urls=https://127.0.0.1:1",
        "member remove 1",
        "defrag",
        "endpoint hashkv",
        "snapshot save {tmp}/backup",
    ],
)
def test_a_host_administers_nothing(
    cluster: Cluster, enrolment: Enrolment, words: str, tmp_path: object
) -> None:
    assert denied(cluster, H1, *words.format(tmp=tmp_path).split())


def denied(cluster: Cluster, user: str, *words: str) -> bool:
    """Whether etcd refuses for want of permission, and not for another reason."""
    try:
        cluster.control(*words, user=user)
    except subprocess.CalledProcessError as e:
        if "permission denied" not in e.stderr:
            raise
        return True
    return False


# What etcd allows, and why that does no harm.


def test_leases_of_others_can_be_seen_and_kept_alive_so_there_are_none(
    cluster: Cluster, as_user: Callable[[str], EtcdStore]
) -> None:
    from moorline.stores.etcd.messages import messages

    lease = cluster.control("lease", "grant", "600", user=H2).split()[1]
    cluster.control("put", f"--lease={lease}", "/moorline/status/h10/x", "", user=H2)
    assert denied(cluster, H1, "lease", "revoke", lease)
    if not denied(cluster, H1, "lease", "list"):
        denied(cluster, H1, "lease", "keep-alive", "--once", lease)
        denied(cluster, H1, "lease", "timetolive", "--keys", lease)
    # Nothing of ours could have one: our client cannot even say it.
    assert not [name for name in vars(messages) if "Lease" in name]
    assert "lease" not in messages.PutRequest.DESCRIPTOR.fields_by_name


def test_a_host_that_compacts_has_others_list_again_and_no_more(
    cluster: Cluster, as_user: Callable[[str], EtcdStore]
) -> None:
    controller, key = as_user(CONTROLLER), "/moorline/moves/web01"
    _, after = controller.list("/moorline/moves/")
    controller.commit([], [Put(key, b"1")])
    last = controller.commit([], [Put(key, b"2")])
    if denied(cluster, H1, "compaction", str(last)):
        pytest.skip("this etcd does not allow it")
    with etcd.Watching(controller, "/moorline/moves/", after) as watching:
        assert isinstance(watching.end(), Compacted)
    assert [entry.value for entry in controller.list("/moorline/moves/")[0]] == [b"2"]


def test_grants_that_can_be_evaded_are_told(
    cluster: Cluster, as_user: Callable[[str], EtcdStore]
) -> None:
    """etcd denies what evades them, or everyone who connects is warned that it does not."""
    host, controller = as_user(H1), as_user(CONTROLLER)
    host.get("/moorline/epoch")
    held = not nested_transaction(cluster, H1) and not endless_watch(cluster, H1, controller)
    warned = any("can read and write all entries" in warning for warning in host.warnings)
    assert held or warned


def nested_transaction(cluster: Cluster, user: str) -> bool:
    """Whether a transaction in a transaction writes what the user may not."""
    import grpc

    from moorline.stores.etcd.messages import messages

    put = messages.PutRequest(key=b"/moorline/owners/guests/stolen", value=b"h1")
    inner = messages.TxnRequest(success=[messages.RequestOp(request_put=put)]).SerializeToString()
    operation = bytes([4 << 3 | 2, len(inner)]) + inner  # RequestOp.request_txn
    try:
        call = raw(cluster, user).unary_unary("/etcdserverpb.KV/Txn")
        call(bytes([2 << 3 | 2, len(operation)]) + operation, timeout=10)
    except grpc.RpcError as e:
        if e.code() is not grpc.StatusCode.PERMISSION_DENIED:
            raise
        return False
    return True


def endless_watch(cluster: Cluster, user: str, writer: EtcdStore) -> bool:
    """Whether a watch from a key on, to no end, tells what the user may not read."""
    from moorline.stores.etcd.messages import messages

    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    create = messages.WatchCreateRequest(key=b"/moorline/epoch", range_end=b"\0")
    requests.put(messages.WatchRequest(create_request=create))
    call = raw(cluster, user).stream_stream(
        "/etcdserverpb.Watch/Watch",
        lambda message: message.SerializeToString(),
        messages.WatchResponse.FromString,
    )(iter(requests.get, None), timeout=10)
    first = next(call)
    if not first.canceled:
        writer.commit([], [Put("/moorline/moves/seen", b"")])
        assert next(call).events
    call.cancel()
    requests.put(None)
    return not first.canceled


def raw(cluster: Cluster, user: str) -> Any:
    import grpc

    from moorline.stores.etcd.access import target

    files = etcd.access(cluster, user)
    return grpc.secure_channel(target(files.endpoints[0]), files.credentials())


def test_a_watch_that_was_open_goes_on_after_its_user_is_revoked(
    cluster: Cluster, enrolment: Enrolment, as_user: Callable[[str], EtcdStore]
) -> None:
    """So what it could still tell is sealed for nobody: the host has no box any more."""
    enrolment.enrol("h3", "box of h3")
    host, controller = as_user("host:h3:1"), as_user(CONTROLLER)
    prefix = "/moorline/desired/h3/"
    with etcd.Watching(host, prefix, host.list(prefix)[1]) as watching:
        controller.commit([], [Put(f"{prefix}web01", b"1")])
        watching.wait_for(f"{prefix}web01")
        assert enrolment.revoke("h3") == ["host:h3:1"]
        controller.commit([], [Put(f"{prefix}web02", b"sealed for nobody")])
        with pytest.raises(Denied):
            host.get("/moorline/epoch")
    assert enrolment.enrolled("h3").box == ""
