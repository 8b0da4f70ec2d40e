"""What is installed: back ends and hypervisors, found by their entry points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from moorline import cinder
from moorline.config import only
from moorline.disk_options import BY_NAME
from moorline.errors import Refused
from moorline.ports import Host, HypervisorDriver, Option, StorageBackend, StorageDriver, Values

BACKENDS = "moorline.backends"
HYPERVISORS = "moorline.hypervisors"
ON_ERROR = Option(
    "disk_on_error",
    "",
    "What an I/O error of a disk does whose attachment does not say it: BACKEND=stop, report or"
    " enospace, comma-separated.",
)


class InstalledBackends(Mapping[str, StorageBackend[Any]]):
    """The back ends that are installed, by kind, each made when it is first asked for.

    Asking raises KeyError (there is none of that kind) and Refused (it needs what
    is not installed, or a value of its options is unusable).
    """

    def __init__(self, host: Host, values: Values) -> None:
        self._host = host
        self._values = values
        self._entries = {entry.name: entry for entry in entry_points(group=BACKENDS)}
        self._made: dict[str, StorageBackend[Any]] = {}

    def __getitem__(self, kind: str) -> StorageBackend[Any]:
        if kind not in self._made:
            driver: type[StorageDriver] = _load(self._entries[kind])
            self._made[kind] = driver.from_options(self._host, only(self._values, driver.options))
        return self._made[kind]

    def on_error(self, kind: str) -> str:
        """See :class:`moorline.core.links.SayingOnError`."""
        said, policies = {}, BY_NAME["on_error"].choices
        for each in self._values.get(ON_ERROR.name, "").replace(",", " ").split():
            backend, _, policy = each.partition("=")
            if backend not in self or policy not in policies:
                raise Refused(
                    f"{ON_ERROR.name} has {each!r}",
                    hint=f"BACKEND={', '.join(policies)}; back ends: {', '.join(sorted(self))}",
                )
            said[backend] = policy
        return said.get(kind, "")

    def on(self, host: Host) -> InstalledBackends:
        """The same back ends for another *host*, such as a snapshot."""
        same = copy(self)
        same._host, same._made = host, {}
        return same

    def __contains__(self, kind: object) -> bool:
        return kind in self._entries  # without making it

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def driver(uri: str) -> type[HypervisorDriver]:
    """Return what opens the hypervisor at *uri*. Raises Refused if nothing installed does."""
    scheme = uri.partition(":")[0].partition("+")[0]  # qemu+ssh: a transport of libvirt's
    drivers = {entry.name: entry for entry in entry_points(group=HYPERVISORS)}
    if scheme not in drivers:
        # The URI is not repeated: people put passwords into it.
        raise Refused("no hypervisor is known by such a URI", hint=f"known: {known_uris()}")
    found: type[HypervisorDriver] = _load(drivers[scheme])
    return found


def known_uris() -> str:
    """What the URIs of the installed hypervisors look like, for people."""
    return ", ".join(sorted(driver.uris for driver in drivers()))


def drivers() -> list[type[HypervisorDriver]]:
    """What opens the installed hypervisors, each once."""
    return list(dict.fromkeys(_loaded(HYPERVISORS)))


def options() -> list[Option]:
    """The options that back ends, hypervisors and Cinder declare, each once, by name."""
    return [*_declared(BACKENDS), *_declared(HYPERVISORS), *cinder.OPTIONS, ON_ERROR]


def backend_options() -> list[Option]:
    """Those of the back ends alone."""
    return _declared(BACKENDS)


def _declared(group: str) -> list[Option]:
    found = {option.name: option for each in _loaded(group) for option in each.options}
    return [found[name] for name in sorted(found)]


def _loaded(group: str) -> Iterator[Any]:
    """What can be imported; the others raise when they are asked for."""
    for entry in entry_points(group=group):
        with suppress(Refused):
            yield _load(entry)


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ImportError as e:
        raise Refused(
            f"{entry.name} cannot be used: {e}", hint=f"install what {entry.value} needs"
        ) from e


@contextmanager
def for_fleets() -> Iterator[None]:
    """Import in here what only a fleet needs. Raises Refused: it is not installed."""
    try:
        yield
    except ModuleNotFoundError as e:
        raise Refused(
            f"a fleet needs what is not installed here: {e.name}",
            hint="pip install 'moorline[fleet]'",
        ) from e
