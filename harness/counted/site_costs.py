"""What each mixer of one denoiser call costs, site by site, and the body around them: what a gate compares exactly.

Counted on the meta device: FLOPs, parameters, bytes that one call needs above weights and tokens, and operators.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.counted.flops import Body, body_of, cost_of, parameters
from harness.counted.live_bytes import BodyMemory, body_memory, footprint, rise_of
from harness.counted.meta_results import answered
from harness.counted.operators import FusedAttention
from harness.counted.site_calls import SiteCall, body_key, description, site_modules
from harness.records.record import Reading
from harness.trial import Trial

PROTOCOL = "site_costs/v1: one denoiser call, batch 1, FLOPs as flops/v1, bytes as projected_memory/v3"


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that run, by name; views are none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.counts[func.overloadpacket.__name__] += 1
        return answered(func, args, kwargs or {})


def operators_of(mixer: nn.Module, site_call: SiteCall) -> dict[str, int]:
    """What one call of a mixer runs, by name, sorted."""
    with torch.no_grad(), FusedAttention(), Operators() as seen:
        mixer(*site_call.arguments())
    return dict(sorted(seen.counts.items()))


@dataclass(frozen=True)
class SiteCosts:
    """One reading: how many sites there are; its details hold what each of them costs, and the body."""

    name: str = "site_costs"
    bodies: dict[object, tuple[Body, BodyMemory]] = field(default_factory=dict, repr=False, compare=False)
    needs: ClassVar[str] = "shapes"

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """details: `sites` by path, `body`, and the `torch` whose operators these are."""
        with trial.meta_denoiser() as (denoiser, arguments):
            key = body_key(trial)
            if key not in self.bodies:
                self.bodies[key] = body_of(denoiser, arguments), body_memory(denoiser, arguments)
            body, lived = self.bodies[key]
            flops, at_sites = cost_of(denoiser, body).sites, site_modules(denoiser)
            sites: dict[str, dict[str, Any]] = {}
            alike: dict[object, dict[str, Any]] = {}
            for call in body.site_calls:
                mixer = at_sites[call.path]
                kind = (description(mixer), call.shape, call.grid)
                if kind not in alike:
                    alike[kind] = _of_one_call(mixer, call)
                sites[call.path] = alike[kind] | {"flops": flops[call.path]}
            own = parameters(denoiser) - sum(site["parameters"] for site in sites.values())
            seen = footprint(denoiser, lived)
        around = {"flops": dict(sorted(body.kinds.items())), "parameters": own, "bytes": seen.peak, "at": seen.operator}
        details = {"sites": sites, "body": around, "torch": torch.__version__.partition("+")[0]}
        yield Reading(self.name, self.name, len(sites), "1", "neither", PROTOCOL, details=details)


def _of_one_call(mixer: nn.Module, call: SiteCall) -> dict[str, Any]:
    """All but the FLOPs, which are summed over the calls of a site."""
    return {
        "mixer": type(mixer).__name__,
        "tokens": list(call.grid or call.shape[1:2]),
        "channels": call.shape[-1],
        "parameters": parameters(mixer),
        "bytes": rise_of(mixer, *call.arguments()).size,
        "operators": operators_of(mixer, call),
    }
