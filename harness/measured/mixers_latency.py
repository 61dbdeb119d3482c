"""Latency of the module scope: all mixers of one denoiser call by themselves, and one of them as Table 2 counts it.

Each distinct site is timed alone on the case's device, warm, with random weights and tokens, and counts as often as one
call of the denoiser calls it. Nothing of the denoiser's body runs, so any size can be timed that one mixer can do.

Table 2 of ΔConvFusion (arXiv 2504.21292) is of this scope: its official code puts CUDA events around every attn1 or
conv1 of PixArt, batch 1 doubled by guidance, fp16, and takes the mean over modules and calls. We take the median of
each module's calls, then the mean over modules. The paper names neither its device nor the pixels of "4K"; from 1024
to 4K its self-attention grows 182 times and its LinFusion 15 times: that fits 4096 x 4096, and not 3840 x 2160.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from harness.measured.conformance import breach
from harness.measured.distinct_sites import DistinctSite, distinct_sites, mixer_at, tokens_at
from harness.measured.rates import too_slow
from harness.measured.timing import check_batch, clock_name, observed
from harness.models.model import DTYPES
from harness.records.record import Reading

if TYPE_CHECKING:
    from harness.trial import Trial

GUIDANCE_BATCH = 2
TABLE_2 = {
    ("self_attention", 1024): 5.91,
    ("linfusion", 1024): 5.82,
    ("deltaconv", 1024): 3.53,
    ("self_attention", 4096): 1077.98,
    ("linfusion", 4096): 88.59,
    ("deltaconv", 4096): 54.84,
}
"""Milliseconds of one module of PixArt; ∆Conv with K = 13."""
FEWEST_SECONDS = 0.1
"""Seconds of samples that each distinct site gets at least, however many of them share the budget."""


class NotTimed(RuntimeError):
    """A site that is not timed; the message is the reason of the dash, and it heals where the mixer may be mended."""

    def __init__(self, reason: str, heals: bool = False) -> None:
        super().__init__(reason)
        self.heals = heals


@dataclass(frozen=True)
class MixersLatency:
    """All mixers of one denoiser call: about `seconds` of samples, shared by the distinct sites.

    batch: images a call; None for the case's. patience: a site whose one call needs more seconds than this even at the
    machine's best rate is not tried.
    """

    name: str = "mixers_latency"
    seconds: float = 1.5
    least: int = 7
    patience: float = 20.0
    batch: int | None = 1
    needs: ClassVar[str] = "shapes"
    runs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise BadInput for a batch without images."""
        check_batch(self.name, self.batch)

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        """One reading; its details hold every distinct site with its raw samples."""
        batch = trial.case.batch if self.batch is None else self.batch
        protocol = (
            f"{self.name}/v1: all mixers of one denoiser call by themselves, batch {batch}, forward, random weights, "
            f"eager, warm, sum over the calls of each distinct site's median of {clock_name(trial.case.device)}"
        )
        try:
            sites = timed_sites(trial, batch, self.seconds, self.least, self.patience)
        except NotTimed as reason:
            yield Reading(self.name, self.name, None, "ms", "lower", protocol, reason=str(reason), heals=reason.heals)
            return
        yield summed(self.name, protocol, sites)


@dataclass(frozen=True)
class PaperLatency:
    """One mixer, the mean over those of a denoiser call with guidance: Table 2. Fields as in MixersLatency."""

    name: str = "paper_latency"
    seconds: float = 1.5
    least: int = 7
    patience: float = 20.0
    needs: ClassVar[str] = "shapes"
    runs: ClassVar[bool] = True

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        """One reading; where Table 2 has the case, its details hold the printed number."""
        protocol = (
            f"{self.name}/v1: one mixer by itself as in Table 2 of arXiv 2504.21292, batch {GUIDANCE_BATCH}, "
            f"forward, random weights, eager, warm, mean over the mixers of medians of {clock_name(trial.case.device)}"
        )
        details = published(trial)
        try:
            sites = timed_sites(trial, GUIDANCE_BATCH, self.seconds, self.least, self.patience)
        except NotTimed as reason:
            yield Reading(
                self.name,
                self.name,
                None,
                "ms",
                "lower",
                protocol,
                reason=str(reason),
                details=details,
                heals=reason.heals,
            )
            return
        calls = sum(site["calls"] for site in sites)
        yield summed(self.name, protocol, sites, share=1 / calls, details=details)


def published(trial: "Trial") -> dict[str, Any]:
    """What Table 2 prints for a case, and for which dtype; nothing for what it has not."""
    case = trial.case
    square = case.resolution.width if case.resolution.width == case.resolution.height else 0
    value = TABLE_2.get((case.variant, square)) if case.model == "pixart" else None
    return {"published": {"ms": value, "dtype": "fp16", "device": "unknown"}} if value is not None else {}


def timed_sites(trial: "Trial", batch: int, seconds: float, least: int, patience: float) -> list[dict[str, Any]]:
    """Each distinct site, timed; NotTimed for the first that is too slow or breaches its definition."""
    found = distinct_sites(trial)
    case = trial.case
    for distinct in found:
        if reason := too_slow(batch * distinct.flops, patience, case.device, DTYPES[case.dtype]):
            raise NotTimed(f"{distinct.site.path}: {reason}")
    share = max(FEWEST_SECONDS, seconds / len(found))
    return [_timed(distinct, trial, batch, share, least) for distinct in found]


def _timed(distinct: DistinctSite, trial: "Trial", batch: int, seconds: float, least: int) -> dict[str, Any]:
    """What the details hold of one distinct site: its shape, its calls, and its timing."""
    mixer, tokens_BNC = mixer_at(distinct, trial), tokens_at(distinct, trial, batch)
    if reason := breach(mixer, distinct.site, tokens_BNC):
        raise NotTimed(reason, heals=True)
    with torch.no_grad():
        timing, details = observed(lambda: mixer(tokens_BNC, distinct.grid), seconds, least, trial.case.device)
    low, high = timing.interval_ms()
    return {
        "site": distinct.site.path,
        "channels": distinct.site.channels,
        "heads": distinct.site.heads,
        "grid": list(distinct.grid),
        "calls": distinct.calls,
        "median": timing.median_ms,
        "low": low,
        "high": high,
        "samples": list(timing.samples_ms),
    } | details


def summed(
    name: str, protocol: str, sites: list[dict[str, Any]], share: float = 1.0, details: dict[str, Any] | None = None
) -> Reading:
    """The time of all calls together, times `share`. Sites vary independently, so half-widths add in squares."""

    value = share * math.fsum(site["calls"] * site["median"] for site in sites)
    known = all(site["low"] is not None for site in sites)
    noisy = [site["noisy"] for site in sites if site["noisy"]]
    told = f"{len(noisy)} of {len(sites)} sites were disturbed, the first: {noisy[0]}" if noisy else ""
    return Reading(
        name,
        name,
        value,
        "ms",
        "lower",
        protocol,
        n=min(len(site["samples"]) for site in sites),
        low=value - share * _half_width(sites, "low") if known else None,
        high=value + share * _half_width(sites, "high") if known else None,
        details={"noisy": told, **(details or {}), "sites": sites},
    )


def _half_width(sites: list[dict[str, Any]], end: str) -> float:
    return math.hypot(*(site["calls"] * (site[end] - site["median"]) for site in sites))
