"""Executors: who runs the jobs. A job is a picklable value and `run_case` a plain function, so that the same sweep can
run on an existing engine (SLURM through submitit, Ray) by a class with this one method.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from harness.job import Job, run_case
from harness.models.model import Model
from harness.records.record import Record

Part = TypeVar("Part")


class Executor(Protocol):
    """Runs each job and gives the records back as they come.

    begin: called with each job when its turn comes, returns the job to run: with fewer metrics, where an earlier case
    has shown that memory is too small for all.
    """

    def map(self, jobs: Sequence[Job], begin: Callable[[Job], Job]) -> Iterator[Record]: ...


class InProcess:
    """One after the other, in this process: a model stays loaded until a case wants another."""

    def map(self, jobs: Sequence[Job], begin: Callable[[Job], Job]) -> Iterator[Record]:
        """Lazily, so that a record is kept before the next case begins."""
        loaded: Model | None = None
        for job in jobs:
            if loaded is not None and loaded is not job.model:
                loaded.unload()
            loaded = job.model
            yield run_case(begin(job))


class KeepsLoaded:
    """Runs jobs that come by pickle, each with parts of its own: parts that are alike are taken for one, and stay."""

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}
        self._loaded: Model | None = None

    def run(self, job: Job) -> Record:
        """Its record; a model stays loaded until a case wants another."""
        metrics = {name: self._same(metric) for name, metric in job.metrics.items()}
        job = replace(job, model=self._same(job.model), world=self._same(job.world), metrics=metrics)
        if self._loaded is not None and self._loaded is not job.model:
            self._loaded.unload()
        self._loaded = job.model
        return run_case(job)

    def _same(self, part: Part) -> Part:
        """What came first of all that is pickled alike."""
        same: Part = self._known.setdefault(pickle.dumps(part), part)
        return same
