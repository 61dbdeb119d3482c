"""FLOPs of one denoiser call: every site at its mixer's own price, the body counted on the meta device.

Convention: one image, 2 per multiply-add, matrix products and convolutions only. Nothing is allocated, so 16384 pixels
cost no more than 512. The body is counted twice, by our prices and by torch's FlopCounterMode: two counters that
disagree are an error, and so is an operator that nobody priced.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from harness.metrics.operators import FusedAttention, aten, known, price
from harness.metrics.visits import Visit, body_key, left_open, residents
from harness.mixer import TokenMixer
from harness.record import Reading

if TYPE_CHECKING:
    from harness.trial import Trial

PROTOCOL = "flops/v1: one denoiser call, batch 1, 2 per multiply-add, matrix products and convolutions only"


class Disagreement(RuntimeError):
    """Two counts of the same work differ: the sentence holds both."""


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the prices of all operators; raises Unpriced for one without a price."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not known(func):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        self.total += price(func, args, output)
        return output


def count(module: nn.Module, *args: Any, **kwargs: Any) -> int:
    """FLOPs of one call of a module on the meta device, found twice.

    Raises Unpriced for an operator that nobody priced, and Disagreement where torch's counter finds another sum.
    """
    from torch.utils.flop_counter import FlopCounterMode

    formulas = {aten._scaled_dot_product_flash_attention_for_cpu: _torch_attention_formula}
    counter, ledger = FlopCounterMode(display=False, custom_mapping=formulas), Ledger()
    with torch.no_grad(), FusedAttention(), counter, ledger:
        module(*args, **kwargs)
    second = int(counter.get_total_flops())
    if second != ledger.total:
        raise Disagreement(f"our counter finds {ledger.total} FLOPs, torch's {second}: one of them is wrong")
    return ledger.total


def _torch_attention_formula(query: Any, key: Any, value: Any, *ignored: Any, **options: Any) -> int:
    """torch registers this formula from 2.14 on only."""
    from torch.utils.flop_counter import sdpa_flop_count

    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Body:
    """All of one call but its sites, and the visits to these."""

    flops: int
    visits: tuple[Visit, ...]


@dataclass(frozen=True)
class Bill:
    """What one call costs: the body, and every site by its path."""

    body: int
    sites: dict[str, int]

    @property
    def mixers(self) -> int:
        """All sites together."""
        return sum(self.sites.values())

    @property
    def total(self) -> int:
        """Body and sites."""
        return self.body + self.mixers


def body_of(denoiser: nn.Module, arguments: Mapping[str, Any]) -> Body:
    """Count one call of a denoiser on the meta device with its sites left open."""
    with left_open(denoiser) as visits:
        return Body(count(denoiser, **arguments), tuple(visits))


def bill(denoiser: nn.Module, body: Body) -> Bill:
    """Add the sites to a body: a mixer costs what it says, the denoiser's own attention is counted where it stands.

    Raises Disagreement for a site that the body never visited: it would be free.
    """
    at_home = residents(denoiser)
    missed = set(at_home) - {visit.path for visit in body.visits}
    if missed:
        raise Disagreement(f"the body never visited {min(missed)}: its work would not be counted")
    sites: Counter[str] = Counter()
    for visit in body.visits:
        sites[visit.path] += _price_of(at_home[visit.path], visit)
    return Bill(body.flops, dict(sites))


def _price_of(resident: nn.Module, visit: Visit) -> int:
    if isinstance(resident, TokenMixer) and visit.grid is not None:
        return visit.shape[0] * resident.flops(visit.grid)
    return count(resident, visit.tokens())


@dataclass(frozen=True)
class Flops:
    """FLOPs and parameters of the denoiser with its variant, whole and at the sites alone."""

    name: str = "flops"
    bodies: dict[object, Body] = field(default_factory=dict, repr=False, compare=False)
    needs: ClassVar[str] = "shapes"

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        """Four readings: flops, flops_mixers, parameters, parameters_mixers."""
        with trial.meta_denoiser() as (denoiser, arguments):
            key = body_key(trial, denoiser)
            if key not in self.bodies:
                self.bodies[key] = body_of(denoiser, arguments)
            body = self.bodies[key]
            costs = bill(denoiser, body)
            whole = parameters(denoiser)
            mixers = sum(parameters(denoiser.get_submodule(path)) for path in costs.sites)

        def reading(name: str, value: int, unit: str, **details: Any) -> Reading:
            return Reading(self.name, name, value, unit, "lower", PROTOCOL, details=details)

        yield reading("flops", costs.total, "FLOP", body=costs.body)
        grids = {visit.path: list(visit.grid) for visit in body.visits if visit.grid is not None}
        yield reading("flops_mixers", costs.mixers, "FLOP", sites=costs.sites, grids=grids)
        yield reading("parameters", whole, "parameter")
        yield reading("parameters_mixers", mixers, "parameter")


def parameters(module: nn.Module) -> int:
    """Number of weights; shared ones count once."""
    return sum(weight.numel() for weight in module.parameters())
