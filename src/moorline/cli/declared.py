"""Reads declared attachments from a file, and compares them with what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from moorline.cli.connection import read_connection
from moorline.cli.facade import storage_from_here
from moorline.cli.luks_key import with_key
from moorline.cli.output import is_as_wanted
from moorline.core.validation import check_text
from moorline.disk_options import OPTIONS, validate
from moorline.errors import Refused
from moorline.model import DiskOptions, Format, Level
from moorline.ports.results import View

MAX_FILE_BYTES = 1 << 20
_FORMATS = ("raw", "qcow2", "ploop", "luks")
_LEVELS = ("connected", "attached")
_TEXTS = ("guest", "storage", "connection_file", "luks_key_file", "format", "volume", "level")
_OPTIONS = {each.declared: each for each in OPTIONS}
_KNOWN = {*_TEXTS, *_OPTIONS, "connection"}


@dataclass(frozen=True, slots=True)
class Declared:
    """An attachment as a file has it."""

    guest: str
    what: Mapping[str, Any] | str
    """A connection, or what is typed for one."""
    format: Format | None = None
    volume: str | None = None
    level: str = "attached"
    options: DiskOptions = field(default_factory=DiskOptions)

    def is_called(self, view: View, guest_id: str) -> bool:
        """Whether *view* is of the guest of that id, and its volume is spelled as here.

        True is certain; False is not: one volume can be spelled in several ways.
        """
        same = (guest_id, self.what) == (view.guest_id, view.storage)
        return same and self.volume in (None, view.volume)

    def differences(self, view: View) -> list[str]:
        """What is otherwise in *view*, of the same volume, and is not changed while it is there."""
        # A view tells of the others only what is set, and one of an earlier version knows few.
        wanted = {each: getattr(self.options, each.name) for each in OPTIONS}
        pairs = [
            (each.name, view.options.get(each.name, each.default), value)
            for each, value in wanted.items()
            # A limit that the file does not speak of may be set by hand, and a launch may have
            # given a place in the boot order.
            if value is not None and (value or each.name != "boot")
        ]
        if self.format:
            pairs.append(("format", view.format or self.format, self.format))
        if (self.level, view.wanted) == ("connected", "attached"):
            pairs.append(("level", view.wanted, self.level))
        return [f"{name} is {old!r}, not {new!r}" for name, old, new in pairs if old != new]

    def is_there(self, view: View, label: str) -> bool:
        """Whether nothing is left to do for it; False where that cannot be told."""
        same = view.wanted == self.level and label in ("", view.label)
        return isinstance(self.what, str) and same and is_as_wanted(view)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A file of declared attachments."""

    label: str
    attachments: Sequence[Declared]


