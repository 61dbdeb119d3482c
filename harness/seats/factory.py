"""What makes a variant's mixers, spelled out: a function and its settings, of a factory and as a student's file says.

A student that was trained here says them in its header (`ingredients`), one that was saved from a pipeline in the
config.json beside it (`FORMAT`).
"""

import json
from collections.abc import Container, Mapping
from functools import partial
from inspect import signature
from typing import Any

from harness.records.case import BadInput
from harness.seats.mixer import Site, TokenMixer

FORMAT = "deltabench student, version 1"
"""How a saved student's config.json is marked; other versions begin the same up to the comma."""


def described(factory: partial[TokenMixer], but: Container[str] = ()) -> dict[str, Any]:
    """Function and settings, without those in `but`; maps in their order, since the first pattern that fits decides."""
    settings = {
        name: list(value.items()) if isinstance(value, Mapping) else value
        for name, value in factory.keywords.items()
        if name not in but
    }
    return {"mixer": _path(factory), "parameters": settings}


def plain(value: object, but: Container[str] = ()) -> Any:
    """What JSON writes for a value that it does not know; a factory among the settings is described in its turn."""
    return described(value, but) if isinstance(value, partial) else str(value)


def made_with(source: str, config: Mapping[str, Any], header: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Mixer and settings of a student by its config.json and header; None for published weights, which say nothing.

    BadInput for a student of another format, and for one that leaves them out.
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
        settings = {key: dict(value) if _is_map(value) else value for key, value in made_of["parameters"].items()}
        return str(made_of["mixer"]).split(".")[-2], settings
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{source} is a student that does not say its mixer and settings ({type(error).__name__}: {error}): "
            "train or save it again"
        ) from error


def mixer_name(factory: partial[TokenMixer]) -> str:
    """The class that the factory makes mixers of, or the module where it chooses among several."""
    return _path(factory).split(".")[-2]


def makers(factory: partial[TokenMixer]) -> list[partial[TokenMixer]]:
    """The factory, and those among which it chooses: a hybrid takes the weights of a student of one of them."""
    chosen = factory.keywords.get("choices", {}).values()
    return [factory, *(each for each in chosen if isinstance(each, partial))]


def differing(factory: partial[TokenMixer], settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that decide a result, by name, where these and the factory's differ: both values, defaults included."""
    theirs, ours = _settings(partial(factory.func, **settings)), _settings(factory)
    names = sorted(theirs.keys() | ours.keys())
    return {name: (theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)}


def at(site: Site, value: Any, name: str) -> Any:
    """The value of a setting at a site; a map from names to choices, not from patterns of sites, stays whole."""
    by_site = isinstance(value, Mapping) and not any(isinstance(each, Mapping) for each in value.values())
    return site.pick(value, name) if by_site else value


def _settings(factory: partial[TokenMixer]) -> dict[str, Any]:
    """All settings as JSON gives them back, but for a backend and for where training begins: weights decide these."""
    parameters = signature(factory.func).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    kept = {name: value for name, value in (defaults | factory.keywords).items() if name not in ("backend", "inherit")}
    found: dict[str, Any] = json.loads(json.dumps(kept, default=partial(plain, but=("backend",))))
    return found


def _path(factory: partial[TokenMixer]) -> str:
    maker: Any = factory.func
    return f"{maker.__module__}.{maker.__qualname__}"


def _is_map(value: object) -> bool:
    """Whether a value is a map that was written as a list of pairs, to keep its order."""
    return isinstance(value, list) and bool(value) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
