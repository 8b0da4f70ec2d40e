"""``python -m lab.novalink --port 0``: print where it is as a line of JSON; end with stdin."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lab.novalink import NovaLink
from lab.novalink.model import System, preload


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.novalink", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--mode", choices=["novalink", "traditional", "hmc"], default="novalink")
    parser.add_argument("--lpars", default="web01,db01", help="names, with commas")
    parser.add_argument("--root", type=Path, default=Path("/"), help="the partition's root")
    parser.add_argument("--udids", choices=["uuid", "path"], default="uuid")
    parser.add_argument("--luas", choices=["vios", "short"], default="vios")
    parser.add_argument("--preload", type=int, default=0, help="mappings to begin with")
    parser.add_argument("--plain", action="store_true", help="HTTP, as for the local logon")
    given = parser.parse_args()
    system = System(root=given.root, udids=given.udids, luas=given.luas)
    lab = NovaLink(
        given.lpars.split(","), mode=given.mode, system=system, tls=not given.plain, port=given.port
    )
    preload(lab.system, given.preload)
    with lab:
        where = {"port": lab.port, "ca": str(lab.ca), "user": lab.user, "password": lab.password}
        print(json.dumps(where), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
