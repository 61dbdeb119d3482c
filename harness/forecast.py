"""What a run would take, case by case, before any of it is run: predicted, and where from.

Time is that of the case's `work`. A denoiser call takes what the store's latencies say, in proportion to its images, of
the batch nearest to the case's: the one of that size, or the law through three others; else the case's FLOPs over a
rate, the median of those in the store from this machine, or half of what a matrix product reaches now. Memory is that
of the largest denoiser call. FLOPs and memory come from the store, or are counted at the largest sizes and follow their
law at the others. Left out: downloads.
"""

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from harness.experiment import NOT_FETCHED, Experiment
from harness.job import ON_DEVICE, TRAINING, Job
from harness.models.model import DTYPES
from harness.models.sampler import branches
from harness.records.by_key import grouped
from harness.records.case import Case
from harness.records.machine import describe
from harness.records.record import Record
from harness.records.store import Archive, to_stderr
from harness.records.units import human
from harness.row import Row
from harness.work import Works, rows
from reports import laws
from reports.compare import Point, Series, groups, machine_name

SHARE = 0.5
"""Assumed share of a matrix product's rate that a denoiser reaches."""
COUNTED = {"flops": 3, "projected_memory": 2}
"""Sizes that are counted, the others follow by their law: quadratic, and linear, since attention is fused."""


@dataclass(frozen=True)
class Forecast:
    """A case with the metrics that it lacks, predicted seconds and bytes, and their basis; None where nothing tells, or
    where no denoiser call is made.
    """

    case: Case
    seconds: float | None
    memory: int | None
    basis: str


def forecasts(experiment: Experiment, jobs: Sequence[Job], say: Callable[[str], None] = to_stderr) -> list[Forecast]:
    """One for every job, in the order of the run; `say` receives sentences about records that cannot be read."""
    kept = {record.case.key: record for record in Archive(experiment.out, say).records()}
    known = _Known(experiment, jobs, sorted(kept.values(), key=lambda record: record.started))
    return [known.forecast(experiment.lacking(job, kept.get(job.case.key))) for job in jobs]


def forecasts_of_training(
    experiment: Experiment, rows: Sequence[Row], say: Callable[[str], None] = to_stderr
) -> list[Forecast]:
    """One for every student, by the sizes that it is taught at; whether a hub's model has one is not asked there."""
    jobs = {(job.case.model, job.case.variant): job for job in replace(experiment, metrics=["flops"]).jobs()}
    sized = []
    for row in rows:
        assert row.recipe is not None
        job, sizes = jobs[row.model.name, row.name], row.recipe.resolutions(row.model)
        wanted = (TRAINING,) if not row.at_hand or row.recipe.wants(row.student) else ()
        sized.append([replace(job, case=replace(job.case, resolution=size, metrics=wanted)) for size in sizes])
    kept = sorted(Archive(experiment.out, say).records(), key=lambda record: record.started)
    known = _Known(experiment, list(chain.from_iterable(sized)), kept)
    return [known.training(first) for first, *_ in sized]


