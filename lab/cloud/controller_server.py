"""Serves placement, Nova and what stands in for Neutron, run by the Python that has them.

Words: ADDRESS, PORT, DIRECTORY of nova.conf, placement.conf and api-paste.ini. Nova's API,
conductor and scheduler are in one process, and reach each other and nova-compute by the broker.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from lab.cinder.databases import begin_to_write_at_once

Start = Callable[[str, list[tuple[str, str]]], Any]


def main() -> None:
    address, port, directory = sys.argv[1:]
    del sys.argv[1:]
    os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    os.environ["OS_NOVA_CONFIG_DIR"] = os.environ["OS_PLACEMENT_CONFIG_DIR"] = directory
    from nova import monkey_patch

    monkey_patch.patch(backend="threading")  # before all else of Nova
    begin_to_write_at_once()
    from nova.wsgi import osapi_compute  # reads the configuration
    from placement.wsgi import init_application
    from werkzeug import serving
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    placement = init_application()
    compute = osapi_compute.application
    ready = threading.Event()
    mounts = {"/placement": placement, "/compute": compute, "/network": network}
    application: Any = DispatcherMiddleware(partial(root, ready), mounts)
    server = serving.make_server(address, int(port), application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()  # the scheduler asks placement when it starts
    _start_services()
    ready.set()
    thread.join()


def _start_services() -> None:
    """As nova/cmd/conductor.py and scheduler.py do, but for processes of their own."""
    from nova import objects, service
    from nova.conductor import rpcapi as conductor
    from nova.scheduler import rpcapi as scheduler

    objects.register_all()
    for binary, topic in (
        ("nova-conductor", conductor.RPC_TOPIC),
        ("nova-scheduler", scheduler.RPC_TOPIC),
    ):
        service.Service.create(binary=binary, topic=topic).start()


def root(ready: threading.Event, _: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Tells whether all are there."""
    status = "200 OK" if ready.is_set() else "503 Service Unavailable"
    start(status, [("Content-Type", "text/plain")])
    return [b"the lab's cloud\n"]


def network(environment: dict[str, Any], start: Start) -> Iterable[bytes]:
    """A Neutron that has nothing, and no extensions: servers here have no networks."""
    path = environment["PATH_INFO"].strip("/").removesuffix(".json").split("/")
    if len(path) < 2:
        href = f"http://{environment['HTTP_HOST']}{environment['SCRIPT_NAME']}/v2.0/"
        links = [{"rel": "self", "href": href}]
        told: Any = {"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]}
    else:
        told = {path[1].replace("-", "_"): []}
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]


if __name__ == "__main__":
    main()
