"""``python -m lab run -- COMMAND``, ``python -m lab demo NAME``, ``python -m lab fetch``."""

from __future__ import annotations

import argparse
import sys

from lab import demo, host, images


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description="The lab of Moorline.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("fetch", help="fetch and build the guest's images")
    run = verbs.add_parser("run", help="run a command in a private lab host")
    run.add_argument("--private", action="store_true", help="a mount table that is not shared")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    show = verbs.add_parser("demo", help="show a story, every claim checked")
    show.add_argument("name", choices=demo.names())
    args = parser.parse_args()
    if args.verb == "fetch":
        print(images.build())
        return 0
    if args.verb == "demo":
        return demo.run(args.name)
    return host.enter(args.command, shared=not args.private)


if __name__ == "__main__":
    sys.exit(main())
