"""How a guest is on a host, by libvirt's states; and the options of its migration."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from moorline.errors import Refused
from moorline.hypervisors.libvirt.migration import MIGRATION_OPTIONS, Migration
from moorline.hypervisors.libvirt.presence import (
    ARRIVED_NAMESPACE,
    is_novas,
    marked,
    presence,
    unshared,
    was_paused,
)
from moorline.ports.moving import Presence

RUNNING, PAUSED, SHUTOFF = 1, 3, 5
UNKNOWN, BY_USER, MIGRATION, IO_ERROR, STARTING_UP = 0, 1, 2, 5, 11
PLAIN = "<domain id='7'><name>g</name></domain>"
ARRIVED = marked(PLAIN, paused=False)


@pytest.mark.parametrize(
    ("xml", "state", "reason", "job", "expected"),
    [
        ("<domain><name>g</name></domain>", SHUTOFF, UNKNOWN, False, Presence.STOPPED),
        (PLAIN, RUNNING, 1, False, Presence.RUNNING),
        (PLAIN, PAUSED, BY_USER, False, Presence.RUNNING),
        (PLAIN, PAUSED, IO_ERROR, False, Presence.RUNNING),
        (PLAIN, PAUSED, STARTING_UP, False, Presence.RUNNING),
        (PLAIN, PAUSED, MIGRATION, True, Presence.RUNNING),
        (PLAIN, PAUSED, MIGRATION, False, Presence.SENT),
        (ARRIVED, PAUSED, STARTING_UP, True, Presence.INCOMING),
        (ARRIVED, PAUSED, MIGRATION, True, Presence.INCOMING),
        (ARRIVED, PAUSED, MIGRATION, False, Presence.INCOMING),
        (ARRIVED, PAUSED, BY_USER, False, Presence.ARRIVED),
        (ARRIVED, PAUSED, UNKNOWN, False, Presence.ARRIVED),
        (ARRIVED, PAUSED, IO_ERROR, False, Presence.RUNNING),
        (ARRIVED, RUNNING, 1, False, Presence.RUNNING),
    ],
)
def test_presence(xml: str, state: int, reason: int, job: bool, expected: Presence) -> None:
    assert presence(ET.fromstring(xml), state, reason, job=job) is expected


def test_a_mark_is_made_once_and_beside_what_others_wrote() -> None:
    xml = PLAIN.replace("<name>", "<metadata><x:y xmlns:x='urn:x'/></metadata><name>")
    twice = ET.fromstring(marked(marked(xml, paused=False), paused=True))
    assert [each.tag for each in twice.iterfind("metadata/*")] == [
        "{urn:x}y",
        f"{{{ARRIVED_NAMESPACE}}}arrived",
    ]
    assert was_paused(twice)
    assert not was_paused(ET.fromstring(ARRIVED))


def test_novas_guests_are_told_by_their_metadata() -> None:
    nova = (
        "<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.0'/></metadata>"
    )
    assert is_novas(ET.fromstring(PLAIN.replace("<name>", f"{nova}<name>")))
    assert not is_novas(ET.fromstring(PLAIN))


OURS = (
    "<disk type='file' device='disk'><driver type='raw' cache='none'/><source file='/s/v'>"
    "<seclabel model='dac' relabel='no'/></source><target dev='vda'/><serial>V</serial>"
    "<alias name='ua-V'/></disk>"
)


CACHED = "disk vda is in this host's page cache, which no other host sees"
UNKNOWN_TO_ALL = "disk vda is on storage of which nobody says that other hosts have it"
QUOBYTE = OURS.replace("relabel='no'", "relabel='yes'").replace("/s/v", "/q/v")
BLOCK = "<disk type='block' device='disk'><driver cache='none'/><source dev='/d'/></disk>"


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (OURS, ""),
        (OURS.replace("'disk'>", "'cdrom'>"), ""),
        (OURS.replace("cache='none'", "cache='writeback'"), CACHED),
        (OURS.replace("relabel='no'", "relabel='yes'"), UNKNOWN_TO_ALL),
        (OURS.replace("ua-V", "ua-W"), UNKNOWN_TO_ALL),
        (OURS.replace("<serial>", "<readonly/><serial>"), ""),
        (QUOBYTE, ""),
        (QUOBYTE.replace("ua-V", "ua-W"), ""),
        (QUOBYTE.replace("cache='none'", "cache='writeback'"), CACHED),
        (BLOCK, ""),
        ("<disk type='network' device='disk'><source protocol='nbd' name='v'/></disk>", ""),
        (BLOCK.replace("none", "unsafe"), CACHED.replace("vda", "?")),
    ],
)
def test_a_disk_is_known_to_be_shared_or_named(disk: str, expected: str) -> None:
    xml = f"<domain><devices>{OURS.replace('V', 'U')}{disk}</devices></domain>"
    types = {"/q/v": "fuse.quobyte", "/s/v": "fuse.vstorage"}
    assert unshared(ET.fromstring(xml), types.__getitem__) == expected


def test_without_options_a_guest_goes_through_libvirts_own_tls() -> None:
    how = Migration.from_values({})
    assert how == Migration()
    assert (how.uri, how.tunnelled) == ("qemu+tls://%s/system", True)


def test_options_are_read() -> None:
    values = ("qemu+tcp://%s/system", "true", "True", "100", "true", "60", "force_complete")
    given = {option.name: value for option, value in zip(MIGRATION_OPTIONS, values, strict=True)}
    how = Migration.from_values(given)
    assert how == Migration(values[0], False, True, 100, True, 60, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uri", "qemu+tls://host/system"),
        ("uri", "qemu+tls://%s/%s"),
        ("uri", "qemu+tls://%s/%d"),
        ("tunnelled", "yes"),
        ("bandwidth", "-1"),
        ("bandwidth", ""),
        ("completion_timeout", "1.5"),
        ("timeout_action", "post_copy"),
    ],
)
def test_an_option_that_means_nothing_is_refused(name: str, value: str) -> None:
    with pytest.raises(Refused, match=f"live_migration_{name}"):
        Migration.from_values({f"live_migration_{name}": value})
