"""JSON of unknown origin, read into dataclasses and checked field by field against the declared types.

Numbers are finite, text can be written again, nesting ends, and what is not
declared is refused, since a setting that this version does not know may change a number.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

LARGEST = 1e300
"""A number as large is damage and no measurement; NaN fails the comparison as well."""
DEEPEST = 40
"""Levels of a JSON document; records have about six."""
WORDS = {str: "text", int: "an integer", float: "a number", bool: "true or false"}

Read = Callable[[Any, str], Any]


def parsed(text: str) -> Any:
    """The JSON values of a document; raises ValueError in one line for anything that is not sound."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}, line {error.lineno})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check_sound(value)
    return value


def check_sound(value: Any, depth: int = 0) -> None:
    """Raise ValueError unless these are JSON values that can be written and read again: finite, shallow, real text."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if _is_plain(value):
        return
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError(f"{value[:40]!r} is not text (half a character)")
    elif isinstance(value, int | float):
        if not -LARGEST < value < LARGEST:
            raise ValueError(f"{value if isinstance(value, float) else 'an endless integer'} is not a finite number")
    elif isinstance(value, list | tuple):
        if not _are_finite(value):
            for item in value:
                if not _is_plain(item):
                    check_sound(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{name!r:.40} is no name of a JSON field")
            if not name.isascii():
                check_sound(name, depth + 1)
            if not _is_plain(item):
                check_sound(item, depth + 1)
    elif value is not None:
        raise ValueError(f"{value!r:.40} is no JSON value")


def _is_plain(value: Any) -> bool:
    """Whether it is sound and of the commonest kinds, which are checked fast: a finite number, ASCII text, null."""
    kind = type(value)
    if kind is str:
        return bool(value.isascii())
    if kind is float or kind is int:
        return bool(-LARGEST < value < LARGEST)
    return value is None or kind is bool


def _are_finite(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether these are floats alone, none of them too large (a sum of numbers with a NaN is one)."""
    if set(map(type, values)) != {float}:
        return False
    return math.isfinite(sum(values)) and min(values) > -LARGEST and max(values) < LARGEST


@cache
def reader(kind: Any) -> Read:
    """A function of (JSON value, name of the field) that returns a value of that type or raises ValueError."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value, name: value
    if origin is Literal:
        return _one_of(inside)
    if origin in (Union, types.UnionType):
        return _any_of(kind)
    if origin is tuple:
        return _items(inside)
    if origin is list:
        items = _items((*inside, Ellipsis))
        return lambda value, name: list(items(value, name))
    if origin is dict:
        return _mapping(inside[1])
    if hasattr(kind, "parse"):
        return lambda value, name: kind.parse(_plain(str)(value, name))
    return _fields(kind) if dataclasses.is_dataclass(kind) else _plain(kind)


def _plain(kind: type) -> Read:
    fitting = (int, float) if kind is float else kind

    def read(value: Any, name: str) -> Any:
        if not isinstance(value, fitting) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"field {name!r} is {value!r:.60}, not {WORDS.get(kind, f'a {kind.__name__}')}")
        return value

    return read


def _one_of(known: tuple[Any, ...]) -> Read:
    def read(value: Any, name: str) -> Any:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"field {name!r} is {value!r:.60}, not one of {', '.join(known)}")
        return value

    return read


def _any_of(kind: Any) -> Read:
    """Of `float | int | None`: None, or the first type that fits."""
    given = [one for one in get_args(kind) if one is not types.NoneType]
    first = reader(float if float in given else given[0])
    if types.NoneType not in get_args(kind):
        return first
    return lambda value, name: None if value is None else first(value, name)


def _items(inside: tuple[Any, ...]) -> Read:
    endless = len(inside) == 2 and inside[1] is Ellipsis
    readers = [reader(one) for one in inside if one is not Ellipsis]

    def read(value: Any, name: str) -> Any:
        if not isinstance(value, list) or not (endless or len(value) == len(readers)):
            what = "a list" if endless else f"a list of {len(readers)}"
            raise ValueError(f"field {name!r} is {value!r:.60}, not {what}")
        if endless and inside[0] is float and all(type(item) is float for item in value):
            return tuple(value)
        each = readers * len(value) if endless else readers
        return tuple(one(item, f"{name}[{index}]") for index, (one, item) in enumerate(zip(each, value, strict=True)))

    return read


def _mapping(inside: Any) -> Read:
    one = reader(inside)

    def read(value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"field {name!r} is {value!r:.60}, not an object")
        return {key: one(item, f"{name}.{key}") for key, item in value.items()}

    return read


def _fields(kind: Any) -> Read:
    """A dataclass: fields without a default have to be there, and no others."""
    hints = typing.get_type_hints(kind)
    readers = {field.name: reader(hints[field.name]) for field in dataclasses.fields(kind)}
    missing = dataclasses.MISSING
    needed = [f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing]

    def read(value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"field {name!r} is {value!r:.60}, not an object")
        dot = f"{name}." if name else ""
        for field in needed:
            if field not in value:
                raise ValueError(f"no field {dot + field!r}")
        if unknown := value.keys() - readers.keys():
            raise ValueError(f"field {dot + min(unknown)!r} is not known to this version")
        return kind(**{field: readers[field](item, dot + field) for field, item in value.items()})

    return read
