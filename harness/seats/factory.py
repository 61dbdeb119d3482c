"""Factories of mixers, each a `partial` of a mixer's `for_site` with settings, and the settings that a student names.

A student that was trained here names its mixer and settings in the file's header (`ingredients`), one that was saved
from a pipeline in the config.json beside it (`FORMAT`).
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from harness.records.case import BadInput
from harness.records.spelled import ONLY_SPEED, path_of, spelled
from harness.seats.mixer import Site, TokenMixer

FORMAT = "deltabench student, version 1"
"""How a saved student's config.json is marked; other versions begin the same up to the comma."""
UNTOLD = {*ONLY_SPEED, "inherit"}
"""Settings in which a student and its factory may differ: they change no number once the weights are there."""


def made_with(source: str, config: Mapping[str, Any], header: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Mixer and settings that a student's config.json or header names; None for published weights, which name none.

    BadInput for a student of another format, and for one whose file lacks them.
    """
    written = str(config.get("format"))
    if written.startswith(FORMAT.partition(",")[0]) and written != FORMAT:
        raise BadInput(f"{source} is a {written!r}, and {FORMAT!r} is what can be read: save it with this release")
    try:
        if written == FORMAT:
            return str(config["mixer"]), dict(config["settings"])
        if "ingredients" not in header:
            return None
        made_of = json.loads(header["ingredients"])
        return str(made_of["mixer"]).split(".")[-2], _maps(made_of["parameters"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{source} is a student that does not say its mixer and settings ({type(error).__name__}: {error}): "
            "train or save it again"
        ) from error


def mixer_name(factory: partial[TokenMixer]) -> str:
    """The class that the factory makes mixers of, or the module where it chooses among several."""
    return path_of(factory.func).split(".")[-2]


def makers(factory: partial[TokenMixer]) -> list[partial[TokenMixer]]:
    """The factory, and those among which it chooses: a hybrid takes the weights of a student of one of them."""
    chosen = factory.keywords.get("choices", {}).values()
    return [factory, *(each for each in chosen if isinstance(each, partial))]


def differing(factory: partial[TokenMixer], settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of a file and of the factory that decide a result, by name, where they differ; defaults included."""
    theirs, ours = _settings(partial(factory.func)) | _told(settings), _settings(factory)
    names = sorted(theirs.keys() | ours.keys())
    return {name: (theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)}


def preset(factory: partial[TokenMixer], presets: Mapping[str, Any]) -> partial[TokenMixer]:
    """The factory with a model's presets in the place of its settings."""
    return partial(factory.func, *factory.args, **overlaid(factory.keywords, presets))


def overlaid(settings: Mapping[str, Any], presets: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with presets in their place; where one is a factory (a choice of a hybrid), in the place of its own."""
    laid = dict(settings)
    for name, value in presets.items():
        own = settings.get(name)
        if isinstance(own, partial):
            laid[name] = preset(own, value)
        elif isinstance(own, Mapping) and any(isinstance(each, partial) for each in own.values()):
            laid[name] = overlaid(own, value)
        else:
            laid[name] = value
    return laid


def one_mixer(factory: object) -> type[TokenMixer] | None:
    """The class of which the factory makes all its mixers; None where it may choose among several."""
    mixer = getattr(getattr(factory, "func", None), "__self__", None)
    return mixer if isinstance(mixer, type) and issubclass(mixer, TokenMixer) else None


def is_training_free(factory: object) -> bool:
    """Whether the factory's mixer takes all its weights from its teacher and is of use with them."""
    mixer, inherits = one_mixer(factory), getattr(factory, "keywords", {}).get("inherit", True)
    return mixer is not None and mixer.training_free and bool(inherits)


def at(site: Site, value: Any, name: str) -> Any:
    """The value of a setting at a site. A map of maps is not one from patterns of sites to values, and stays whole."""
    by_site = isinstance(value, Mapping) and not any(isinstance(each, Mapping) for each in value.values())
    return site.pick(value, name) if by_site else value


def _settings(factory: partial[TokenMixer]) -> dict[str, Any]:
    return _maps(spelled(factory, UNTOLD)["parameters"])


def _told(value: Any) -> Any:
    """Settings as a file has them, without those in which factory and student may differ."""
    if isinstance(value, Mapping):
        return {name: _told(each) for name, each in value.items() if name not in UNTOLD}
    return [_told(each) for each in value] if isinstance(value, list | tuple) else value


def _maps(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as spelled, with maps as maps again."""
    return {name: dict(value) if _is_map(value) else value for name, value in settings.items()}


def _is_map(value: object) -> bool:
    """Whether a value is a map that was written as a list of pairs, to keep its order."""
    return isinstance(value, list) and bool(value) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
