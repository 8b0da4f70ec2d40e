"""A planted password turns up nowhere that is printed, started, mounted, locked or stored."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from libvirt_rig import until
from scene import Scene

from lab.guest import Guest, pattern

PASSWORD = "hunter2-PLANTED-5f1c"
FORMS = [
    PASSWORD.encode(),
    PASSWORD.lower().encode(),
    PASSWORD.encode("utf-16-le"),
    PASSWORD.encode().hex().encode(),
]
PLANTED: dict[str, Any] = {
    "auth_username": "cinder",
    "auth_password": PASSWORD,
    "credentials": {"nested": [PASSWORD]},
}


def betrayed(data: bytes | str) -> bool:
    data = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    return any(form in data for form in FORMS)


class Watch:
    """Reads what anybody may read of every process, as fast as it can."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with suppress(OSError):
                        self.seen.add((process / name).read_bytes())
            time.sleep(0.003)


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    try:
        yield watch
    finally:
        watch.stop()


def files_below(directory: Path, but: Path) -> Iterator[tuple[str, bytes]]:
    for path in directory.rglob("*"):
        if path == but:
            continue
        yield str(path), str(path).encode()
        if path.is_file() and "/mnt/" not in str(path):
            yield str(path), path.read_bytes()


def assert_kept(scene: Scene, guest: Guest, given: Path) -> None:
    """Nothing that outlives a command bears the password; *given* is the user's own file."""
    for name, data in files_below(scene.directory, given):
        assert not betrayed(data), name
    assert not betrayed(json.dumps(scene.share.cluster.calls()))
    assert not betrayed(Path("/proc/self/mountinfo").read_text())
    assert not betrayed(Path("/proc/locks").read_text())
    assert not betrayed(guest.domain.XMLDesc() + guest.domain.XMLDesc(2))
    for log in Path("/var/log/libvirt").rglob("*.log"):
        assert not betrayed(log.read_bytes()), log


def test_a_password_in_a_connection(scene: Scene, guest: Guest) -> None:
    volume = scene.volume(**PLANTED)
    assert betrayed(volume.connection.read_text())  # it is planted
    printed = ""
    with watched() as watch:
        scene.share.command(fail={"code": 1, "stderr": "no route"})
        done = scene.attach(guest.name, volume, "--timeout", "0.3", code=5)
        printed += done.stdout + done.stderr
        scene.share.command(slow=0.3)
        for output in ("text", "json", "yaml"):
            for args in (
                ("attach", guest.name, "--connection", str(volume.connection)),
                ("list",),
                ("show", volume.id),
                ("sweep",),
            ):
                done = scene.moorline(*args, "--output", output, "--verbose")
                printed += done.stdout + done.stderr
        guest.write(volume.id, "with a password")
        assert_kept(scene, guest, volume.connection)
        done = scene.detach(guest.name, volume)
        printed += done.stdout + done.stderr
    assert volume.bytes() == pattern("with a password")
    assert any(b"mount.quobyte" in line for line in watch.seen)  # it sees what is short-lived
    assert not [line for line in watch.seen if betrayed(line)]
    assert not betrayed(printed)
    assert_kept(scene, guest, volume.connection)
    assert scene.is_clean()


def hostile(scene: Scene) -> list[dict[str, Any]]:
    """Connections that are refused for the very field that holds the password."""
    share = scene.share
    return [
        share.connection("disk", export=f"cinder:{PASSWORD}@{share.export}"),
        share.connection("disk", export=f"{share.export}:{PASSWORD}"),
        share.connection("disk", export=f"quobyte://u:{PASSWORD}@{share.export}"),
        share.connection("disk", options=f"-o user=cinder,password={PASSWORD}"),
        share.connection("disk", options={"password": PASSWORD}),
        {"driver_volume_type": "quobyte", "data": f"password={PASSWORD}"},
        {"data": {"auth_password": PASSWORD}},
    ]


def test_a_password_in_what_is_refused(scene: Scene, guest: Guest) -> None:
    scene.share.disk("disk")
    texts = [json.dumps(connection) for connection in hostile(scene)]
    texts += [f'{{"data": {{"auth_password": "{PASSWORD}"', f"{PASSWORD}", f'["{PASSWORD}"]']
    for text in texts:
        for output in ("text", "json"):
            args = ("attach", guest.name, "--connection", "-", "--output", output)
            done = scene.moorline(*args, stdin=text, code=3)
            assert not betrayed(done.stdout + done.stderr), (text, done.stderr)
    assert scene.share.cluster.calls() == []
    assert_kept(scene, guest, Path("/"))


def test_a_password_in_a_url(scene: Scene, guest: Guest) -> None:
    """A command line is no place for one, but what is mistyped must go no further."""
    share = scene.share
    for url in (
        f"quobyte://cinder:{PASSWORD}@{share.export}/disk",
        f"quobyte://{share.export}:{PASSWORD}/disk",
        f"quobyte://cinder:{PASSWORD}@{share.export}",
        f"quobyte://{PASSWORD}",
    ):
        done = scene.moorline("attach", guest.name, url, "--format", "raw", code=3)
        assert not betrayed(done.stdout + done.stderr), done.stderr
        for verb in (("show",), ("detach", guest.name), ("forget",)):
            done = scene.moorline(*verb, url, code=None)
            assert done.returncode in (3, 4)
            assert not betrayed(done.stdout + done.stderr), done.stderr
    assert scene.share.cluster.calls() == []
    assert_kept(scene, guest, Path("/"))


def test_a_failing_client_that_says_it(scene: Scene, guest: Guest) -> None:
    """Quobyte's client is given no secret, so it cannot repeat one; what it says is shown."""
    volume = scene.volume(auth_password=PASSWORD)
    scene.share.command(fail={"code": 1, "stderr": "bad\x1b[2J\ncredentials"})
    done = scene.attach(guest.name, volume, "--timeout", "0.2", code=5)
    assert "bad?[2J; credentials" in done.stderr
    assert not betrayed(done.stderr)
    scene.share.command()
    scene.detach(guest.name, volume)
    until(scene.is_clean)


def test_a_crash_tells_no_secret(scene: Scene, guest: Guest) -> None:
    """Whatever goes wrong: the record that holds the password is damaged, or its key is."""
    volume = scene.volume(auth_password=PASSWORD)
    scene.attach(guest.name, volume)
    state = scene.moorline.state
    assert state is not None
    key = (state / "key").read_bytes()
    assert (state / "key").stat().st_mode & 0o077 == 0
    assert (state / "moorline.db").stat().st_mode & 0o077 == 0
    for wrong in (bytes(32), b"short"):
        (state / "key").write_bytes(wrong)
        for args in (["list"], ["show", volume.id], ["detach", guest.name, volume.id]):
            done = scene.moorline(*args, code=11)
            assert "Traceback" not in done.stderr
            assert not betrayed(done.stdout + done.stderr)
    (state / "key").write_bytes(key)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_the_search_finds_what_is_there() -> None:
    for form in FORMS:
        assert betrayed(b"x" + form + b"y")
    assert not betrayed(b"hunter3")