class _Known:
    """What the store holds, and what was counted for the forecast."""

    def __init__(self, experiment: Experiment, jobs: Sequence[Job], records: Sequence[Record]) -> None:
        self._metrics = experiment.catalog.metrics
        self._works = Works(lambda job: self._call(job)[0])
        self._groups = [g for g in groups(records) if g.name in ("latency", "flops", "projected_memory")]
        self._machine = f"machine {machine_name(describe(experiment.device))}"
        self._alike = grouped((job.case for job in jobs), lambda case: (case.model, case.variant, case.dtype))
        self._counts: dict[Any, tuple[float, float]] = {}

    def forecast(self, job: Job) -> Forecast:
        case = job.case
        if not case.metrics:
            return Forecast(case, 0.0, None, "kept")
        counted = len(job.counted) == len(case.metrics)
        try:
            seconds = sum(self._works.work(job))
            basis = "counted on shapes" if counted else self._call(job)[1] + _training(job)
            return Forecast(case, seconds, self._memory(job), basis)
        except RuntimeError as error:
            return Forecast(case, None, None, f"unknown: {' '.join(str(error).split())}")

    def training(self, job: Job) -> Forecast:
        """Of its student alone."""
        if not job.case.metrics:
            return Forecast(job.case, 0.0, None, "kept")
        try:
            return Forecast(job.case, self._works.training_s(job), None, self._call(job)[1])
        except RuntimeError as error:
            return Forecast(job.case, None, None, f"unknown: {' '.join(str(error).split())}")

    def _call(self, job: Job) -> tuple[float, str]:
        """Seconds of one denoiser call on one image, and what says so."""
        case = job.case
        points = self._points("latency", case, self._here(case))
        by_batch = grouped(points, _batch)
        alike = [by_batch[batch] for batch in sorted(by_batch, key=lambda batch: (abs(batch - case.batch), batch))]
        for same in ([p for p in mine if p.case.resolution == case.resolution] for mine in alike):
            if same:
                return float(same[-1].reading.value or 0) / _batch(same[-1]) / 1e3, "its latency in the store"
        for mine in alike:
            fit = laws.fit(Series(case.variant), mine)
            if fit.law is not None:
                said = f"law of {len(fit.points)} latencies in the store"
                return fit.law.at(case.pixels) / _batch(mine[0]) / 1e3, said
        flops = self._counted("flops", job)[0]
        rate, words = self._rate(case)
        said = f"{human(flops, 'FLOP')} at {human(rate, 'FLOP')} a second ({words})".replace("\u00a0", " ")
        return flops / rate, said

    def _rate(self, case: Case) -> tuple[float, str]:
        """FLOPs a second of a denoiser: of this variant in the store, of any, or assumed."""
        prices = {_place(p): p.reading.value for g in self._groups if g.name == "flops" for p in g.points}
        taken = [p for g in self._groups if g.name == "latency" and self._here(case) <= {*g.settings} for p in g.points]
        rates = [
            (p.case.variant, 1e3 * _batch(p) * prices[_place(p)] / p.reading.value)  # type: ignore[operator]
            for p in taken
            if p.reading.value and prices.get(_place(p))
        ]
        own = [rate for variant, rate in rates if variant == case.variant]
        if rates:
            chosen = own or [rate for _, rate in rates]
            return statistics.median(chosen), f"median of {len(chosen)} in the store"
        from harness.measured.rates import matrix_rate

        return SHARE * matrix_rate(case.device, DTYPES[case.dtype]), "assumed: half the rate of a matrix product now"

    def _memory(self, job: Job) -> int | None:
        """Bytes of the largest denoiser call; None where there is none."""
        case = job.case
        calls = [rows(metric, job) for name in case.metrics if (metric := job.metrics[name]).needs == ON_DEVICE]
        calls += [case.batch * branches(job.model.layout, job.model.part, case.guidance)] if job.judged else []
        if not calls:
            return None
        peak, weights = self._counted("projected_memory", job)
        return round(weights + max(calls) * (peak - weights))

    def _counted(self, name: str, job: Job) -> tuple[float, float]:
        """FLOPs or projected bytes of one call, and the weights' part: from the store, counted, or by its law."""
        case = job.case
        points = self._points(name, case, {f"dtype {case.dtype}"} if name == "projected_memory" else set())
        found = {p.case.pixels: (float(p.reading.value or 0), p.reading.detail("weights") or 0.0) for p in points}
        pixels = case.pixels
        if pixels not in found and len(found) < COUNTED[name]:
            sizes = {case.resolution, *(one.resolution for one in self._alike[case.model, case.variant, case.dtype])}
            for size in sorted(sizes)[-COUNTED[name] :]:
                found[size.pixels] = self._count(name, replace(job, case=replace(case, resolution=size)))
        if pixels in found:
            return found[pixels]
        law = laws.through(list(found), [value for value, _ in found.values()])
        return law.at(pixels), next(iter(found.values()))[1]

    def _count(self, name: str, job: Job) -> tuple[float, float]:
        case = job.case
        key = (name, case.model, case.variant, case.resolution, case.dtype)
        if key not in self._counts:
            reading = next(iter(self._metrics[name](job.trial())))
            self._counts[key] = (float(reading.value or 0), reading.detail("weights") or 0.0)
        return self._counts[key]

    def _points(self, name: str, case: Case, settings: set[str]) -> list[Point]:
        """The store's numbers of that model and mixer, in order of pixels, under those settings."""
        mine = [g for g in self._groups if (g.name, g.model) == (name, case.model) and settings <= {*g.settings}]
        made = (case.variant, case.made)
        points = [p for g in mine for p in g.points if (p.case.variant, p.case.made) == made and p.reading.value]
        return sorted(points, key=lambda p: p.case.pixels)

    def _here(self, case: Case) -> set[str]:
        return {f"dtype {case.dtype}", f"device {case.device}", self._machine}


def _training(job: Job) -> str:
    if job.judged and job.case.weights == NOT_FETCHED:
        return "; its weights are downloaded first"
    return "; its student is distilled first" if job.trains else ""


def _place(point: Point) -> tuple[Any, ...]:
    return (point.case.model, point.case.variant, point.case.made, point.case.resolution)


def _batch(point: Point) -> int:
    """Images of the call that a latency is of, as its protocol says; one where that says nothing."""
    said = re.search(r"\bbatch (\d+)", point.reading.protocol)
    return int(said[1]) if said else 1
