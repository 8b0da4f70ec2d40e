"""Stand-in for Quobyte's client: ``mount.quobyte`` and ``umount.quobyte``.

Known, from public sources:

- ``mount.quobyte [--disable-xattrs] REG[,REG]/VOLUME MOUNTPOINT [-c CONFIG]``: Nova's
  quobyte volume driver (nova/virt/libvirt/volume/quobyte.py).
- ``-o rw,user_xattr``: github.com/quobyte/docker-volume/issues/22. Other flags:
  github.com/quobyte/quobyte-csi, example/client.yaml.
- Mount table: type ``fuse`` and ``quobyte@REG|REG/VOLUME`` (old clients, "|" though
  the command takes ","); type ``fuse.quobyte`` (2.x). The root of a live mount has
  size 0 (Nova's and Cinder's validation).
- Exit code 4, "already mounted": Nova change ffb228b (bug 1679976) and Cinder.
- A mount point that holds files is refused (example/client.yaml).

Assumed, because nothing public says so: every other exit code (1) and text; that
one reachable registry is enough; that 2.x shows the first registry alone; that
``umount.quobyte MOUNTPOINT`` fails as umount(8) does when it is busy.

``cluster.json`` in the lab's ``quobyte`` directory lists the registries that exist;
``volumes/NAME/`` is a volume; ``fuse/NAME.json`` controls the daemon of its mounts.
``control.json`` (see standin.py) also takes ``client`` ("1.x", "2.x"), ``type`` and
``source`` (to mount under a wrong one) and ``other`` (a file system to mount instead).
"""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path

from lab.fuse import daemon as fuse
from lab.standin import Failure, Product, Settings, act, mounted, run, source_at
from lab.standin import mount as mount_other
from lab.standin import umount as umount_any

PORT = ":7861"


def mount() -> None:
    run(_mount)


def umount() -> None:
    run(_umount)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mount.quobyte", allow_abbrev=False)
    parser.add_argument("device", metavar="REGISTRY[,REGISTRY]/VOLUME")
    parser.add_argument("mountpoint")
    parser.add_argument("-c", dest="config")
    for flag in ("--disable-xattrs", "--enable-access-contexts", "--allow-minidump-upload", "-f"):
        parser.add_argument(flag, action="store_true")
    for option in ("--hostname", "--http-port", "--minidump-path", "-d", "-l", "-o"):
        parser.add_argument(option)
    return parser.parse_args(argv)


def _mount(argv: list[str]) -> None:
    product = Product("quobyte")
    product.note(["mount.quobyte", *argv])
    args = _arguments(argv)
    registries, _, volume = args.device.partition("/")
    control = product.control(volume)
    target = os.path.realpath(args.mountpoint)

    def deed() -> None:
        _check(product, registries, volume, args.config)
        _check_mountpoint(target)
        _serve(product, registries.split(","), volume, target, control)

    act(control, deed)


def _check(product: Product, registries: str, volume: str, config: str | None) -> None:
    if config is not None and not os.access(config, os.R_OK):
        raise Failure(1, f"could not read configuration file {config}")
    known = {_with_port(r) for r in product.read("cluster.json").get("registries", [])}
    if not known & {_with_port(r) for r in registries.split(",")}:
        raise Failure(1, f"could not connect to any registry of {registries}")
    if not volume or "/" in volume or not (product.directory / "volumes" / volume).is_dir():
        raise Failure(1, f"volume {volume!r} does not exist")


def _with_port(registry: str) -> str:
    return registry if ":" in registry else registry + PORT


def _check_mountpoint(target: str) -> None:
    if mounted(target):
        raise Failure(4, f"{target} is already mounted")
    if any(Path(target).iterdir()):
        raise Failure(1, f"mount point {target} is not empty")


def _serve(
    product: Product, registries: list[str], volume: str, target: str, control: Settings
) -> None:
    if "other" in control:
        mount_other("none", target, control["other"])
        return
    old = control.get("client") == "1.x"
    shown = "|".join(registries) if old else registries[0]
    fuse.start(
        control.get("type") or ("fuse" if old else "fuse.quobyte"),
        control.get("source") or f"quobyte@{shown}/{volume}",
        str(product.directory / "volumes" / volume),
        target,
        str(product.directory / "fuse" / f"{volume}.json"),
    )


def _umount(argv: list[str]) -> None:
    product = Product("quobyte")
    product.note(["umount.quobyte", *argv])
    parser = argparse.ArgumentParser(prog="umount.quobyte", allow_abbrev=False)
    parser.add_argument("mountpoint")
    # Not resolved: that would ask a file system that may be dead.
    target = parser.parse_args(argv).mountpoint.rstrip("/")

    def deed() -> None:
        try:
            umount_any(target)
        except OSError as e:
            if e.errno == errno.EINVAL:
                raise Failure(1, f"{target}: not mounted") from e
            raise

    volume = (source_at(target) or "").rpartition("/")[2]
    act(product.control(volume).get("umount", {}), deed)
