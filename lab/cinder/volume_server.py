"""Serves the real Cinder on loopback; run by the Python that has it: PORT, CONFIGURATION FILE.

API, scheduler and volume service are in one process, as in Cinder's own functional tests: they
reach each other by oslo.messaging's ``fake`` transport, and no message broker is needed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

BACKEND = "quobyte"


def main() -> None:
    port, configuration = sys.argv[1:]
    os.environ["OS_CINDER_DISABLE_EVENTLET_PATCHING"] = "true"
    from cinder import monkey_patch

    monkey_patch.patch()  # before all else of Cinder
    sys.argv[1:] = ["--config-file", configuration]
    _begin_to_write_at_once()
    from cinder.wsgi import api  # reads the configuration

    _start_services()
    from werkzeug import serving

    application: Any = api.application
    serving.make_server("127.0.0.1", int(port), application, threaded=True).serve_forever()


def _begin_to_write_at_once() -> None:
    """Have each transaction wait for SQLite's lock when it begins.

    One that has read and comes to write fails at once ("database is locked") where another one
    wrote in between: no time-out helps then.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def run(_: Any, __: Any, statement: str, words: Any, *___: Any) -> tuple[str, Any]:
        return ("BEGIN IMMEDIATE" if statement == "BEGIN" else statement), words  # oslo.db's

    event.listen(Engine, "before_cursor_execute", run, retval=True)


def _start_services() -> None:
    """As cinder/cmd/volume.py and scheduler.py do, but for a process of their own."""
    import os_brick
    from cinder import service, utils
    from oslo_config import cfg
    from oslo_privsep import priv_context

    utils.get_root_helper = lambda: "env"  # it is root
    priv_context.init(root_helper=["env"])
    os_brick.setup(cfg.CONF)
    cfg.CONF.register_opt(cfg.StrOpt("backend_host"), group=BACKEND)
    volume = {
        "host": f"{cfg.CONF.host}@{BACKEND}",
        "service_name": BACKEND,
        "coordination": True,
    }
    for binary, how in (("cinder-scheduler", {}), ("cinder-volume", volume)):
        service.Service.create(binary=binary, **how).start()


if __name__ == "__main__":
    main()
