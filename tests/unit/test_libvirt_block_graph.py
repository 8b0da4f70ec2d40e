"""Which disks can be given their file anew, by their definition and their block nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from moorline.errors import Refused
from moorline.hypervisors.libvirt.block_graph import (
    Chain,
    Graph,
    Opened,
    call_away,
    chain_of,
    demand_expected,
    demand_stopped_by_errors,
    next_call,
)

CHAIN = Chain("vdb", "ua-vol-1", "/share/disk", "raw", "2", True, "native")
CACHE = {"direct": True, "no-flush": False}
NODE: dict[str, Any] = {"ro": False, "encrypted": False, "cache": CACHE}
NODES: dict[str, dict[str, Any]] = {
    "libvirt-2-format": {**NODE, "drv": "raw"},
    "libvirt-2-storage": {**NODE, "drv": "file"},
}
GRAPH = Graph(CHAIN.top, NODES, [("", CHAIN.top), (CHAIN.top, CHAIN.storage)])
INODE = 77
HERE, ANOTHER = Opened(frozenset({INODE}), frozenset()), Opened(frozenset({5}), frozenset())


def disk(**so: str) -> ET.Element:
    said = {
        "type": "file",
        "driver": "type='raw' cache='none' io='native'",
        "of_driver": "",
        "policies": "error_policy='stop' rerror_policy='stop'",
        "source": "file='/share/disk' index='2'",
        "of_source": "",
        "alias": "ua-vol-1",
        "more": "",
        **so,
    }
    return ET.fromstring(
        "<disk type='{type}'><driver name='qemu' {driver} {policies}>{of_driver}</driver>"
        "<source {source}>{of_source}</source><backingStore/><target dev='vdb'/>{more}"
        "<alias name='{alias}'/></disk>".format_map(said)
    )


def test_the_nodes_of_a_disk() -> None:
    assert chain_of(disk(), raw_is_bare=False) == CHAIN
    assert chain_of(disk(), raw_is_bare=True) == replace(CHAIN, is_bare=True)
    direct = chain_of(disk(driver="type='qcow2' cache='directsync'"), raw_is_bare=True)
    assert (direct.is_bare, direct.format, direct.aio) == (False, "qcow2", "")
    demand_stopped_by_errors(disk(), CHAIN)


@pytest.mark.parametrize(
    "so",
    [
        {"type": "block"},
        {"type": "network", "source": "protocol='nbd' name='x' index='2'"},
        {"of_source": "<encryption format='luks'/>"},
        {"of_source": "<slices><slice type='storage' offset='1' size='2'/></slices>"},
        {"of_source": "<reservations managed='yes'/>"},
        {"of_driver": "<metadata_cache/>"},
        {"driver": "type='raw' cache='none' detect_zeroes='on'"},
        {"driver": "type='raw' cache='none' discard='unmap'"},
        {"driver": "type='vmdk' cache='directsync'"},
        {"driver": "type='raw'"},
        {"driver": "type='raw' cache='unsafe'"},
        {"driver": "type='qcow2' cache='none'"},
        {"source": "file='/share/disk'"},
        {"alias": ""},
        *({"more": f"<{tag}/>"} for tag in ("mirror", "shareable", "readonly", "transient")),
        {"more": "<encryption format='luks'/>"},
        {"more": "<iotune><total_bytes_sec>1</total_bytes_sec></iotune>"},
    ],
    ids=str,
)
def test_a_definition_that_may_have_other_nodes_is_refused(so: dict[str, str]) -> None:
    with pytest.raises(Refused, match="vdb"):
        chain_of(disk(**so), raw_is_bare=False)


def test_a_disk_without_a_driver_or_a_source_is_refused() -> None:
    for tag in ("driver", "source"):
        without = disk()
        without.remove(without.find(tag))  # type: ignore[arg-type]
        with pytest.raises(Refused, match="no file"):
            chain_of(without, raw_is_bare=False)


@pytest.mark.parametrize("policy", ["error_policy", "rerror_policy"])
@pytest.mark.parametrize("other", ["report", "ignore", "enospace"])
def test_a_guest_that_is_told_of_reads_or_of_writes_is_refused(policy: str, other: str) -> None:
    policies = {"error_policy": "stop", "rerror_policy": "stop", policy: other}
    said = " ".join(f"{name}='{value}'" for name, value in policies.items())
    with pytest.raises(Refused, match="told to the guest"):
        demand_stopped_by_errors(disk(policies=said), CHAIN)


def graph(name: str = CHAIN.top, **facts: Any) -> Graph:
    return replace(GRAPH, nodes={**NODES, name: {**NODES[name], **facts}})


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize(
    "facts",
    [
        {"encrypted": True},
        {"ro": True},
        {"active": False},
        {"drv": "throttle"},
        {"cache": {**CACHE, "direct": False}},
        {"cache": {**CACHE, "no-flush": True}},
        {"dirty-bitmaps": [{"name": "checkpoint"}]},
    ],
    ids=str,
)
def test_a_node_with_another_property_is_refused(name: str, facts: dict[str, Any]) -> None:
    demand_expected(CHAIN, GRAPH)
    with pytest.raises(Refused, match=name):
        demand_expected(CHAIN, graph(name, **facts))


@pytest.mark.parametrize(
    "other",
    [
        replace(GRAPH, drive="another"),  # and somebody else's device is on ours
        replace(GRAPH, edges=[("", CHAIN.top)]),
        replace(GRAPH, edges=[*GRAPH.edges, ("backup", CHAIN.storage)]),
        replace(GRAPH, edges=[*GRAPH.edges, ("", CHAIN.top)]),
        replace(GRAPH, edges=[*GRAPH.edges, (CHAIN.top, "base")]),
    ],
    ids=lambda other: f"{other.drive}, {len(other.edges)} edges",
)
def test_a_graph_that_is_not_exactly_the_expected_one_is_refused(other: Graph) -> None:
    with pytest.raises(Refused, match="its block nodes are"):
        demand_expected(CHAIN, other)


def test_a_disk_on_another_file_is_taken_off_it_while_there_is_where_to() -> None:
    held = replace(GRAPH, nodes={**NODES, CHAIN.hold: {}})
    away = call_away(CHAIN, held, ANOTHER, INODE)
    assert away is not None
    assert away.arguments["value"] == CHAIN.hold
    assert call_away(CHAIN, held, HERE, INODE) is None
    assert call_away(CHAIN, held, Opened(frozenset(), frozenset({INODE})), INODE) is None
    assert call_away(CHAIN, GRAPH, ANOTHER, INODE) is None
    both = Opened(frozenset({INODE}), frozenset({INODE}))  # QEMU has the lost one open, too
    assert next_call(CHAIN, GRAPH, both, INODE) is None
    for opened in (ANOTHER, Opened(frozenset(), frozenset())):
        with pytest.raises(Refused, match="not the file open"):
            next_call(CHAIN, GRAPH, opened, INODE)
