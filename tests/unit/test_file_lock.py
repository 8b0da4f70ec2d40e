"""One process at a time gives a file to a guest, whatever its state directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorline.errors import Busy, Denied, Unavailable
from moorline.host.file_lock import FileLock
from moorline.model import GuestId
from moorline.ports import FileId

A, B = FileId("/a", 1, 17), FileId("/b", 1, 18)
HOLD = """
import sys, time
from pathlib import Path
from moorline.host.file_lock import FileLock
from moorline.ports import FileId
FileLock(Path(sys.argv[1])).take({FileId("/elsewhere/a", 2, 17): True}, 0)
print("mine", flush=True)
time.sleep(60)
"""


@contextmanager
def another_process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """It has the file that is A here, by another name and on another mount."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "mine\n"
        yield child
        child.kill()


def free(directory: Path, file: FileId, *, writes: bool = True) -> bool:
    lock = FileLock(directory)
    try:
        lock.take({file: writes}, 0)
    except Busy:
        return False
    finally:
        lock.release()
    return True


def test_who_has_it_is_named_and_others_go_on(tmp_path: Path) -> None:
    with another_process(tmp_path) as child:
        with pytest.raises(Busy, match=rf"\({child.pid}\) is giving /a to a guest"):
            FileLock(tmp_path).take({A: True}, 0.1)
        assert free(tmp_path, B)
        child.kill()
        child.wait()
        FileLock(tmp_path).take({A: True}, 1)


def test_who_waits_has_it_in_time(tmp_path: Path) -> None:
    first = FileLock(tmp_path)
    first.take({A: True}, 0)
    threading.Timer(0.2, first.release).start()
    FileLock(tmp_path).take({A: True}, 10)


def test_threads_are_told_apart(tmp_path: Path) -> None:
    mine = FileLock(tmp_path)
    mine.take({A: True}, 0)
    with pytest.raises(Busy, match=rf"\({os.getpid()}\) is giving"):
        FileLock(tmp_path).take({A: True}, 0)
    assert free(tmp_path, B)
    mine.release()
    assert free(tmp_path, A)


def test_who_only_reads_does_not_wait_for_who_only_reads(tmp_path: Path) -> None:
    FileLock.take(reads := FileLock(tmp_path), {A: False}, 0)
    assert free(tmp_path, A, writes=False)
    assert not free(tmp_path, A)
    reads.release()
    FileLock.take(writes := FileLock(tmp_path), {A: True}, 0)
    assert not free(tmp_path, A, writes=False)
    writes.release()


def test_one_file_twice_is_written_to(tmp_path: Path) -> None:
    lock = FileLock(tmp_path)
    lock.take({A: True, FileId("/also", 1, 17): False}, 0)
    assert not free(tmp_path, A, writes=False)


def test_a_device_is_no_file_of_its_number(tmp_path: Path) -> None:
    lock = FileLock(tmp_path)
    lock.take({FileId("/dev/loop1", 5, 3, node=17): True}, 0)
    assert free(tmp_path, A)
    assert not free(tmp_path, FileId("/dev/also", 5, 4, node=17))


def test_any_number_that_a_file_system_gives_can_be_locked(tmp_path: Path) -> None:
    for inode in (0, (1 << 62) - 1, (1 << 63) + 5, (1 << 64) - 1):
        assert free(tmp_path, FileId("/huge", 1, inode))


def test_two_that_want_two_files_end(tmp_path: Path) -> None:
    """Each takes both, in the order in which it names them."""
    came = []

    def take(*files: FileId) -> None:
        for _ in range(200):
            lock = FileLock(tmp_path)
            lock.take(dict.fromkeys(files, True), 20)
            lock.release()
        came.append(files)

    threads = [threading.Thread(target=take, args=order) for order in ((A, B), (B, A))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(came) == 2


@pytest.mark.parametrize(
    ("theirs", "mine", "seen"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_what_was_left_is_told_to_who_must_know(
    tmp_path: Path, theirs: bool, mine: bool, seen: bool
) -> None:
    first = FileLock(tmp_path)
    first.take({A: theirs, B: True}, 0)
    first.begin(GuestId("g/1"))
    first.release()  # as one who dies
    second = FileLock(tmp_path)
    second.take({A: mine}, 0)
    assert [*second.left()] == ["g/1"] * seen
    second.begin(GuestId("g2"))
    second.end()
    assert second.left() == {}
    second.release()
    third = FileLock(tmp_path)
    third.take({A: True, B: True}, 0)
    assert [*third.left()] == ["g/1"]  # for the other file it still is


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path)
    lock.take({A: True}, 0)
    with subprocess.Popen(["sleep", "5"], close_fds=False) as child:
        time.sleep(0.05)
        lock.release()
        assert free(tmp_path, A)
        child.kill()


def test_without_a_place_for_it_nothing_is_given(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="it cannot be told whether another process"):
        FileLock(tmp_path / "no" / "such").take({A: True}, 0)


def test_what_was_done_is_done_also_where_its_note_is_gone(tmp_path: Path) -> None:
    """Somebody tidied up in /run."""
    (tmp_path / "locks").mkdir()
    lock = FileLock(tmp_path / "locks")
    lock.take({A: True}, 0)
    lock.begin(GuestId("g1"))
    shutil.rmtree(tmp_path / "locks")
    lock.end()
    with pytest.raises(Unavailable):
        lock.left()
    lock.release()
    assert free(tmp_path / "locks", A)


def test_a_file_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "files.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(Unavailable):
        FileLock(tmp_path).take({A: True}, 0)
    assert not (tmp_path / "victim").exists()


def test_a_link_to_a_directory_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(Denied):
        FileLock(tmp_path / "link").take({A: True}, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_each_user_has_one_place_that_is_his() -> None:
    assert str(FileLock()._path) == "/run/moorline/files.lock"
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        os.seteuid(65534)
        try:
            assert str(FileLock()._path) == "/dev/shm/moorline-65534/files.lock"
            with pytest.raises(Denied):  # another user made it first
                FileLock(Path(directory)).take({A: True}, 0)
        finally:
            os.seteuid(0)


def test_what_a_guest_was_being_given_is_found_by_the_guest(tmp_path: Path) -> None:
    """By whom is gone; not what somebody is at now, nor what another guest was given."""
    web, db = GuestId("web"), GuestId("db")
    for file, guest in ((A, web), (B, db)):
        died = FileLock(tmp_path)
        died.take({file: True}, 0)
        died.begin(guest)
        died.release()
    with another_process(tmp_path):  # it has A
        look = FileLock(tmp_path)
        assert not look.take_left(web)
        look.release()
    look = FileLock(tmp_path)
    assert look.take_left(web)
    assert not free(tmp_path, A)
    ((guest, seconds),) = look.left().items()
    assert guest == web
    assert 0 <= seconds < 60
    look.end()
    look.release()
    again = FileLock(tmp_path)
    assert not again.take_left(web)
    again.release()


def test_where_nothing_was_ever_given_nothing_is_left(tmp_path: Path) -> None:
    """A detach goes on where nothing could be locked for an attach."""
    assert not FileLock(tmp_path / "no" / "such").take_left(GuestId("web"))
