"""Whether what is installed can use a configuration. Asks no storage and no guest."""

from __future__ import annotations

from contextlib import closing

from moorline import installed
from moorline.config import Settings
from moorline.errors import MoorlineError
from moorline.host.linux import Linux


def misconfigured(given: Settings) -> list[str]:
    """Why what is installed cannot be used with these settings, a text each."""
    found = []
    with closing(Linux()) as host:
        backends = installed.InstalledBackends(host, given.values)
        try:
            backends.on_error("")
        except MoorlineError as e:
            found.append(str(e))
        for kind in sorted(backends):
            try:
                backends[kind]
            except MoorlineError as e:
                found.append(f"{kind}: {e}")
    try:
        installed.driver(given.hypervisor)
    except MoorlineError as e:
        found.append(str(e))
    return found
