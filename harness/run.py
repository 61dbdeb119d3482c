"""Runs an experiment: measures what the store lacks, mirrors it, judges it, renders it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import reports
from harness.check import check, check_trainings
from harness.console import Console, varied
from harness.distillation.training import Diverged
from harness.experiment import Experiment
from harness.forecast import Forecast, forecasts, forecasts_of_training
from harness.job import Job
from harness.records.case import BadInput, Case
from harness.records.machine import describe, differences, room
from harness.records.record import Record
from harness.records.store import Store
from harness.records.units import duration, human
from harness.regression.verdict import exit_status
from harness.seats.mixer import Unavailable
from harness.time_left import Pace

FAILED = 1


def run(experiment: Experiment, console: Console) -> int:
    """Take every case that is not done, then track, gate and report; returns the exit status."""
    if not experiment.metrics:
        return _teach(experiment, console)
    jobs = experiment.jobs()
    if experiment.dry_run:
        return _forecast(experiment, forecasts(experiment, jobs, console.notice), console)
    device = torch.device(experiment.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # clocks and memory counters follow the current one
    store = Store(experiment.out, console.notice)
    todo, kept = [], []
    for job in jobs:
        earlier = store.get(job.case)
        lacking = experiment.lacking(job, earlier)
        if earlier is None or lacking.case.metrics:
            todo.append(lacking)
        else:
            kept.append(earlier)
    experiment.gate.check([job.case for job in jobs])
    check(todo, console.notice)
    asked = {job.case.key for job in jobs}
    todo = quick_first(todo)
    pace = Pace(todo, getattr(experiment.executor, "side_by_side", 1))
    console.start(len(jobs), experiment.metrics, varied([job.case for job in jobs]), pace)
    try:
        for record in kept:
            console.skipped(record)
        taken = _take(experiment, todo, store, console, pace)
    except (BadInput, KeyboardInterrupt):
        with suppress(reports.BadStore):  # nothing to show yet
            reports.render(store.folder, asked)
        raise
    finally:
        console.stop()
    return _close(experiment, kept, taken, store, console)


def quick_first(jobs: Sequence[Job]) -> list[Job]:
    """Models whose metrics are all counted come first, to show something within seconds; else the order stays."""
    slow = {job.case.model for job in jobs if len(job.counted) < len(job.case.metrics)}
    return sorted(jobs, key=lambda job: job.case.model in slow)


def _teach(experiment: Experiment, console: Console) -> int:
    """Train students and measure nothing."""
    rows = [row for row in experiment.rows if not row.student.exact and row.student.published is None]
    if experiment.dry_run:
        return _forecast(experiment, forecasts_of_training(experiment, rows, console.notice), console)
    check_trainings(rows, experiment.untrained)
    if not rows:
        console.notice("nothing here has anything to learn: the teacher's own attention and published weights stay")
    kept, failed, audience = {}, 0, experiment.tracker.trainings(Path(experiment.out))
    for row in rows:
        assert row.recipe is not None
        try:
            path = row.recipe.run(row.student, row.model, row.factory, row.world, experiment.device, audience)
            kept[f"{row.model.name} {row.name}"] = path.as_posix()
        except (Diverged, Unavailable) as error:
            console.notice(str(error))
            failed += 1
    console.finish({"name": experiment.name, "students": kept, "failed": failed})
    return FAILED if failed else 0


def _take(experiment: Experiment, todo: Sequence[Job], store: Store, console: Console, pace: Pace) -> list[Record]:
    """Measure, storing each record before the next case begins. Returns what this run took, without earlier numbers."""
    full: dict[tuple[str, str], Case] = {}
    taken = []
    for record in experiment.executor.map(todo, partial(_begun, full, console, pace)):
        if record.status == "out_of_memory":
            full.setdefault((record.case.model, record.case.variant), record.case)
        pace.took(record.case.key, record.elapsed_s)
        console.row(store.put(record))
        taken.append(record)
    return taken


def _begun(full: dict[tuple[str, str], Case], console: Console, pace: Pace, job: Job) -> Job:
    """The job whose turn has come; only its counted metrics, where a case that asks for no more has filled memory."""
    console.working(str(job.case))
    if job.trains:
        said = f"{job.case.variant} of {job.case.model} is distilled first, about {duration(pace.training_s(job))}"
        console.notice(f"{said}: train.on_demand=false leaves out what needs it")
    smaller = full.get((job.case.model, job.case.variant))
    if job.ended is not None or smaller is None or not _is_larger(job.case, smaller):
        return job
    return replace(job, ended=("out_of_memory", f"not tried: {smaller.resolution} was too large for memory already"))


def _is_larger(case: Case, other: Case) -> bool:
    """Whether a case needs at least as much memory as the other: no side, batch or list of metrics is smaller."""
    sides = case.resolution.width >= other.resolution.width and case.resolution.height >= other.resolution.height
    return sides and case.batch >= other.batch and case.dtype == other.dtype and set(case.metrics) >= set(other.metrics)


def _elsewhere(kept: list[Record], device: str) -> str:
    """A sentence on kept numbers of other source, machines or versions; empty if there are none."""
    here = describe(device)
    found = [{said for r in record.readings for said in differences(r.origin, here)} for record in kept]
    if not any(found):
        return ""
    words, count = ", ".join(sorted(set.union(*found))), sum(map(bool, found))
    return f"{count} of {len(kept)} kept cases hold numbers from elsewhere ({words}): again=true takes them anew"


def _close(experiment: Experiment, kept: list[Record], taken: list[Record], store: Store, console: Console) -> int:
    """Judge, report and track what was taken, and print the last line; the exit status."""
    if said := _elsewhere(kept, experiment.device):
        console.notice(said)
    records = kept + taken
    verdicts = experiment.gate(records)
    console.verdicts(verdicts)
    try:
        page = reports.render(store.folder, {record.case.key for record in records})
    except reports.BadStore as error:
        raise BadInput(str(error)) from error
    everything = store.records()
    if others := len(everything) - len(records):
        console.notice(f"{store.folder.name!r} holds {others} more records of earlier runs: the report shows them last")
    if warning := experiment.tracker.track(everything, store.folder, page):
        console.notice(warning)
    elif link := experiment.tracker.link(store.folder):
        console.notice(f"runs in MLflow: {link}")
        reports.add_link(store.folder, link)
    outcomes = [verdict.outcome for verdict in verdicts]
    statuses = [record.status for record in records]
    console.finish(
        {
            "name": experiment.name,
            "report": page.as_posix(),
            "records": len(records),
            "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
            "gate": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        }
    )
    return FAILED if "failed" in statuses else exit_status(verdicts)


def _forecast(experiment: Experiment, found: list[Forecast], console: Console) -> int:
    """Say what would be taken, and its predicted time and memory; measure nothing and write nothing."""
    console.forecasts(found)
    memory = max((one.memory for one in found if one.memory is not None), default=None)
    most = room(describe(experiment.device))
    if memory is not None and most is not None and memory > most:
        console.notice(f"predicted: {human(memory, 'byte')} at most, and {experiment.device} has {human(most, 'byte')}")
    console.finish(
        {
            "dry_run": True,
            "cases": len(found),
            "kept": sum(not one.case.metrics for one in found),
            "unknown": sum(one.seconds is None for one in found),
            "predicted_s": round(sum(one.seconds or 0.0 for one in found), 1),
            "predicted_memory": memory,
        }
    )
    return 0
