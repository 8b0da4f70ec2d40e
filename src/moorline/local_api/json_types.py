"""Translates types to JSON Schema, and JSON to values of these types and back.

Enough for the façade's signatures: plain values, literals, enums, unions,
sequences, mappings of anything, and data classes. What is asked is untrusted:
whatever does not fit exactly is Refused, and no message repeats a value. An
answer (*answer*) may have more fields than are known: its agent may be newer.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum, IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from moorline.core.validation import MAX_INTEGER, MAX_TEXT_CHARACTERS
from moorline.errors import Refused

Schema = dict[str, Any]
_PLAIN: dict[Any, Schema] = {
    str: {"type": "string", "maxLength": MAX_TEXT_CHARACTERS},
    Path: {"type": "string", "maxLength": MAX_TEXT_CHARACTERS},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
    float: {"type": "number"},
    type(None): {"type": "null"},
}


def decode(kind: Any, value: Any, at: str = "the value", *, answer: bool = False) -> Any:
    """Make a value of *kind* from parsed JSON. *at* names it in the refusal."""
    kind = _bare(kind)
    if kind is Any:
        return value
    if _is_union(kind):
        return _one_of(get_args(kind), value, at, answer)
    origin = get_origin(kind) or kind
    if origin in (Sequence, list, tuple):
        if not isinstance(value, list):
            raise Refused(f"{at} is no list")
        item = get_args(kind)[0]
        return [decode(item, each, f"an item of {at}", answer=answer) for each in value]
    if origin in (Mapping, dict):
        if not isinstance(value, dict):
            raise Refused(f"{at} is no object")
        return value
    if is_dataclass(origin):
        return _object(origin, value, at, answer)
    words = _words(kind)
    return _word(words, value, at) if words else _plain(origin, value, at, answer)


def encode(value: Any, *, brief: bool = False) -> Any:
    """Turn a value that the façade takes or returns into JSON's types.

    *brief*: leave out what a data class has by default. An agent of an earlier version, which
    refuses what it does not know, is so asked for something new only where it matters.
    """
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value, IntEnum) else value.value
    if is_dataclass(value) and not isinstance(value, type):
        told = {field.name: getattr(value, field.name) for field in fields(value)}
        if brief:
            told = {f.name: told[f.name] for f in fields(value) if told[f.name] != f.default}
        return {name: encode(item, brief=brief) for name, item in told.items()}
    if isinstance(value, Mapping):
        return {str(key): encode(item, brief=brief) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [encode(item, brief=brief) for item in value]
    return str(value) if isinstance(value, Path) else value


def schema(kind: Any, components: dict[str, Schema], *, answer: bool = False) -> Schema:
    """Describe *kind*; its data classes are added to *components* and referred to."""
    kind = _bare(kind)
    if kind is Any:
        return {}
    if _is_union(kind):
        return {"anyOf": [schema(each, components, answer=answer) for each in get_args(kind)]}
    origin = get_origin(kind) or kind
    if origin in (Sequence, list, tuple):
        items = schema(get_args(kind)[0], components, answer=answer)
        return {"type": "array", "items": items}
    if origin in (Mapping, dict):
        return {"type": "object"}
    if is_dataclass(origin):
        return _reference(origin, components, answer)
    if words := _words(kind):
        return {"type": "string", "enum": list(words)}
    plain = _PLAIN[origin]
    return {"type": plain["type"]} if answer else dict(plain)


def _reference(kind: Any, components: dict[str, Schema], answer: bool) -> Schema:
    name = kind.__name__
    if name not in components:
        components[name] = {}  # set before its fields, as it may refer to itself
        hints = _hints(kind)
        components[name] = {
            "type": "object",
            "properties": {
                f.name: schema(hints[f.name], components, answer=answer) for f in fields(kind)
            },
            "required": [f.name for f in fields(kind) if answer or _is_required(f)],
            "additionalProperties": answer,
        }
    return {"$ref": f"#/components/schemas/{name}"}


def _object(kind: Any, value: Any, at: str, answer: bool) -> Any:
    if not isinstance(value, dict):
        raise Refused(f"{at} is no object")
    known = {field.name: field for field in fields(kind)}
    if answer:
        value = {name: item for name, item in value.items() if name in known}
    if not value.keys() <= known.keys():
        raise Refused(f"{at} has a field that is not known", hint=f"known: {_listed(known)}")
    missing = [f.name for f in known.values() if _is_required(f) and f.name not in value]
    if missing:
        raise Refused(f"{at} lacks {_listed(missing)}")
    hints = _hints(kind)
    return kind(
        **{name: decode(hints[name], item, name, answer=answer) for name, item in value.items()}
    )


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _one_of(kinds: Sequence[Any], value: Any, at: str, answer: bool) -> Any:
    refusals = []
    for kind in kinds:
        try:
            return decode(kind, value, at, answer=answer)
        except Refused as e:
            refusals.append(e)
    # The last kind but None is what most callers meant, so its refusal is the most useful.
    raise [r for r, kind in zip(refusals, kinds, strict=True) if kind is not type(None)][-1]


def _plain(kind: Any, value: Any, at: str, answer: bool) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (str, Path) and isinstance(value, str):
        if len(value) > MAX_TEXT_CHARACTERS and not answer:
            raise Refused(f"{at} is longer than {MAX_TEXT_CHARACTERS} characters")
        return kind(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and is_number and value == int(value):
        return int(value)
    if kind is float and is_number:
        return float(value)
    if kind is type(None) and value is None:
        return None
    raise Refused(f"{at} is no {_PLAIN[kind]['type']}")


def _bare(kind: Any) -> Any:
    """*kind* without what only type checkers see: a NewType becomes its base."""
    return getattr(kind, "__supertype__", kind)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _words(kind: Any) -> dict[str, Any]:
    """The values of a literal or an enum by their names; none for other types."""
    if get_origin(kind) is Literal:
        return {word: word for word in get_args(kind)}
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return {}
    return {str(encode(member)): member for member in kind}


def _word(words: dict[str, Any], value: Any, at: str) -> Any:
    if isinstance(value, str) and value in words:
        return words[value]
    raise Refused(f"{at} is none of {_listed(words)}")


def _listed(names: typing.Iterable[str]) -> str:
    return ", ".join(names)
