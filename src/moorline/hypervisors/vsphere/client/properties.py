"""Bulk reads through the PropertyCollector, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyVmomi import vim, vmodl

from moorline.errors import Denied, NotFound, Refused, Unavailable, Uncertain
from moorline.hypervisors.vsphere.client.failures import words
from moorline.hypervisors.vsphere.client.session import Session

_PAGE = 500
"""Objects in an answer: vCenter cuts long answers anyway, where it likes."""

collector = vmodl.query.PropertyCollector
Values = Mapping[str, Any]


def read(
    session: Session, what: str, objects: Sequence[Any], kind: type, paths: Sequence[str]
) -> list[tuple[Any, Values]]:
    """The properties *paths* of *objects*, which are of one *kind*; those unset are missing.

    Raises NotFound (one is gone), Denied, Unavailable, and Uncertain if a
    property may not be read.
    """
    if not objects:
        return []
    sources = [collector.ObjectSpec(obj=each, skip=False) for each in objects]
    return fetch(session, what, sources, {kind: paths})


def fetch(
    session: Session, what: str, sources: Sequence[Any], kinds: Mapping[Any, Sequence[str]]
) -> list[tuple[Any, Values]]:
    """The same, of what *sources* (ObjectSpec) lead to, of several *kinds*."""
    wanted = collector.FilterSpec(
        objectSet=list(sources),
        propSet=[
            collector.PropertySpec(type=kind, pathSet=list(paths), all=False)
            for kind, paths in kinds.items()
        ],
    )
    try:
        found = session.ask(what, lambda: _all_pages(session, wanted))
    except (NotFound, Denied):
        raise
    except Refused as error:  # the same request is right at other times
        raise Unavailable(error.message, hint=error.hint) from error
    return [_values(what, each) for each in found]


def everywhere(session: Session, what: str, kind: type, paths: Sequence[str]) -> list[Any]:
    """The same, of all objects of *kind* that there are."""
    return everything(session, what, {kind: paths})


def everything(
    session: Session, what: str, kinds: Mapping[Any, Sequence[str]]
) -> list[tuple[Any, Values]]:
    """The same, of all objects of several kinds, as they are at one moment.

    The view of them is made once a login: vCenter keeps it up to date.
    """
    try:
        return _in_view(session, what, kinds)
    except NotFound:  # the view went with its session
        session.views.pop(frozenset(kinds), None)
    try:
        return _in_view(session, what, kinds)
    except NotFound as error:
        raise Unavailable(error.message, hint=error.hint) from error


def _in_view(session: Session, what: str, kinds: Mapping[Any, Sequence[str]]) -> list[Any]:
    content = session.content
    view = session.views.get(frozenset(kinds))
    if view is None:
        view = session.ask(
            what,
            lambda: content.viewManager.CreateContainerView(
                content.rootFolder, [*kinds], recursive=True
            ),
        )
        session.views[frozenset(kinds)] = view  # of this login, which may be a new one
    to_each = collector.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
    source = collector.ObjectSpec(obj=view, skip=True, selectSet=[to_each])
    return fetch(session, what, [source], kinds)


def _all_pages(session: Session, wanted: Any) -> list[Any]:
    """Read all pages in one session: a page's token is not valid in another."""
    reader = session.content.propertyCollector
    page = reader.RetrievePropertiesEx([wanted], collector.RetrieveOptions(maxObjects=_PAGE))
    found: list[Any] = []
    while page is not None:
        _raise_if_logged_out(page)
        found += page.objects
        page = reader.ContinueRetrievePropertiesEx(page.token) if page.token else None
    return found


def _raise_if_logged_out(page: Any) -> None:
    """A lost session can show as properties that may not be read, one by one."""
    for found in page.objects:
        for missing in found.missingSet:
            if isinstance(missing.fault, vim.fault.NotAuthenticated):
                raise missing.fault


def _values(what: str, found: Any) -> tuple[Any, Values]:
    if found.missingSet:
        first = found.missingSet[0]
        raise Uncertain(f"{what}: {first.path} cannot be read: {words(first.fault)}")
    return found.obj, {each.name: each.val for each in found.propSet}
