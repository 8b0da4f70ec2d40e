"""Asks a cluster of Ceph for an image, by the ``rbd`` command, which hangs if the cluster does.

What it answers, and exits with, is that of Ceph 16.2 (Debian 12), captured from a real cluster.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from moorline.errors import Failed, Refused, Uncertain
from moorline.network_disk import NetworkDisk, NetworkLogin
from moorline.ports import Command, Host

ASKS = "rbd"
"""The command that asks, of Debian's ceph-common."""
_ASKS_FSID = "ceph"
"""Unlike the other, it does not start without a configuration."""
_CONFIGURATION = Path("/etc/ceph/ceph.conf")
_LIBRBDS_OWN = "auto "
"""Begins the id of a lock that librbd takes itself, while one watches, and breaks if none does."""
_REFUSALS = {
    r"exited 1\b.*Operation not permitted": "the cluster does not let its user open it",
    r"exited 2\b.*error (opening|setting)": "there is no such image",
    r"exited 13\b": "the cluster lets nobody in by this user and key",
    r"exited 95\b": "the cluster lets nobody in so: it may want a user and key, or want none",
}
"""What is said of it where a command fails so: it exits with an errno, of which some have other
reasons, too. A cluster that is away is never told of: the command waits for it."""


class Told(NamedTuple):
    """What a cluster tells of an image."""

    size: int
    identity: tuple[str, str]
    """The cluster's fsid ('': not asked) and the image's id ('': a format that has none)."""
    watchers: tuple[str, ...] = ()
    """Who has it open, for writing or not, by address and number."""
    locks: tuple[str, ...] = ()
    """Who keeps it, by `rbd lock add` or as that does."""


class Images:
    """The images of clusters. *deadline*: seconds for each question."""

    def __init__(self, host: Host, deadline: float) -> None:
        self._host = host
        self._deadline = deadline

    def ask(self, disk: NetworkDisk, *, fsid: bool) -> Told:
        """What its cluster tells of *disk*. Raises Refused, Failed, Uncertain.

        Nothing that it does not tell counts as nothing: who has an image open is known, or it is
        not given to a guest. A snapshot cannot be changed, and nobody is asked who has it.
        """
        with _cluster(disk) as cluster:
            try:
                info = self._answer(disk, ASKS, *cluster, "info", disk.name)
                told = Told(
                    int(info["size"]),
                    (
                        self._fsid(disk, cluster) if fsid else "",
                        str(info.get("id", "")),
                    ),
                )
                if disk.readonly:
                    return told
                status = self._answer(disk, ASKS, *cluster, "status", disk.name)
                locks = self._answer(disk, ASKS, *cluster, "lock", "ls", disk.name)
                return told._replace(
                    watchers=tuple(
                        f"{w['address']} (client.{w['client']})" for w in status["watchers"]
                    ),
                    locks=tuple(
                        f"{lock['address']} ({lock['locker']})"
                        for lock in locks
                        if not lock["id"].startswith(_LIBRBDS_OWN)
                    ),
                )
            except (ValueError, KeyError, TypeError, AttributeError) as e:
                raise Failed(f"{ASKS} does not tell what {disk.name} is") from e

    def _fsid(self, disk: NetworkDisk, cluster: Sequence[str]) -> str:
        needed = () if _CONFIGURATION.exists() else ("-c", os.devnull)
        fsid: str = self._answer(disk, _ASKS_FSID, *cluster, *needed, "fsid")["fsid"]
        return fsid

    def _answer(self, disk: NetworkDisk, *argv: str) -> Any:
        command = Command((*argv, "--format", "json"), self._deadline)
        try:
            return json.loads(self._host.run(command).stdout)
        except Uncertain as e:
            raise Uncertain(
                f"the cluster of {disk.name} did not answer within {self._deadline:g} s",
                hint=f"its monitors: {', '.join(disk.servers) or 'those of /etc/ceph/ceph.conf'}",
            ) from e
        except Failed as e:
            for failure, why in _REFUSALS.items():
                if re.search(failure, e.message):
                    raise Refused(f"{disk.name}: {why}: {e.message}") from e
            raise Failed(f"the cluster of {disk.name} was not asked: {e.message}") from e


@contextmanager
def _cluster(disk: NetworkDisk) -> Iterator[list[str]]:
    """The arguments that say which cluster is asked, and as whom."""
    at = ["-m", ",".join(disk.servers)] if disk.servers else []
    if disk.login is None:  # as QEMU, which cannot read the host's keyrings
        yield [*at, "--auth-client-required", "none"]
        return
    with _readable(disk.login) as file:
        yield [*at, "--id", disk.login.user, "--keyfile", file]


@contextmanager
def _readable(login: NetworkLogin) -> Iterator[str]:
    """The path of a file with the key, in memory: it goes with us, and no argument has it.

    Ceph reads as many bytes as a file says that it has: a pipe is empty.
    """
    file = os.memfd_create("moorline-key")
    try:
        os.write(file, login.password.reveal().encode())
        yield f"/proc/{os.getpid()}/fd/{file}"
    finally:
        os.close(file)
