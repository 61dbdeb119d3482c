"""What was measured of a model, site by site, as a file that choices are made by.

A report writes it (`profiles/<model>.json` beside it) after the sweeps `locality` and `sensitivity`; a model names it
(`profile:`). Two settings of a variant are replaced by numbers from it before anything is made of them:

    kernel_size: erf    the receptive field of each site's filtered map, in tokens
    flops: 0.3          of a hybrid: replace the sites whose errors add up to the least, down to this share of FLOPs
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.locality.schedule import Price, schedule
from harness.records.case import BadInput
from harness.records.typed import parsed, reader
from harness.seats.sources import path_of

ERF = "erf"
FORMAT = "deltabench profile, version 1"
HOW = "take the sweep locality or sensitivity of it and give catalog.models.{model}.profile=<out>/profiles/{model}.json"


@dataclass(frozen=True)
class Profile:
    """Receptive field of each site, and of each variant the prices of its sites; what was not measured is missing."""

    model: str
    fields: Mapping[str, int]
    prices: Mapping[str, Mapping[str, Price]]

    @classmethod
    def read(cls, source: str, model: str) -> "Profile":
        """The profile in a file on this disk or in a package; BadInput where it is none."""
        try:
            data, price = parsed(path_of(source).read_text(encoding="utf-8")), reader(Price)
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}")
            prices = {
                variant: {site: price(each, site) for site, each in sites.items()}
                for variant, sites in data["prices"].items()
            }
            return cls(model, {site: int(field) for site, field in data["receptive_fields"].items()}, prices)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"{source} is no profile of a model ({type(error).__name__}: {error}): {HOW.format(model=model)}"
            ) from error


def settled(settings: Mapping[str, Any], source: str | None, model: str) -> dict[str, Any]:
    """Settings of a variant with all that a profile decides spelled out, in nested factories too."""
    laid = {name: _nested(value, source, model) for name, value in settings.items()}
    if laid.get("kernel_size") == ERF:
        laid["kernel_size"] = _kernels(_profile(source, model, "kernel_size=erf"))
    if laid.get("flops") is not None:
        laid["sites"] = _sites(_profile(source, model, "flops="), laid, model)
        laid["flops"] = None
    return laid


def _nested(value: Any, source: str | None, model: str) -> Any:
    if isinstance(value, partial):
        return partial(value.func, *value.args, **settled(value.keywords, source, model))
    if isinstance(value, Mapping) and any(isinstance(each, partial) for each in value.values()):
        return {name: _nested(each, source, model) for name, each in value.items()}
    return value


def _profile(source: str | None, model: str, setting: str) -> Profile:
    if source is None:
        raise BadInput(f"{setting} needs a profile of {model}, and there is none: {HOW.format(model=model)}")
    return Profile.read(source, model)


def _kernels(profile: Profile) -> dict[str, int]:
    if not profile.fields:
        raise BadInput(
            f"kernel_size=erf needs receptive fields, which the profile of {profile.model} lacks: "
            f"{HOW.format(model=profile.model)}"
        )
    return dict(profile.fields)


def _sites(profile: Profile, settings: Mapping[str, Any], model: str) -> dict[str, str]:
    """The map of a hybrid: the scheduled sites to what replaces them, the rest to the teacher's attention."""
    if settings.get("share") is not None:
        raise BadInput("a hybrid has share= and flops=: give one of them")
    name = str(settings.get("replacement", "deltaconv"))
    if name not in profile.prices:
        known = ", ".join(profile.prices) or "none"
        raise BadInput(
            f"flops= needs what {name} loses at each site of {model}, and its profile knows {known}: "
            f"{HOW.format(model=model)}"
        )
    return dict.fromkeys(schedule(profile.prices[name], float(settings["flops"])), name) | {"*": "self_attention"}
