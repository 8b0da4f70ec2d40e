"""Stand-in for ``mount.nfs``, ``mount.cifs``, ``mount.glusterfs``, which need kernel and packages.

Known: ``mount.TYPE SHARE DIRECTORY [-o OPTIONS]`` (mount.nfs(8), mount.cifs(8),
mount.glusterfs(8)); ``credentials=FILE`` with ``username=``, ``password=``, ``domain=`` lines
(mount.cifs(8)); exit code 32 is a mount failure (mount(8)).

Not like the real ones: what they mount is FUSE, so the mount table shows ``fuse.nfs4`` and
``fuse.cifs`` instead of ``nfs4`` and ``cifs``; ``fuse.glusterfs`` is as it is in life. The
texts are assumed.

``shares.json`` in the lab's ``mounted`` directory maps a share to its ``directory`` there,
and for SMB to a ``username`` and ``password``. ``control.json`` is as in standin.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab.fuse import daemon as fuse
from lab.standin import Failure, Product, Settings, act, run

TYPES = {"nfs": "fuse.nfs4", "cifs": "fuse.cifs", "glusterfs": "fuse.glusterfs"}


def mount() -> None:
    run(_mount)


def _mount(argv: list[str]) -> None:
    kind = Path(sys.argv[0]).name.removeprefix("mount.")
    product = Product("mounted")
    product.note([f"mount.{kind}", *argv])
    parser = argparse.ArgumentParser(prog=f"mount.{kind}", allow_abbrev=False)
    parser.add_argument("share")
    parser.add_argument("directory")
    parser.add_argument("-o", dest="options", default="")
    args = parser.parse_args(argv)
    options = dict(word.partition("=")[::2] for word in args.options.split(",") if word)

    def deed() -> None:
        share = product.read("shares.json").get(args.share)
        if share is None:
            raise Failure(32, f"{args.share}: no such share")
        _authenticate(share, options)
        fuse.start(
            TYPES[kind],
            args.share,
            str(product.directory / share["directory"]),
            os.path.realpath(args.directory),
            str(product.directory / f"{share['directory']}.json"),
        )

    act(product.control(args.share), deed)


def _authenticate(share: Settings, options: dict[str, str]) -> None:
    if "password" not in share:
        return
    lines = Path(options["credentials"]).read_text() if "credentials" in options else ""
    given = dict(line.partition("=")[::2] for line in lines.splitlines())
    if any(given.get(field) != share[field] for field in ("username", "password")):
        raise Failure(32, "mount error(13): Permission denied")
