"""A file of attachments names volumes of Cinder's: applied, and applied again."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cinder.server import Volume
from moorline.cli import apply, declared
from tests.support.cinder_rig import CinderRig, gone

pytest.importorskip("openstack")


def applied(rig: CinderRig, text: str) -> list[str]:
    """What `moorline apply` finds to do for a file of that text; it does it, too."""
    moorline = rig.owner()
    what = declared.read(Path("/file"), text)
    changes = apply._changes(what, "web", moorline, moorline.attachments.list())
    for change in changes:
        apply._do(moorline, change, "web", {"timeout": 0})
    return [change.action for change in changes]


def test_it_is_attached_once_and_pruned(rig: CinderRig, volume: Volume) -> None:
    text = "attachments: [{guest: web01, storage: 'cinder:data'}]"
    assert applied(rig, text) == ["attach"]
    assert rig.has(volume)
    before = dict(rig.cloud.attachments)
    assert applied(rig, text) in (["none"], ["attach"])
    assert rig.cloud.attachments == before
    moorline = rig.owner()
    [change] = apply._to_prune(moorline.attachments.list(), "web", set(), fails=False)
    rig.survive(lambda: apply._do(moorline, change, "web", {"timeout": 0.1}))
    gone(rig, volume)
