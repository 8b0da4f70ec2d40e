"""Stand-in for ``ploop``, which needs a kernel of Virtuozzo's, on loop devices.

Known, from ploop(8) and tools/ploop.c (https://github.com/OpenVZ/ploop):

- ``ploop mount DiskDescriptor.xml`` makes ``/dev/ploopN`` of the image's files, N at random,
  and prints ``Adding delta dev=/dev/ploopN img=FILE (rw)`` for each; an image that is mounted
  already is not mounted again.
- ``ploop umount { -d DEVICE | DiskDescriptor.xml }``; not while the device is open.
- ``ploop list``: ``ploopN BASE-IMAGE MOUNT-POINT COOKIE`` for each, from /sys alone.
- DiskDescriptor.xml: https://www.qemu.org/docs/master/interop/prl-xml.html.

Not like the real one: an image has one file, and it holds the disk as it is (type Plain);
there are no snapshots; ``/dev/ploopN`` is loop device N by another name. Assumed: that a
failure is exit code 1, and the texts.

``control.json`` in the lab's ``ploop`` directory is as in standin.py: it applies to ``mount``,
and beneath ``umount`` to unmounting; by the name of the image's directory, or ``*``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from lab import loops
from lab.standin import Failure, Product, act, run


def command() -> None:
    run(_command)


def _command(argv: list[str]) -> None:
    product = Product("ploop")
    if argv != ["list"]:  # it is asked all the time
        product.note(["ploop", *argv])
    parser = argparse.ArgumentParser(prog="ploop", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("mount").add_argument("descriptor", type=Path)
    umount = verbs.add_parser("umount").add_mutually_exclusive_group(required=True)
    umount.add_argument("-d", dest="device", type=Path)
    umount.add_argument("descriptor", type=Path, nargs="?")
    verbs.add_parser("list")
    args = parser.parse_args(argv)
    if args.verb == "list":
        for device, image in _devices():
            print(f"{device.name:<12} {image}  cookie")
    elif args.verb == "mount":
        control = product.control(args.descriptor.parent.name)
        act(control, lambda: _mount(_image(args.descriptor)))
    else:
        device = args.device or _device_of(_image(args.descriptor))
        image = dict(_devices()).get(device, Path())
        control = product.control(image.parent.name)
        act(control.get("umount", {}), lambda: _umount(device))


def _image(descriptor: Path) -> Path:
    files = [element.text or "" for element in ET.parse(descriptor).iter("File")]
    if len(files) != 1:
        raise Failure(1, "this stand-in knows images of one file only")
    return descriptor.parent.resolve() / files[0]


def _devices() -> Iterator[tuple[Path, Path]]:
    """The devices that this host has a node of, and their images, as the kernel tells them."""
    for node in sorted(Path("/dev").glob("ploop*")):
        backing = Path(f"/sys/block/loop{os.minor(node.stat().st_rdev)}/loop/backing_file")
        with contextlib.suppress(OSError):
            yield node, Path(backing.read_text().rstrip("\n"))


def _device_of(image: Path) -> Path:
    for device, known in _devices():
        if known == image:
            return device
    raise Failure(1, f"{image} is not mounted")


def _mount(image: Path) -> None:
    if image in dict(_devices()).values():
        raise Failure(1, f"image {image} is mounted already")
    number = loops.attach(image)
    device = Path(f"/dev/ploop{number}")
    device.unlink(missing_ok=True)  # of a device that is gone
    loops.node(device, number)
    print(f"Adding delta dev={device} img={image} (rw)")


def _umount(device: Path) -> None:
    if device not in dict(_devices()):
        raise Failure(1, f"{device} is not mounted")
    number = os.minor(device.stat().st_rdev)
    if loops.in_use(number):  # a loop device would go later, without an error
        raise Failure(1, f"{device}: Device or resource busy")
    loops.detach(number)
    device.unlink()
