"""Stand-in for Virtuozzo Storage's client: ``vstorage``, ``vstorage-mount``, ``pstorage…`` of old.

Known, from public sources:

- ``vstorage -c CLUSTER auth-node -P``: authenticates this node; the password is read from
  standard input (docs.virtuozzo.com, Virtuozzo Storage 2.7). What is kept:
  ``/etc/vstorage/clusters/CLUSTER/auth_digest.key``.
- ``vstorage-mount -c CLUSTER MOUNTPOINT [-u USER] [-g GROUP] [-m MODE] [-l LOG] [-C CACHE]
  [-R MB] [-v]``: names, not numbers; libvirt's storage driver (storage_util.c), os-brick
  (remotefs) and Nova (virt/libvirt/volume/vzstorage.py) call it so.
- Metadata servers are found by DNS, or listed one a line in
  ``/etc/vstorage/clusters/CLUSTER/bs.list`` (docs.virtuozzo.com).
- Mount table: ``vstorage://CLUSTER``, ``fuse.vstorage``; of old ``pstorage://CLUSTER``,
  ``fuse.pstorage`` (libvzctl).
- Unmounting is plain umount(8).

Assumed, because nothing public says so: exit code 1 and the texts; that user, group and mode
are those of all files, and cannot be changed; that a changed password is noticed when a
cluster is mounted, not while it is; that a mount point that is mounted is mounted over.
The log and the cache are not written.

``clusters.json`` in the lab's ``virtuozzo`` directory has each cluster's ``servers``,
``password`` (or null) and whether ``dns`` tells its servers; ``clusters/NAME/`` is its
content; ``fuse/NAME.json`` controls the daemon of its mounts. ``control.json`` (see
standin.py) also takes ``type`` and ``source`` (to mount under a wrong one), and beneath
``auth`` what auth-node does. ``$MOORLINE_LAB_ETC`` stands for ``/etc``.
"""

from __future__ import annotations

import argparse
import grp
import hashlib
import hmac
import os
import pwd
import sys
from pathlib import Path
from typing import NoReturn

from lab.fuse import daemon as fuse
from lab.fuse.passthrough import Owner
from lab.standin import Failure, Product, Settings, act, run


def command() -> None:
    run(_command)


def mount() -> None:
    run(_mount)


def _client() -> str:
    """``vstorage`` or ``pstorage``, as we were called."""
    return Path(sys.argv[0]).name.partition("-")[0]


def configuration(client: str, cluster: str) -> Path:
    """Where the node keeps what it knows of a cluster."""
    return Path(os.environ.get("MOORLINE_LAB_ETC") or "/etc") / client / "clusters" / cluster


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(1, message)


def _command(argv: list[str]) -> None:
    product = Product("virtuozzo")
    product.note([_client(), *argv])
    parser = _Parser(prog=_client(), allow_abbrev=False)
    parser.add_argument("-c", dest="cluster", required=True)
    parser.add_argument("action", choices=["auth-node"])
    parser.add_argument("-P", dest="stdin", action="store_true", required=True)
    args = parser.parse_args(argv)
    cluster = _cluster(product, args.cluster)

    def deed() -> None:
        given = sys.stdin.readline().rstrip("\n")
        if cluster["password"] is None or not hmac.compare_digest(
            given.encode(), cluster["password"].encode()
        ):
            raise Failure(1, "authentication failed")
        kept = configuration(_client(), args.cluster)
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "auth_digest.key").write_text(_digest(given))

    act(product.control(args.cluster).get("auth", {}), deed)


def _mount(argv: list[str]) -> None:
    product = Product("virtuozzo")
    product.note([f"{_client()}-mount", *argv])
    parser = _Parser(prog=f"{_client()}-mount", allow_abbrev=False)
    parser.add_argument("-c", dest="cluster", required=True)
    parser.add_argument("mountpoint")
    parser.add_argument("-u", dest="user", default="root")
    parser.add_argument("-g", dest="group", default="root")
    parser.add_argument("-m", dest="mode", default="700")
    parser.add_argument("-v", action="store_true")
    for option in ("-l", "-C", "-R"):
        parser.add_argument(option)
    args = parser.parse_args(argv)
    control = product.control(args.cluster)

    def deed() -> None:
        cluster = _cluster(product, args.cluster)
        _check_access(cluster, configuration(_client(), args.cluster))
        _serve(product, args, control)

    act(control, deed)


def _cluster(product: Product, name: str) -> Settings:
    clusters = product.read("clusters.json")
    if name not in clusters:
        raise Failure(1, f"cluster {name!r} does not exist")
    found: Settings = clusters[name]
    return found


def _check_access(cluster: Settings, kept: Path) -> None:
    if not cluster["dns"]:
        listed = kept / "bs.list"
        servers = listed.read_text().split() if listed.exists() else []
        if not set(servers) & set(cluster["servers"]):
            raise Failure(1, "no metadata server can be reached")
    if cluster["password"] is not None:
        key = kept / "auth_digest.key"
        if not key.exists() or key.read_text() != _digest(cluster["password"]):
            raise Failure(1, "this node is not authenticated")


def _serve(product: Product, args: argparse.Namespace, control: Settings) -> None:
    try:
        uid, gid = pwd.getpwnam(args.user).pw_uid, grp.getgrnam(args.group).gr_gid
    except KeyError as e:
        raise Failure(1, f"unknown user or group: {e}") from e
    fuse.start(
        control.get("type", f"fuse.{_client()}"),
        control.get("source", f"{_client()}://{args.cluster}"),
        str(product.directory / "clusters" / args.cluster),
        os.path.realpath(args.mountpoint),
        str(product.directory / "fuse" / f"{args.cluster}.json"),
        Owner(uid, gid, int(args.mode, 8)),
    )


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
