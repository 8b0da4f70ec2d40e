"""What vCenter answers to a bulk read, where the stand-in cannot be brought to say it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pyVmomi import vim


class Silent:
    """A stub whose calls return nothing."""

    def InvokeMethod(self, *_: Any) -> None:
        return None


class Rows:
    """As much of a session as a bulk read needs; the objects have these properties."""

    host = "vc"

    def __init__(self, *rows: dict[str, Any]) -> None:
        objects = [
            SimpleNamespace(
                obj=vim.VirtualMachine(f"vm-{n}"),
                missingSet=[],
                propSet=[SimpleNamespace(name=k, val=v) for k, v in row.items()],
            )
            for n, row in enumerate(rows)
        ]
        page = SimpleNamespace(objects=objects, token=None)
        view = vim.view.ContainerView("view-1", Silent())
        self.views: dict[Any, Any] = {}
        self.content = SimpleNamespace(
            rootFolder=None,
            viewManager=SimpleNamespace(CreateContainerView=lambda *_, **__: view),
            propertyCollector=SimpleNamespace(RetrievePropertiesEx=lambda *_: page),
        )

    def ask(self, what: str, question: Any) -> Any:
        return question()
