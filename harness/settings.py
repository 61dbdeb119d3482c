"""One check of all settings, by the types that classes and factories declare, before any of them is made.

Each node of the configuration with a `_target_` is compared with what its target takes. Whether a value of the right
type can be used is for the class to say.
"""

import importlib
import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from harness.records.case import BadInput

MARKS = ("_target_", "_partial_", "_convert_")
BESIDE = {"published": str | None}
"""Settings of a factory that are none of its mixers': where their weights are."""
SPELLED_OUT = {"kernel_size": Literal["erf"]}
"""Words that stand for a factory's settings until a model's profile spells them out (harness/locality/profile.py)."""
PLAIN: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def check(node: Any, path: str = "") -> None:
    """Raise BadInput for the first setting that nobody takes or that is of another type, at any depth."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return
    target = _target(node, path)
    hints = _hints(target)
    if node.get("_partial_"):
        hints |= BESIDE | {name: hints[name] | word for name, word in SPELLED_OUT.items() if name in hints}
    for name, value in node.items():
        where = f"{path}.{name}" if path else str(name)
        if name in MARKS:
            continue
        if name not in hints:
            known = ", ".join(sorted(hints)) or "none"
            raise BadInput(f"{where} is no setting of {target.__qualname__}: it has {known}")
        if not _fits(value, hints[name], where):
            raise BadInput(_misfit(*_culprit(where, value, hints[name])))


def _target(node: Mapping[str, Any], path: str) -> Any:
    try:
        _import_module_of(str(node["_target_"]))
        return pkgutil.resolve_name(str(node["_target_"]))
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise BadInput(f"{path} wants {node['_target_']!r}, which cannot be had ({error})") from error


def _import_module_of(name: str) -> None:
    """Import what a dotted name lies in. What breaks inside of it is raised: `resolve_name` would hide it."""
    while name := name.rpartition(".")[0]:
        try:
            importlib.import_module(name)
            return
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise


def _hints(target: Any) -> dict[str, Any]:
    """Name -> declared type of all that a class takes, or a factory besides the site and its attention."""
    made = target.__init__ if inspect.isclass(target) else target
    parameters = list(inspect.signature(target).parameters)
    taken = parameters if inspect.isclass(target) else parameters[2:]
    try:
        hints = typing.get_type_hints(target if is_dataclass(target) else made, include_extras=True)
    except NameError:  # a name that only a type checker imports: any value will do
        hints = {}
    return {name: hints.get(name, Any) for name in taken}


def _fits(value: Any, hint: Any, path: str) -> bool:
    """Whether a value is of a type; parts and what is inside them are checked on the way."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, inside[0], path)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one, path) for one in inside)
    if isinstance(value, Mapping) and "_target_" in value:
        check(value, path)
        return _takes_parts(hint, value, path)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin is Literal:
        return value in inside
    if hint is None or hint is types.NoneType or value is None:
        return value is None and hint in (None, types.NoneType)
    if _is_map(origin):
        return isinstance(value, Mapping) and all(
            _fits(name, inside[0], path) and _fits(each, inside[1], f"{path}.{name}") for name, each in value.items()
        )
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        return isinstance(value, list | tuple) and all(_fits(each, inside[0], f"{path}[]") for each in value)
    return _is_plain(value, hint)


def _is_plain(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str | Path)
    return inspect.isclass(hint) and isinstance(value, hint)


def _takes_parts(hint: Any, node: Mapping[str, Any], path: str) -> bool:
    """Whether what a node makes may stand there: a factory, or an object of that class."""
    kind = get_origin(hint) or hint
    if kind is Any or isinstance(kind, typing.TypeVar):
        return True
    if kind is partial or node.get("_partial_"):
        return bool(node.get("_partial_")) and kind in (partial, Callable)
    target = _target(node, path)
    if not inspect.isclass(kind) or kind in PLAIN:
        return False
    return getattr(kind, "_is_protocol", False) or not inspect.isclass(target) or issubclass(target, kind)


def _culprit(path: str, value: Any, hint: Any) -> tuple[str, Any, Any]:
    """Path, value and type of what does not fit: of a map its first wrong entry, else the value itself.

    BadInput for settings of a name that is none, such as a model's that was mistyped.
    """
    maps = [one for one in (hint, *get_args(hint)) if _is_map(get_origin(one))]
    if not isinstance(value, Mapping) or not maps:
        return path, value, hint
    inside = get_args(maps[0])[1]
    wrong = ((name, each) for name, each in value.items() if not _fits(each, inside, f"{path}.{name}"))
    found = next(wrong, None)
    if found is None:
        return path, value, hint
    name, each = found
    known = sorted(name for name, node in value.items() if isinstance(node, Mapping) and "_target_" in node)
    if known and isinstance(each, Mapping) and "_target_" not in each:
        raise BadInput(f"{path}.{name} is not known: choose from {', '.join(known)}, or give it a _target_ of your own")
    return _culprit(f"{path}.{name}", each, inside)


def _is_map(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Mapping)


def _misfit(path: str, value: Any, hint: Any) -> str:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    if not isinstance(value, list | Mapping) and _fits([value], hint, path):
        return f"{path}={shown} is not a list: write {path}=[{shown}]"
    return f"{path}={shown} is not possible: give {_words(hint)}"


def _words(hint: Any) -> str:
    """What a type is called: `a whole number, or a list of whole numbers`."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(inside[0])
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(_words(one) for one in inside))
    if origin is Literal:
        return " or ".join(map(str, inside))
    if hint in (None, types.NoneType):
        return "null"
    if _is_map(origin):
        return f"a map from names to {_words(inside[1])}"
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        one = _words(inside[0])
        return f"a list of {one.removeprefix('a ')}" + "s" * one.startswith("a ")
    if hint is Any:
        return "a value"
    return PLAIN.get(hint) or f"one of the group that makes a {getattr(origin or hint, '__name__', 'part')}"
