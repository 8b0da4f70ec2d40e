"""Moorline attaches storage volumes to virtual machines, and keeps them attached.

What is named here stays as it is from release to release, as does what
:mod:`moorline.ports`, :mod:`moorline.model` and :mod:`moorline.testing` offer to
those who write back ends and hypervisors. All else may move. Importing this
loads nothing else until a name is used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from typing import Any

    from moorline.api import Moorline
    from moorline.errors import Failed, MoorlineError, NotFound, NotOurs, Refused, Uncertain
    from moorline.local_api.client import Client
    from moorline.model import DiskOptions, Level
    from moorline.ports.api import Api
    from moorline.wiring import open_host, settings

__all__ = [
    "Api",
    "Client",
    "DiskOptions",
    "Failed",
    "Level",
    "Moorline",
    "MoorlineError",
    "NotFound",
    "NotOurs",
    "Refused",
    "Uncertain",
    "open_host",
    "settings",
]
_WHERE = {
    "Api": "ports.api",
    "Client": "local_api.client",
    "DiskOptions": "model",
    "Level": "model",
    "Moorline": "api",
    "open_host": "wiring",
    "settings": "wiring",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE.get(name, 'errors')}"), name)
