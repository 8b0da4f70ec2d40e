"""Serves the real keystone; run by the Python that has it: ADDRESS, PORT, CONFIGURATION FILE."""

from __future__ import annotations

import os
import sys
from typing import Any


def main() -> None:
    address, port, configuration = sys.argv[1:]
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = configuration
    del sys.argv[1:]
    from keystone.wsgi import api
    from werkzeug import serving

    application: Any = api.application
    serving.make_server(address, int(port), application, threaded=True).serve_forever()


if __name__ == "__main__":
    main()
