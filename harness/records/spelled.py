"""One way to spell a part of a run: its class, and every setting of it that can change a number, as JSON values.

Cases, readings and students are named by digests of this. A setting counts unless it is on one of the two lists below,
which say why not, or is a dataclass field with compare=False (what it holds of a run, such as a cache). For a setting
that names files stands what is in them (`fingerprints`).
"""

import hashlib
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from inspect import Parameter, signature
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

IDLE = {
    "Model.name": "what a model is called",
    "Model.resolutions": "sizes that a sweep may take: a case says its own",
    "Model.presets": "they are laid over the settings of a variant, which is spelled out with them",
    "Model.buckets": "sizes that students learn at: a student's key names them",
    "Model.profile": "what variants take from it is spelled out in their settings",
    "Model.source": "where weights lie: a case names them by their bytes",
    "FolderWorld.name": "what a world is called",
    "FolderWorld.captions": "where the list lies: its entries stand in the place of the folder",
    "FolderWorld.training_folder": "what students learn from: a student's key names it by its entries",
    "ShapesWorld.name": "what a world is called",
    "DinoExtractor.batch": "images at a time: each is read by itself",
    "DinoExtractor.device": "a case says its device",
    "ClipExtractor.batch": "images at a time: each is read by itself",
    "ClipExtractor.device": "a case says its device",
    "Recipe.on_demand": "whether a student is trained, not how",
    "Recipe.force": "whether a student is trained again, not how",
    "Schedule.save_every": "how often a training is kept",
}
"""`Class.setting` -> why it changes no number. A subclass inherits these."""
ONLY_SPEED = {
    "backend": "a mixer's backends agree with its definition",
    "Schedule.precision": "what a device trains fastest in",
}
"""Settings that change how fast, and so a timing, but not which student comes out: no part of a student's key."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A part some of whose settings name files."""

    def fingerprints(self) -> Mapping[str, str]:
        """What files hold, as digests, by the setting that names them; files that no setting names have names too."""
        ...


class Inert:
    """A part that is pickled as its class and settings: what it has loaded or kept is made again where it arrives."""

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **settings_of(self)), ()


def spelled(part: object, but: Container[str] = ()) -> Any:
    """A part as JSON values. Maps keep their order as lists of pairs, since the first pattern that fits decides.

    but: more settings to leave out, named as in the lists above.
    """
    if part is None or isinstance(part, str | int | float):
        return part
    if isinstance(part, PurePath):
        return part.as_posix()
    if isinstance(part, Mapping):
        return [[spelled(key, but), spelled(value, but)] for key, value in part.items()]
    if isinstance(part, Sequence):
        return [spelled(each, but) for each in part]
    if isinstance(part, partial):
        return {"mixer": path_of(part.func), "parameters": _counted(part, but)}
    if isinstance(part, type) or not hasattr(part, "__dict__"):
        return path_of(part) if callable(part) else str(part)
    return {"class": path_of(type(part)), "settings": _counted(part, but)}


def digest(value: object) -> str:
    """Sixteen hex digits over JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def settings_of(part: object) -> dict[str, Any]:
    """Every setting of a part by name, defaults included: what its constructor, or a factory's function, takes."""
    if isinstance(part, partial):
        defaults = {each.name: each.default for each in _parameters(part.func) if each.default is not Parameter.empty}
        return defaults | ({"arguments": part.args} if part.args else {}) | part.keywords
    names = [each.name for each in _parameters(type(part))]
    known = vars(part)
    return {name: known[name] for name in names} if names and known.keys() >= set(names) else dict(known)


def path_of(thing: Any) -> str:
    """`package.module.Class.method`."""
    return f"{thing.__module__}.{thing.__qualname__}"


def _counted(part: object, but: Container[str]) -> dict[str, Any]:
    """The settings that count, those that name files by what the files hold."""
    counted = {
        name: spelled(value, but)
        for name, value in settings_of(part).items()
        if name not in _held(part) and not any(named in IDLE or named in but for named in _names(part, name))
    }
    return counted | dict(part.fingerprints()) if isinstance(part, ReadsFiles) else counted


def _names(part: object, setting: str) -> Iterator[str]:
    """What a setting is called in the lists: of a factory by itself, else after each class that the part is of."""
    if isinstance(part, partial):
        yield setting
    else:
        yield from (f"{kind.__name__}.{setting}" for kind in type(part).__mro__)


def _held(part: object) -> set[str]:
    """What a dataclass holds of a run: the fields that it compares nothing by."""
    return {each.name for each in fields(part) if not each.compare} if is_dataclass(part) else set()


def _parameters(maker: Any) -> list[Parameter]:
    try:
        found = signature(maker).parameters.values()
    except ValueError:  # of some that are written in C nothing is known
        return []
    return [each for each in found if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
