"""Peak memory of one denoiser call, projected: followed on the meta device at any size, without a byte allocated."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from harness.counted.live_bytes import BodyMemory, body_memory, footprint
from harness.counted.site_calls import body_key
from harness.records.record import Reading
from harness.trial import Trial

PROTOCOL = (
    "projected_memory/v3: one denoiser call, batch 1, case dtype, live storages traced on the meta device, "
    "scaled_dot_product_attention fused, convolutions with the copies that oneDNN makes, depthwise ones on the map as "
    "it is, without the planar copy that some processors are faster with"
)


@dataclass(frozen=True)
class ProjectedMemory:
    """What one denoiser call would need, weights and activations; exact, and the same on every machine."""

    name: str = "projected_memory"
    lived: dict[object, BodyMemory] = field(default_factory=dict, repr=False, compare=False)
    needs: ClassVar[str] = "shapes"

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """One reading; details: weights, activations, workspace and the operator at the peak, the most a mixer adds."""
        with trial.meta_denoiser() as (denoiser, arguments):
            key = body_key(trial)
            if key not in self.lived:
                self.lived[key] = body_memory(denoiser, arguments)
            seen = footprint(denoiser, self.lived[key])
        yield Reading(self.name, "projected_memory", seen.peak, "byte", "lower", PROTOCOL, details=asdict(seen))