def read(file: Path, text: str) -> Declaration:
    """Parse *text*, YAML or JSON, which was read from *file*. Raises Refused; quotes no value."""
    import yaml

    class Strict(yaml.SafeLoader):
        """Refuses a key that is there twice: YAML forbids it, and PyYAML takes the last one."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(keys) > len({*keys}):
                raise yaml.constructor.ConstructorError(
                    problem="a key is there twice", problem_mark=node.start_mark
                )
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    try:
        loader = Strict(text)
        if (node := loader.get_single_node()) is not None:
            _demand_written_out(node, file)
        found = loader.construct_document(node) if node else None
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise Refused(f"{file} is neither YAML nor JSON, or has a key twice{where}") from None
    if not isinstance(found, dict) or not isinstance(found.get("attachments"), list):
        raise Refused(f"{file} has no list of attachments", hint="moorline export writes one")
    if unknown := found.keys() - {"attachments", "label", "guest"}:
        raise Refused(f"{file} has keys that are not known: {_listed(unknown)}")
    guest = _text(found, "guest", str(file)) if "guest" in found else None
    label = _text(found, "label", str(file)) if "label" in found else ""
    entries = enumerate(found["attachments"], 1)
    declared = [_entry(each, guest, file, f"{file}, attachment {n}") for n, each in entries]
    for place, one in enumerate(declared):
        for other in declared[:place]:
            if (one.guest, one.what) == (other.guest, other.what):
                raise Refused(f"{file}: attachment {place + 1} is there twice")
    return Declaration(label, declared)


def _demand_written_out(node: Any, file: Path) -> None:
    """Refuse a document in which some lines stand for any number, by aliases of aliases."""
    left, seen = [node], 0
    while left:
        seen += 1
        if seen > MAX_FILE_BYTES:
            raise Refused(f"{file} has aliases that stand for more than {MAX_FILE_BYTES} values")
        value = left.pop().value
        if isinstance(value, list):
            for each in value:
                left.extend(each if isinstance(each, tuple) else [each])


def _entry(given: object, guest: str | None, file: Path, at: str) -> Declared:
    if not isinstance(given, dict):
        raise Refused(f"{at} is no mapping")
    if unknown := given.keys() - _KNOWN:
        raise Refused(f"{at} has keys that are not known: {_listed(unknown)}")
    texts = {name: _text(given, name, at) for name in _TEXTS if given.get(name) is not None}
    for name, words in (("format", _FORMATS), ("level", _LEVELS)):
        if texts.get(name, words[0]) not in words:
            raise Refused(f"{at}: {name} is none of {', '.join(words)}")
    guest = texts.get("guest") or guest
    if not guest:
        raise Refused(f"{at} names no guest")
    return Declared(
        guest,
        _with_key(_what(given, texts, file, at), texts.get("luks_key_file"), file, at),
        cast("Format | None", texts.get("format")),
        texts.get("volume"),
        texts.get("level", "attached"),
        _disk_options(given, at),
    )


def _disk_options(given: Mapping[str, Any], at: str) -> DiskOptions:
    told = {o.name: given[name] for name, o in _OPTIONS.items() if given.get(name) is not None}
    options = DiskOptions(**told)
    try:
        validate(options)
    except Refused as e:
        raise Refused(f"{at}: {e.message}", hint=e.hint) from None
    return options


def _what(
    given: Mapping[str, Any], texts: Mapping[str, str], file: Path, at: str
) -> Mapping[str, Any] | str:
    ways = [name for name in ("storage", "connection", "connection_file") if given.get(name)]
    if len(ways) != 1:
        raise Refused(f"{at} needs one of storage, connection and connection_file")
    if ways[0] == "storage":
        return storage_from_here(texts["storage"])
    if "format" in texts:
        raise Refused(f"{at}: format belongs to storage: a connection bears its own")
    if ways[0] == "connection_file":
        return read_connection(str(file.absolute().parent / texts["connection_file"]))
    connection = given["connection"]
    if not isinstance(connection, dict):
        raise Refused(f"{at}: connection is no mapping")
    return connection


def _with_key(
    what: Mapping[str, Any] | str, key: str | None, file: Path, at: str
) -> Mapping[str, Any] | str:
    """*what*, with the key in the file *key*, which lies beside *file*. Raises Refused, Denied."""
    if key is None:
        return what
    if key == "-":  # the declaration itself may have come that way
        raise Refused(f"{at}: luks_key_file is a file, and not standard input")
    if isinstance(what, str) and what.startswith("cinder:"):
        raise Refused(f"{at}: the key of a volume of Cinder's is for connection_file")
    return with_key(what, file.absolute().parent / key)


def _text(given: Mapping[Any, Any], name: str, at: str) -> str:
    value = given[name]
    if not isinstance(value, str) or not value:
        raise Refused(f"{at}: {name} is no text", hint="write it in quotes")
    try:
        check_text(value)
    except Refused as e:
        raise Refused(f"{at}: {name} cannot be: {e.message}") from None
    return value


def _listed(keys: object) -> str:
    """Keys alone: a value may be a secret."""
    return ", ".join(sorted(str(key)[:40] for key in cast("set[object]", keys)))


def level(text: str) -> Level:
    """The level by its name in a file."""
    return Level[text.upper()]
