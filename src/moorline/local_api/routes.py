"""The routes of the API: the methods of :class:`moorline.ports.api.Api`, by their signatures.

This one table is served, documented and called: a method of the protocol becomes
a route with a line in :data:`ROUTES`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from moorline.core.validation import MAX_INTEGER, check_reason, check_text, parse_json
from moorline.deadline import DEFAULT_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS
from moorline.errors import Refused
from moorline.local_api import json_types
from moorline.ports.api import Attachments, Guests, Maintenance
from moorline.ports.progress import Progress

BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "timeout": (0, MAX_TIMEOUT_SECONDS),
        "size": (1, MAX_INTEGER),
        "after": (0, MAX_INTEGER),
        "since": (0, MAX_INTEGER),
        "most": (1, 10_000),
    }
)
"""The least and the most of fields that are numbers, by name."""
LONGEST: Mapping[str, int] = MappingProxyType({"guest": 1024, "share": 1024})
"""Characters of fields that stand beside another in a query, which has 64 KiB in all."""
REASONS = frozenset({"vouch", "fenced"})
"""Fields that are a person's word; '' where there is none."""
_NOT_TOLD = frozenset({"self", "progress"})
_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Field:
    """One argument of a method."""

    name: str
    kind: Any
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    def decode(self, value: Any) -> Any:
        """Read it from parsed JSON. Raises Refused."""
        decoded = json_types.decode(self.kind, value, self.name)
        if self.name in BOUNDS and decoded is not None:
            least, most = BOUNDS[self.name]
            if not least <= decoded <= most:
                raise Refused(f"{self.name} is not from {least:.0f} to {most:.0f}")
        if self.name in LONGEST and decoded is not None and len(decoded) > LONGEST[self.name]:
            raise Refused(f"{self.name} is longer than {LONGEST[self.name]} characters")
        if self.name in REASONS and decoded:
            check_reason(decoded)
        return decoded

    def decode_text(self, text: str) -> Any:
        """Read it from a query string: text as it stands, all else as JSON. Raises Refused."""
        if self._is_text:
            check_text(text)
            return self.decode(text)
        return self.decode(parse_json(text.encode(errors="surrogatepass")))

    @property
    def _is_text(self) -> bool:
        mapping = typing.get_origin(self.kind) is Mapping  # its arguments are not alternatives
        return str in (self.kind, *(() if mapping else typing.get_args(self.kind)))

    def schema(self, components: dict[str, json_types.Schema]) -> json_types.Schema:
        """Describe it."""
        found = json_types.schema(self.kind, components)
        if self.name in BOUNDS:
            least, most = BOUNDS[self.name]
            for each in found.get("anyOf", [found]):
                if each["type"] != "null":
                    each.update(minimum=least, maximum=most)
        if self.name in LONGEST:
            for each in found.get("anyOf", [found]):
                if each["type"] != "null":
                    each["maxLength"] = LONGEST[self.name]
        return found


@dataclass(frozen=True)
class Route:
    """A method of the protocol, as it is reached."""

    name: str
    function: Callable[..., Any]
    changes: bool
    """Whether it is for those who may change something; else looking is enough."""
    moves_data: bool = False
    """It moves a disk's bytes, which may take longer than its timeout says."""

    @property
    def method(self) -> str:
        return "POST" if self.changes else "GET"

    @property
    def part(self) -> str:
        """The part of the protocol that has it: ``attachments``, ``guests``, ``maintenance``."""
        return self.function.__qualname__.partition(".")[0].lower()

    @property
    def path(self) -> str:
        return "/v1/" + self.name.replace(".", "/")

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        hints = typing.get_type_hints(self.function)
        return {
            name: Field(name, hints[name], parameter.default)
            for name, parameter in inspect.signature(self.function).parameters.items()
            if name not in _NOT_TOLD
        }

    @cached_property
    def returns(self) -> Any:
        return typing.get_type_hints(self.function)["return"]

    @cached_property
    def tells_progress(self) -> bool:
        return "progress" in inspect.signature(self.function).parameters

    def patience(self, arguments: Mapping[str, Any]) -> float:
        """Seconds that the method goes on trying; 0 if it does not try at all.

        Raises Refused (the timeout is none that a request may ask for).
        """
        if "timeout" not in self.fields:
            return 0.0
        asked = arguments.get("timeout", self.fields["timeout"].default)
        return (
            DEFAULT_TIMEOUT_SECONDS
            if asked is None
            else float(self.fields["timeout"].decode(asked))
        )

    def bind(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a request's fields into the method's arguments. Raises Refused."""
        self._check_names(given)
        return {name: self.fields[name].decode(value) for name, value in given.items()}

    def bind_text(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The same for a query string."""
        self._check_names(given)
        return {name: self.fields[name].decode_text(text) for name, text in given.items()}

    def call(self, facade: object, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """Call the method. Raises what it raises."""
        if self.tells_progress:
            arguments = {**arguments, "progress": progress}
        return getattr(getattr(facade, self.part), self.function.__name__)(**arguments)

    def _check_names(self, given: Mapping[str, Any]) -> None:
        if not given.keys() <= self.fields.keys():
            # An unknown name may be a misplaced value, even a secret: it is not repeated.
            known = ", ".join(self.fields) or "none"
            raise Refused("the request has a field that is not known", hint=f"known: {known}")
        missing = [name for name, f in self.fields.items() if f.required and name not in given]
        if missing:
            raise Refused(f"the request lacks {', '.join(missing)}")


ROUTES: tuple[Route, ...] = (
    Route("attach", Attachments.attach, changes=True),
    Route("detach", Attachments.detach, changes=True),
    Route("set", Attachments.set, changes=True),
    Route("extend", Attachments.extend, changes=True),
    Route("relocate", Attachments.relocate, changes=True, moves_data=True),
    Route("forget", Attachments.forget, changes=True),
    Route("sweep", Attachments.sweep, changes=True),
    Route("guests.launch", Guests.launch, changes=True, moves_data=True),
    Route("guests.start", Guests.start, changes=True),
    Route("guests.remove", Guests.remove, changes=True),
    Route("guests.all", Guests.all, changes=False),
    Route("guests.ready", Guests.ready, changes=True),
    Route("guests.permit", Guests.permit, changes=True),
    Route("guests.unready", Guests.unready, changes=False),
    Route("guests.datastores", Guests.datastores, changes=False),
    Route("list", Attachments.list, changes=False),
    Route("show", Attachments.show, changes=False),
    Route("events", Maintenance.events, changes=False),
    Route("explain", Maintenance.explain, changes=False),
    Route("doctor", Maintenance.doctor, changes=False),
    Route("disks", Maintenance.disks, changes=False),
    Route("repair", Maintenance.repair, changes=True),
    Route("abort", Maintenance.abort, changes=True),
    Route("adopt", Maintenance.adopt, changes=True),
    Route("release", Maintenance.release, changes=True),
    Route("follow", Maintenance.follow, changes=True),
    Route("adopt.all", Maintenance.adopt_all, changes=True),
    Route("release.all", Maintenance.release_all, changes=True),
)
