"""FLOPs of one denoiser call and one image: sites at their mixers' own price, the rest counted on the meta device.

Convention: one image, 2 per multiply-add, matrix products and convolutions only; `macs` is half of that. Nothing is
allocated, so 16384 pixels cost no more than 512. Three counters have to agree (harness/counted/counters.py). The third,
fvcore's, is slow: it sees each model's body and each kind of mixer once, since other sizes run the same operators.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from harness.counted import fvcore_count
from harness.counted.components import decoder_flops, decoder_key, encodings, text_flops
from harness.counted.counters import Disagreement, agree, audit, count, tally
from harness.counted.parts import SELF_ATTENTION, TEXT_ENCODER, VAE, working_parts
from harness.counted.site_calls import SiteCall, body_key, description, left_open, model_key, site_modules
from harness.records.case import BadInput
from harness.records.record import Reading
from harness.seats.mixer import TokenMixer
from harness.trial import Trial

PROTOCOL = "flops/v1: one denoiser call, batch 1, 2 per multiply-add, matrix products and convolutions only"
IMAGE_PROTOCOL = (
    "flops_image/v2: one image, {steps} steps {how} guidance, text encoders, one decoding; "
    "2 per multiply-add, matrix products and convolutions only"
)
FIRST_TWO = ("prices", "torch")  # the two counters that watch every call; fvcore is the third


@dataclass(frozen=True)
class Body:
    """All of one call but its sites, by kind, and the calls of these. `third`: the size at which fvcore agreed."""

    kinds: dict[str, int]
    site_calls: tuple[SiteCall, ...]
    third: str = ""

    @property
    def flops(self) -> int:
        return sum(self.kinds.values())


@dataclass(frozen=True)
class CallCost:
    """What one call costs: the body, and every site by its path."""

    body: Body
    sites: dict[str, int]

    @property
    def mixers(self) -> int:
        return sum(self.sites.values())

    @property
    def total(self) -> int:
        return self.body.flops + self.mixers

    @property
    def kinds(self) -> dict[str, int]:
        return {SELF_ATTENTION: self.mixers} | self.body.kinds


def body_of(denoiser: nn.Module, arguments: Mapping[str, Any]) -> Body:
    """Count one call of a denoiser on the meta device with its sites left open, by two counters."""
    with left_open(denoiser) as site_calls, working_parts(denoiser) as inside:
        return Body(tally(denoiser, inside=inside, **arguments), tuple(site_calls))


def check_body(denoiser: nn.Module, arguments: Mapping[str, Any], body: Body) -> None:
    """Raise Disagreement where the third counter finds another sum for the same call."""
    with left_open(denoiser):
        agree(body.flops, fvcore_count.analysis(denoiser, **arguments))


def cost_of(denoiser: nn.Module, body: Body) -> CallCost:
    """Add the sites to a body: a mixer costs what it says, the denoiser's own attention is counted where it stands.

    Raises Disagreement for a site that was not called while the body was followed: it would cost nothing.
    """
    at_sites = site_modules(denoiser)
    missed = set(at_sites) - {site_call.path for site_call in body.site_calls}
    if missed:
        raise Disagreement(f"the body never called {min(missed)}: its work would not be counted")
    sites: Counter[str] = Counter()
    counted: dict[object, int] = {}
    for site_call in body.site_calls:
        sites[site_call.path] += _price_of(at_sites[site_call.path], site_call, counted)
    return CallCost(body, dict(sites))


def _price_of(module: nn.Module, site_call: SiteCall, counted: dict[object, int]) -> int:
    if isinstance(module, TokenMixer) and site_call.grid is not None:
        return site_call.shape[0] * module.flops(site_call.grid)
    key = (site_call.shape, tuple(weight.shape for weight in module.parameters()))
    if key not in counted:
        counted[key] = count(module, site_call.tokens())
    return counted[key]


@dataclass(frozen=True)
class Flops:
    """FLOPs and parameters of the denoiser with its variant, whole and at the sites alone, and FLOPs of an image.

    What later cases share is kept: bodies, the size at which fvcore saw each model, audited mixers, other components.
    """

    name: str = "flops"
    bodies: dict[object, Body] = field(default_factory=dict, repr=False, compare=False)
    fvcore_sizes: dict[object, str] = field(default_factory=dict, repr=False, compare=False)
    audited: set[object] = field(default_factory=set, repr=False, compare=False)
    components: dict[object, int] = field(default_factory=dict, repr=False, compare=False)
    needs: ClassVar[str] = "shapes"

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """Five readings: flops, flops_mixers, flops_image, parameters, parameters_mixers."""
        with trial.meta_denoiser() as (denoiser, arguments):
            body = self._body(trial, denoiser, arguments)
            costs = cost_of(denoiser, body)
            self._audit(denoiser, body)
            whole = parameters(denoiser)
            mixers = sum(parameters(denoiser.get_submodule(path)) for path in costs.sites)

        def reading(name: str, value: int, unit: str, **details: Any) -> Reading:
            return Reading(self.name, name, value, unit, "lower", PROTOCOL, details=details)

        counters = [*FIRST_TWO, f"fvcore at {body.third}"]
        told = {"macs": costs.total // 2, "kinds": costs.kinds, "counters": counters}
        yield reading("flops", costs.total, "FLOP", body=body.flops, **told)
        grids = {site_call.path: list(site_call.grid) for site_call in body.site_calls if site_call.grid is not None}
        yield reading("flops_mixers", costs.mixers, "FLOP", macs=costs.mixers // 2, sites=costs.sites, grids=grids)
        yield self._image(trial, costs)
        yield reading("parameters", whole, "parameter")
        yield reading("parameters_mixers", mixers, "parameter")

    def _body(self, trial: Trial, denoiser: nn.Module, arguments: Mapping[str, Any]) -> Body:
        key = body_key(trial)
        if key not in self.bodies:
            body = body_of(denoiser, arguments)
            model = model_key(trial)
            if model not in self.fvcore_sizes:
                check_body(denoiser, arguments, body)
                self.fvcore_sizes[model] = str(trial.case.resolution)
            self.bodies[key] = Body(body.kinds, body.site_calls, self.fvcore_sizes[model])
        return self.bodies[key]

    def _audit(self, denoiser: nn.Module, body: Body) -> None:
        """Each kind of mixer is held to its price once."""
        shapes = {site_call.path: site_call for site_call in body.site_calls}
        for path, mixer in site_modules(denoiser).items():
            if isinstance(mixer, TokenMixer) and (key := description(mixer)) not in self.audited:
                audit(mixer, shapes[path].shape[-1], shapes[path].dtype)
                self.audited.add(key)

    def _image(self, trial: Trial, call: CallCost) -> Reading:
        """What one image takes; a dash where the configuration of a text encoder or the autoencoder is not there."""
        case = trial.case
        calls = trial.model.calls(case.steps, case.guidance)
        told: dict[str, Any] = {"calls": calls, "steps": case.steps, "guidance": case.guidance}
        value, reason = None, ""
        try:
            around = self._around(trial)
        except BadInput as error:
            reason = str(error)
        else:
            kinds = {kind: calls * flops for kind, flops in call.kinds.items()} | around
            value = sum(kinds.values())
            told |= {"macs": value // 2, "kinds": kinds}
        protocol = IMAGE_PROTOCOL.format(steps=case.steps, how="with" if case.guidance > 1 else "without")
        return Reading(self.name, "flops_image", value, "FLOP", "lower", protocol, reason=reason, details=told)

    def _around(self, trial: Trial) -> dict[str, int]:
        """What an image takes beside the denoiser: its texts encoded, and one decoding."""
        model, size = trial.model, trial.case.resolution
        text, pixels = (TEXT_ENCODER, model.layout), (VAE, decoder_key(model.layout), size)
        if text not in self.components:
            self.components[text] = text_flops(model)
        if pixels not in self.components:
            self.components[pixels] = decoder_flops(model, size)
        texts = encodings(model.layout, trial.case.guidance)
        return {TEXT_ENCODER: texts * self.components[text], VAE: self.components[pixels]}


def parameters(module: nn.Module) -> int:
    """Number of weights; shared ones count once."""
    return sum(weight.numel() for weight in module.parameters())
