"""libvirt can do with a disk that was given anew what it could before; and such a disk can be given
anew once more. A part of `make survive`.
"""

from __future__ import annotations

import pytest
from libvirt_rig import until
from scene import Scene
from survive_rig import (
    RUNS,
    attached,
    end,
    goes_on,
    long,
    renew,
    run,
    tried_here,
)

from lab.guest import Guest
from lab.writer import Writer

pytestmark = [tried_here, long]
FORMATS = ("raw", "qcow2")
TARGETS = ("vda", "sda")


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["", "an I/O thread"])
def has_thread(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def guest(guest: Guest, request: pytest.FixtureRequest, *, has_thread: bool) -> Guest:
    return request.getfixturevalue("threaded") if has_thread else guest  # type: ignore[no-any-return]


@pytest.fixture
def writers(survivors: Scene, guest: Guest, form: str, *, has_thread: bool) -> list[Writer]:
    """On a disk of each bus, which was given anew."""
    buses = ("virtio",) if has_thread else ("virtio", "scsi")
    writers = attached(survivors, guest, *buses, form=form, has_thread=has_thread)
    renew(survivors, guest, writers)
    return writers


def again(scene: Scene, guest: Guest, writers: list[Writer], form: str) -> None:
    """The client dies once more; all goes on, and the disks go at the end."""
    renew(scene, guest, writers)
    end(scene, guest, writers, form)


def test_it_is_unplugged(survivors: Scene, guest: Guest, form: str, writers: list[Writer]) -> None:
    end(survivors, guest, writers, form)


def test_it_grows(survivors: Scene, guest: Guest, form: str, writers: list[Writer]) -> None:
    for target, writer in zip(TARGETS, writers, strict=False):
        run("virsh", "blockresize", guest.name, target, "4MiB")
        assert "4194304" in run("virsh", "domblkinfo", guest.name, target)
        device = guest.wait_for(writer.volume.id)
        until(lambda: guest.agent.check(f"blockdev --getsize64 {device}") == ["4194304"])  # noqa: B023
    again(survivors, guest, writers, form)


def test_it_has_a_snapshot_that_is_committed(
    survivors: Scene, guest: Guest, form: str, writers: list[Writer]
) -> None:
    targets = TARGETS[: len(writers)]
    for target in targets:
        snap = survivors.mount_point() / f"{target}.snap"
        only = [f"--diskspec={target},file={snap},snapshot=external"]
        only += [f"--diskspec={other},snapshot=no" for other in {*targets} - {target}]
        run("virsh", "snapshot-create-as", guest.name, "--disk-only", "--no-metadata", *only)
        goes_on(writers)
        run("virsh", "blockcommit", guest.name, target, "--active", "--pivot", "--wait")
        snap.unlink()
    again(survivors, guest, writers, form)


def test_it_is_copied_elsewhere_and_back(
    survivors: Scene, guest: Guest, form: str, writers: list[Writer]
) -> None:
    for target, writer in zip(TARGETS, writers, strict=False):
        at = survivors.mount_point()
        copy, own = at / f"{target}.copy", at / writer.volume.file.name
        whole = ("--format", form, "--transient-job", "--wait")
        run("virsh", "blockcopy", guest.name, target, "--dest", str(copy), *whole, "--finish")
        assert copy.exists()
        copy.unlink()
        for to, how in ((copy, ()), (own, ("--reuse-external",))):
            run(
                "virsh", "blockcopy", guest.name, target, "--dest", str(to), *whole, *how, "--pivot"
            )
            goes_on(writers)
        copy.unlink()
    again(survivors, guest, writers, form)


def test_its_guest_is_saved_and_restored(
    survivors: Scene, guest: Guest, form: str, writers: list[Writer]
) -> None:
    saved = survivors.directory / "saved"
    run("virsh", "save", guest.name, str(saved))
    guest.agent.close()
    run("virsh", "restore", str(saved))
    until(lambda: guest.domain.state()[0] == RUNS)
    again(survivors, guest, writers, form)
