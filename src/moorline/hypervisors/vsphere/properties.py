"""Bulk reads through the PropertyCollector, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pyVmomi import vim, vmodl

from moorline.errors import MoorlineError, Uncertain
from moorline.hypervisors.vsphere.failures import words
from moorline.hypervisors.vsphere.session import Session

_PAGE = 500
"""Objects in an answer: vCenter cuts long answers anyway, where it likes."""

collector = vmodl.query.PropertyCollector
Values = Mapping[str, Any]


def read(
    session: Session, what: str, objects: Sequence[Any], kind: type, paths: Sequence[str]
) -> list[tuple[Any, Values]]:
    """The properties *paths* of *objects*, which are of one *kind*; those unset are missing.

    Raises as :meth:`Session.ask` does (NotFound: one is gone), and Uncertain
    if a property may not be read.
    """
    if not objects:
        return []
    sources = [collector.ObjectSpec(obj=each, skip=False) for each in objects]
    return fetch(session, what, sources, kind, paths)


def fetch(
    session: Session, what: str, sources: Sequence[Any], kind: type, paths: Sequence[str]
) -> list[tuple[Any, Values]]:
    """The same, of what *sources* (ObjectSpec) lead to."""
    wanted = collector.FilterSpec(
        objectSet=list(sources),
        propSet=[collector.PropertySpec(type=kind, pathSet=list(paths), all=False)],
    )
    return [_values(what, each) for each in _pages(session, what, wanted)]


def everywhere(session: Session, what: str, kind: type, paths: Sequence[str]) -> list[Any]:
    """The same, of all objects of *kind* that there are."""
    content = session.content
    view = session.ask(
        what,
        lambda: content.viewManager.CreateContainerView(content.rootFolder, [kind], recursive=True),
    )
    to_each = collector.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
    source = collector.ObjectSpec(obj=view, skip=True, selectSet=[to_each])
    try:
        return fetch(session, what, [source], kind, paths)
    finally:
        with suppress(MoorlineError):  # it ends with the session
            session.ask(what, view.DestroyView)


def _pages(session: Session, what: str, wanted: Any) -> Iterator[Any]:
    def ask(call: str, argument: Any, *more: Any) -> Any:
        # The collector of the session that is now: a token is worth nothing in another.
        return session.ask(
            what, lambda: getattr(session.content.propertyCollector, call)(argument, *more)
        )

    options = collector.RetrieveOptions(maxObjects=_PAGE)
    page = ask("RetrievePropertiesEx", [wanted], options)
    while page is not None:
        yield from page.objects
        page = ask("ContinueRetrievePropertiesEx", page.token) if page.token else None


def _values(what: str, found: Any) -> tuple[Any, Values]:
    if found.missingSet:
        first = found.missingSet[0]
        raise Uncertain(f"{what}: {first.path} cannot be read: {words(first.fault)}")
    return found.obj, {each.name: each.val for each in found.propSet}
