"""``python -m lab demo NAME``, ``shell``, ``run -- COMMAND``, ``machine``: see lab/README.md."""

from __future__ import annotations

import argparse
import sys

from lab import bootable, demo, host, images, shell
from lab.ceph import software
from lab.machine import cli as machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description="The lab of Moorline.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    fetch = verbs.add_parser("fetch", help="fetch and build the guest's images, or Ceph")
    fetch.add_argument("what", nargs="?", choices=("ceph",))
    run = verbs.add_parser("run", help="run a command in a private lab host")
    run.add_argument("--private", action="store_true", help="a mount table that is not shared")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    show = verbs.add_parser("demo", help="show a story, every claim checked")
    show.add_argument("name", choices=sorted(demo.STORIES))
    prompt = verbs.add_parser("shell", help="a shell on a host with two guests and a share")
    prompt.add_argument("command", nargs="*", metavar="COMMAND", help="instead of a shell")
    ask = verbs.add_parser("guest", help="run a command inside a guest of the lab")
    ask.add_argument("guest")
    ask.add_argument("command")
    machine.add_to(verbs)
    args = parser.parse_args()
    if args.verb == "machine":
        return machine.run(args)
    if args.verb == "fetch" and args.what == "ceph":
        print(software.fetch())
        return 0
    if args.verb == "fetch":
        print(images.build())
        print(bootable.disk())
        return 0
    if args.verb == "demo":
        return demo.run(args.name)
    if args.verb == "shell":
        return shell.run(args.command)
    if args.verb == "guest":
        return shell.ask_guest(args.guest, args.command)
    return host.enter(args.command, shared=not args.private)


if __name__ == "__main__":
    sys.exit(main())
