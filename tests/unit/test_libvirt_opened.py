"""Which files a guest's QEMU has open, on a process table of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.errors import Failed
from moorline.hypervisors.libvirt import qemu_open_files
from moorline.hypervisors.libvirt.extending import replaced
from moorline.hypervisors.libvirt.qemu_open_files import opened
from moorline.model import GuestId

GUEST = GuestId("01234567-89ab-cdef-0123-456789abcdef")


def process(proc: Path, pid: int, *words: str, files: tuple[str, ...] = ()) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "cmdline").write_bytes("\0".join((*words, "")).encode())
    for number, file in enumerate(files):
        (proc / str(pid) / "fd" / str(number)).symlink_to(file)


def test_its_process_is_known_by_the_guest_s_uuid(tmp_path: Path) -> None:
    process(tmp_path, 1, "init", files=("/one",))
    process(tmp_path, 2, "virsh", "domblklist", GUEST, files=("/two",))
    process(tmp_path, 3, "qemu", "-uuid", "another", files=("/three",))
    (tmp_path / "4").mkdir()
    (tmp_path / "self").mkdir()
    assert opened(GUEST, "n", tmp_path, tmp_path / "run") is None
    process(tmp_path, 5, "qemu", "-name", "n", "-uuid", GUEST, files=("/a", "/b (deleted)"))
    assert opened(GUEST, "n", tmp_path, tmp_path / "run") == {"/a", "/b (deleted)"}


@pytest.mark.parametrize("said", ["6\n", "", "-1", "nonsense", "2\n", "9\n"])
def test_the_process_that_libvirt_names_is_looked_at_first(tmp_path: Path, said: str) -> None:
    """If it is the guest's: a pid file may be left from before."""
    proc, pid_files = tmp_path / "proc", tmp_path / "run"
    pid_files.mkdir()
    (pid_files / "n.pid").write_text(said)
    process(proc, 2, "init", files=("/one",))
    process(proc, 6, "qemu", "-uuid", GUEST, files=("/a",))
    read = [each.name for each in qemu_open_files._processes("n", proc, pid_files)]
    assert (read[0] == "6" and len(read) == 3) or said != "6\n"
    assert opened(GUEST, "n", proc, pid_files) == {"/a"}


@pytest.mark.parametrize("uuid", ["not-there", GUEST])
def test_what_cannot_be_told_is_not_replaced(tmp_path: Path, uuid: str) -> None:
    file = tmp_path / "disk"
    file.touch()

    def measure(path: Path) -> int:
        return path.stat().st_size

    for source in (str(file), "", "/dev/sda"):
        assert replaced(GuestId(uuid), "n", source, measure, dict.fromkeys) == ""


def test_a_file_that_cannot_be_looked_at_is_no_replaced_one(tmp_path: Path) -> None:
    def measure(path: Path) -> int:
        raise OSError(107, "not connected")

    with pytest.raises(Failed, match="not connected"):
        replaced(GUEST, "n", str(tmp_path), measure, lambda paths: {})
