"""What Table 3 of arXiv 2504.21292 prints, to lay our scores beside, with what differs between both."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.records.record import Reading
from harness.trial import Trial

TABLE: dict[str, dict[str, dict[str, float]]] = {
    "sd15": {
        "self_attention": {"ds": 42.74, "fdd": 210.86, "clip_score": 30.44},
        "linfusion": {"ds": 44.23, "fdd": 181.78, "clip_score": 30.47},
        "deltaconv": {"ds": 44.72, "fdd": 200.15, "clip_score": 30.73},
    },
    "pixart_512": {"self_attention": {"fdd": 173.88}, "deltaconv": {"fdd": 181.06}},
}
"""Model -> variant -> score."""
DIFFERS = {
    "sd15": "its SD1.5 is DreamShaper, and DreamShaper-8 under LinFusion: give source=Lykon/DreamShaper",
    "deltaconv": "its ∆Conv path leaves guidance to the pipeline's default, 7.5",
    "any": "10,000 LAION images in fp16, seed 3 for every image; ours has another noise for every prompt",
}
"""What the authors' scripts do otherwise, by the row that it concerns."""


@dataclass(frozen=True)
class PrintedQuality:
    """Three readings: ds_printed, fdd_printed, clip_score_printed; dashes where the table has no cell."""

    name: str = "paper_quality"
    needs: ClassVar[str] = "shapes"

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """From the table alone: no image is made."""
        model, variant = trial.case.model, trial.case.variant
        row = TABLE.get(model, {}).get(variant, {})
        details: dict[str, Any] = {"differs": [DIFFERS[name] for name in (model, variant, "any") if name in DIFFERS]}
        for score in ("ds", "fdd", "clip_score"):
            name = f"{score}_printed"
            protocol = f"{name}/v1: as Table 3 of arXiv 2504.21292 prints it"
            if (value := row.get(score)) is None:
                why = f"Table 3 does not print {score} of {variant} on {model}"
                yield Reading(self.name, name, None, "1", "neither", protocol, 10_000, reason=why)
            else:
                yield Reading(self.name, name, value, "1", "neither", protocol, 10_000, details=details)
