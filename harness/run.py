"""Runs an experiment: measures what the store lacks, mirrors it, judges it, renders it."""

import json
import sys
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime

import torch

import reports
from harness.console import Console, varied
from harness.experiment import Experiment, runs
from harness.forecast import forecasts
from harness.models.weights import RANDOM
from harness.records.case import BadInput, Case
from harness.records.machine import describe, room
from harness.records.record import Reading, Record, SiteAccount, Status
from harness.records.store import PROMPTS, Store, missing
from harness.records.units import human
from harness.regression.gate import exit_status
from harness.seats.mixer import Unavailable
from harness.seats.surgery import Seat
from harness.trial import Trial

FAILED = 1
KEPT_IMAGES = 8
NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


def run(experiment: Experiment, console: Console) -> int:
    """Take every case that is not done, then track, gate and report; returns the exit status."""
    if experiment.dry_run:
        return _forecast(experiment, console)
    device = torch.device(experiment.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # clocks and memory counters follow the current one
    cases = experiment.cases()
    store = Store(experiment.out, console.notice)
    console.start(len(cases), experiment.metrics, varied(cases))
    try:
        _take(experiment, cases, store, console)
    finally:
        console.stop()
    return _close(experiment, cases, store, console)


def run_case(experiment: Experiment, case: Case, store: Store) -> Record:
    """Measure one case and return its record; what goes wrong is in its status and reason.

    What is counted comes first: a device that is too small for the rest loses none of it.
    """
    started, begun = datetime.now(UTC), time.monotonic()
    machine = describe(case.device)
    trial = experiment.trial(case)
    taken, counted = _Taken(), _counted(experiment, case)
    try:
        for name in counted:
            taken.readings.extend(list(experiment.catalog.metrics[name](trial)))
        _train_if_missing(experiment, trial)
        for name in (name for name in case.metrics if name not in counted):
            taken.readings.extend(list(experiment.catalog.metrics[name](trial)))
        taken.images = _keep_images(trial, store)
    except BadInput:
        raise
    except Unavailable as error:
        taken.fail("unavailable", error)
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        taken.fail("out_of_memory" if _is_out_of_memory(error) else "failed", error)
    return Record(
        case=case,
        status=taken.status,
        reason=taken.reason,
        readings=tuple(taken.readings),
        sites=_accounts(trial, taken.readings),
        notes=trial.notes(),
        artifacts=taken.images,
        machine=machine,
        started=started.isoformat(timespec="seconds"),
        elapsed_s=round(time.monotonic() - begun, 3),
    )


class _Taken:
    """What has been taken of a case so far."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.images: dict[str, str] = {}
        self.status: Status = "ok"
        self.reason = ""

    def fail(self, status: Status, error: BaseException) -> None:
        self.status = status
        self.reason = " ".join(str(error).split()) or type(error).__name__
        if status == "failed":
            traceback.print_exception(error, file=sys.stderr)


def _take(experiment: Experiment, cases: list[Case], store: Store, console: Console) -> None:
    """Show what the store has, measure the rest, and keep each record before the next case begins."""
    todo = []
    for case in cases:
        kept = store.get(case)
        lacking = missing(case, kept)
        if kept is not None and not lacking:
            console.skipped(kept)
        else:
            todo.append(replace(case, metrics=lacking))

    full: dict[tuple[str, str], Record] = {}

    def job(case: Case) -> Record:
        console.working(str(case))
        for name in experiment.models:
            if name != case.model:
                experiment.catalog.models[name].unload()
        smaller = full.get((case.model, case.variant))
        if smaller is not None and _is_larger(case, smaller.case):
            return _spared(experiment, case, store, f"{smaller.case.resolution} was too large for memory already")
        record = run_case(experiment, case, store)
        if record.status == "out_of_memory":
            full[case.model, case.variant] = record
        return record

    for record in experiment.executor.map(job, todo):
        console.row(store.put(record))


def _spared(experiment: Experiment, case: Case, store: Store, why: str) -> Record:
    """The record of a case that is too large for memory: what is counted needs none and is taken, no more is."""
    record = run_case(experiment, replace(case, metrics=_counted(experiment, case)), store)
    if record.status == "ok":
        record = replace(record, status="out_of_memory", reason=f"not tried: {why}")
    return replace(record, case=case)


def _counted(experiment: Experiment, case: Case) -> tuple[str, ...]:
    """The metrics of a case that run nothing on its device."""
    return tuple(name for name in case.metrics if not runs(experiment.catalog.metrics[name]))


def _is_larger(case: Case, other: Case) -> bool:
    """Whether it asks for no less of anything, and so needs no less memory."""
    sides = case.resolution.width >= other.resolution.width and case.resolution.height >= other.resolution.height
    return sides and case.batch >= other.batch and case.dtype == other.dtype and set(case.metrics) >= set(other.metrics)


def _train_if_missing(experiment: Experiment, trial: Trial) -> None:
    """Distil the student on demand, where a metric needs it."""
    case = trial.case
    asked = any(experiment.catalog.metrics[name].needs == "weights" for name in case.metrics)
    if (
        not asked
        or trial.trained
        or trial.untrained_allowed
        or trial.model.source == RANDOM
        or experiment.train is None
        or not experiment.train.on_demand
    ):
        return
    student = experiment.student(case.model, case.variant)
    factory = experiment.factory(case.model, case.variant)
    experiment.train.run(student, trial.model, factory, trial.world, case.device)


def _is_out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(words in str(error) for words in NO_MEMORY)


def _keep_images(trial: Trial, store: Store) -> dict[str, str]:
    """Write the first images of the case, one file a prompt; their names in the record."""
    from torchvision.utils import save_image

    if trial.made_images is None:
        return {}
    folder = store.images(trial.case)
    kept = {}
    for index, image in enumerate(trial.made_images[:KEPT_IMAGES]):
        path = folder / f"{index}.png"
        save_image(image, path)
        kept[f"image/{index}"] = path.relative_to(store.folder).as_posix()
    (folder / PROMPTS).write_text(json.dumps(trial.prompts[:KEPT_IMAGES]) + "\n", encoding="utf-8")
    return kept


def _accounts(trial: Trial, readings: list[Reading]) -> tuple[SiteAccount, ...]:
    """The account of each site, where the FLOPs were counted."""
    flops = next((reading for reading in readings if reading.name == "flops_mixers"), None)
    if flops is None:
        return ()
    return tuple(_account(seat, flops) for seat in trial.seats().values())


def _account(seat: Seat, flops: Reading) -> SiteAccount:
    site, mixer = seat.site, seat.mixer
    height, width = flops.details["grids"][site.path]
    parameters = sum(weight.numel() for weight in mixer.parameters())
    price, note = flops.details["sites"][site.path], mixer.note((height, width))
    return SiteAccount(
        site.path, site.channels, site.heads, (height, width), type(mixer).__name__, price, parameters, note
    )


def _close(experiment: Experiment, cases: list[Case], store: Store, console: Console) -> int:
    """Gate, report, tracker, and the last line."""
    records = [record for case in cases if (record := store.get(case)) is not None]
    verdicts = experiment.gate(records) if experiment.gate else []
    console.verdicts(verdicts)
    try:
        page = reports.render(store.folder)
    except reports.BadStore as error:
        raise BadInput(str(error)) from error
    if experiment.tracker and (warning := experiment.tracker.track(store.records(), store.folder, page)):
        console.notice(warning)
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


def _forecast(experiment: Experiment, console: Console) -> int:
    """Say what would be taken, and predict its time and memory; measure nothing and write nothing."""
    found = forecasts(experiment, console.notice)
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
