"""Serves the real Cinder; run by the Python that has it: ADDRESS, PORT, CONFIGURATION FILE.

API, scheduler and volume service are in one process, as in Cinder's own functional tests: they
reach each other by oslo.messaging's ``fake`` transport, and no message broker is needed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from lab.cinder.databases import begin_to_write_at_once


def main() -> None:
    address, port, configuration = sys.argv[1:]
    os.environ["OS_CINDER_DISABLE_EVENTLET_PATCHING"] = "true"
    from cinder import monkey_patch

    monkey_patch.patch()  # before all else of Cinder
    sys.argv[1:] = ["--config-file", configuration]
    begin_to_write_at_once()
    from cinder.wsgi import api  # reads the configuration

    _start_services()
    from werkzeug import serving

    application: Any = api.application
    serving.make_server(address, int(port), application, threaded=True).serve_forever()


def _start_services() -> None:
    """As cinder/cmd/volume.py and scheduler.py do, but for a process of their own."""
    import os_brick
    from cinder import service, utils
    from oslo_config import cfg
    from oslo_privsep import priv_context

    utils.get_root_helper = lambda: "env"  # it is root
    priv_context.init(root_helper=["env"])
    os_brick.setup(cfg.CONF)
    service.Service.create(binary="cinder-scheduler").start()
    for number, backend in enumerate(cfg.CONF.enabled_backends):
        cfg.CONF.register_opt(cfg.StrOpt("backend_host"), group=backend)
        service.Service.create(
            binary="cinder-volume",
            host=f"{cfg.CONF.host}@{backend}",
            service_name=backend,
            coordination=number == 0,  # it is the process's
        ).start()


if __name__ == "__main__":
    main()
