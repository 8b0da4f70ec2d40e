"""A day with the command: declared, seen, changed, pruned and taken away; again with an agent."""

from __future__ import annotations

import json
from pathlib import Path

from scene import Scene, Volume

from lab.guest import Guest


def declared(scene: Scene, guest: Guest, *volumes: Volume) -> str:
    entries = [{"guest": guest.name, "connection_file": v.connection.name} for v in volumes]
    text = json.dumps({"label": "day", "attachments": entries})
    return str(scene.write("attachments.yaml", text))


def test_declared_attachments_are_made_seen_and_pruned(scene: Scene, guest: Guest) -> None:
    moorline = scene.moorline
    one, two = scene.volume(), scene.volume()
    both = declared(scene, guest, one, two)
    moorline("diff", "-f", both, code=10)
    assert moorline.json("list") == []
    moorline("apply", "-f", both)
    assert scene.attachments() == dict.fromkeys((one.id, two.id), ("attached", "attached"))
    views = moorline.json("list", guest.name, "--label", "day", "--sizes")
    assert {view["size"] for view in views} == {2 << 20}
    assert {Path(view["storage"]).name for view in views} == {one.file.name, two.file.name}
    assert len(moorline.json("list", "--share", str(scene.mount_point()))) == 2
    for view in views:
        (shown,) = moorline.json("show", view["device"], "--guest", guest.name)
        assert (shown["volume"], shown["size"]) == (view["volume"], 2 << 20)
    whose = {each["disk"]["mark"]: each["whose"] for each in moorline.json("disks", guest.name)}
    assert (whose[one.id], whose[two.id]) == ("ours", "ours")
    scene.write("exported.yaml", moorline("export", guest.name).stdout)
    moorline("diff", "-f", str(scene.directory / "exported.yaml"))
    moorline("apply", "-f", declared(scene, guest, one), "--prune")
    assert scene.attachments() == {one.id: ("attached", "attached")}
    told = moorline.json("status")
    assert (told["attachments"], told["not_as_wanted"]) == (1, 0)
    left = moorline.json("detach", guest.name, one.id, "--wait=false")
    assert left["view"]["wanted"] == "absent"
    scene.detach(guest.name, one)
    moorline("wait", one.id, "--for", "detached", "--timeout", "60")
    assert scene.is_clean()


def test_several_volumes_at_once(scene: Scene, guest: Guest) -> None:
    volumes = [scene.volume(), scene.volume()]
    words = [word for v in volumes for word in ("--connection", str(v.connection))]
    told = scene.moorline.json("attach", guest.name, *words)
    assert [each["view"]["seen"] for each in told] == ["attached", "attached"]
    scene.moorline("wait", volumes[1].id, "--for", "attached")
    foreseen = scene.moorline("remove", guest.name, "--any", "--dry-run").stdout
    assert all(volume.id in foreseen for volume in volumes)
    scene.moorline("detach", guest.name, *(volume.id for volume in volumes))
    assert scene.is_clean()


def test_what_is_spelled_otherwise_is_not_pruned(scene: Scene, guest: Guest) -> None:
    moorline = scene.moorline
    one, two = scene.volume(), scene.volume()
    registries, _, volume = scene.share.export.partition("/")
    turned = ",".join(reversed(registries.split(",")))
    assert turned != registries

    def file(guest: str, *storages: str) -> str:
        entries = [{"guest": guest, "storage": each, "format": "raw"} for each in storages]
        text = json.dumps({"label": "day", "attachments": entries})
        return str(scene.write("attachments.yaml", text))

    both = [f"quobyte://{scene.share.export}/{each.file.name}" for each in (one, two)]
    moorline("apply", "-f", file(guest.name, *both))
    attached = scene.attachments()
    assert len(attached) == 2
    again = [f"quobyte://{turned}/{volume}/{each.file.name}" for each in (one, two)]
    for name in (guest.name, guest.domain.UUIDString()[:8]):
        moorline("diff", "-f", file(name, *again), "--prune")
        moorline("apply", "-f", file(name, *again), "--prune")
        assert scene.attachments() == attached
    moorline("apply", "-f", file("mistyped", again[0]), "--prune", code=4)
    assert scene.attachments() == attached
    moorline("apply", "-f", file(guest.name, again[0]), "--prune")
    assert len(scene.attachments()) == 1
    moorline("apply", "-f", file(guest.name), "--prune")
    assert scene.is_clean()
