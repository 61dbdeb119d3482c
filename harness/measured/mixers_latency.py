"""Latency of the module scope: all mixers of one denoiser call by themselves, and one of them as Table 2 counts it.

Each distinct site is timed alone on the case's device, warm, with random weights and tokens, and counts as often as one
call of the denoiser calls it.

Table 2 of ΔConvFusion (arXiv 2504.21292) is of this scope: its official code puts CUDA events around every attn1 or
conv1 of PixArt, batch 1 doubled by guidance, fp16, and takes the mean over modules and calls; here it is the mean over
modules of medians. The paper names neither device nor pixels of "4K": its growth from 1024 fits 4096 x 4096.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from harness.measured.conformance import breach
from harness.measured.distinct_sites import DistinctSite, distinct_sites, mixer_at, tokens_at
from harness.measured.rates import too_slow
from harness.measured.timing import check_batch, clock_name, observed
from harness.models.model import DTYPES
from harness.records.record import Reading
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
FEWEST_SECONDS = 0.1  # seconds of samples that each distinct site gets at least, however many of them share the budget


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
        check_batch(self.name, self.batch)

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """One reading; its details hold every distinct site with its raw samples."""
        batch = trial.case.batch if self.batch is None else self.batch
        protocol = (
            f"{self.name}/v1: all mixers of one denoiser call by themselves, batch {batch}, forward, random weights, "
            f"eager, warm, sum over the calls of each distinct site's median of {clock_name(trial.case.device)}"
        )
        yield _reading(self, trial, batch, protocol, mean=False, details={})


@dataclass(frozen=True)
class PaperLatency:
    """One mixer, the mean over those of a denoiser call with guidance: Table 2. Fields as in MixersLatency."""

    name: str = "paper_latency"
    seconds: float = 1.5
    least: int = 7
    patience: float = 20.0
    needs: ClassVar[str] = "shapes"
    runs: ClassVar[bool] = True

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """One reading; where Table 2 has the case, its details hold the printed number."""
        protocol = (
            f"{self.name}/v1: one mixer by itself as in Table 2 of arXiv 2504.21292, batch {GUIDANCE_BATCH}, "
            f"forward, random weights, eager, warm, mean over the mixers of medians of {clock_name(trial.case.device)}"
        )
        yield _reading(self, trial, GUIDANCE_BATCH, protocol, mean=True, details=published(trial))


def _reading(
    metric: "MixersLatency | PaperLatency", trial: Trial, batch: int, protocol: str, mean: bool, details: dict[str, Any]
) -> Reading:
    """The sum over all mixers, or their mean; a dash where a site is not timed."""
    name = metric.name
    try:
        sites = timed_sites(trial, batch, metric.seconds, metric.least, metric.patience)
    except NotTimed as error:
        return Reading(name, name, None, "ms", "lower", protocol, reason=str(error), details=details, heals=error.heals)
    share = 1 / sum(site["calls"] for site in sites) if mean else 1.0
    return summed(name, protocol, sites, share, details)


def published(trial: Trial) -> dict[str, Any]:
    """What Table 2 prints for a case, and for which dtype; nothing for what it has not."""
    case = trial.case
    square = case.resolution.width if case.resolution.width == case.resolution.height else 0
    value = TABLE_2.get((case.variant, square)) if case.model == "pixart" else None
    return {"published": {"ms": value, "dtype": "fp16", "device": "unknown"}} if value is not None else {}


def timed_sites(trial: Trial, batch: int, seconds: float, least: int, patience: float) -> list[dict[str, Any]]:
    """Each distinct site, timed; NotTimed for the first that is too slow or breaches its definition."""
    found = distinct_sites(trial)
    case = trial.case
    for distinct in found:
        if reason := too_slow(batch * distinct.flops, patience, case.device, DTYPES[case.dtype]):
            raise NotTimed(f"{distinct.site.path}: {reason}")
    share = max(FEWEST_SECONDS, seconds / len(found))
    return [_timed(distinct, trial, batch, share, least) for distinct in found]


def _timed(distinct: DistinctSite, trial: Trial, batch: int, seconds: float, least: int) -> dict[str, Any]:
    mixer, tokens_BNC = mixer_at(distinct, trial), tokens_at(distinct, trial, batch)
    if reason := breach(mixer, distinct.site, tokens_BNC):
        raise NotTimed(reason, heals=True)
    with torch.no_grad():
        timing, details = observed(lambda: mixer(tokens_BNC, distinct.grid), seconds, least, trial.case.device)
    low, high = timing.interval_ms()
    taken = {"median": timing.median_ms, "low": low, "high": high, "samples": list(timing.samples_ms)}
    return distinct.shape | {"calls": distinct.calls} | taken | details


def summed(
    name: str, protocol: str, sites: list[dict[str, Any]], share: float = 1.0, details: dict[str, Any] | None = None
) -> Reading:
    """The time of all calls together, times `share`. Sites vary independently, so half-widths add in squares."""
    value = share * math.fsum(site["calls"] * site["median"] for site in sites)
    known = all(site["low"] is not None for site in sites)
    noisy = [site["noisy"] for site in sites if site["noisy"]]
    told = f"{len(noisy)} of {len(sites)} sites were disturbed, the first: {noisy[0]}" if noisy else ""
    n = min(len(site["samples"]) for site in sites)
    low = high = None
    if known:
        below, above = (
            share * math.hypot(*(site["calls"] * (site[end] - site["median"]) for site in sites))
            for end in ("low", "high")
        )
        low, high = value - below, value + above
    details = {"noisy": told, **(details or {}), "sites": sites}
    return Reading(name, name, value, "ms", "lower", protocol, n, low, high, details=details)
