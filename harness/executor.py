"""Executors: who runs the jobs. A job is a picklable value and `run_case` a plain function, so that the same sweep can
run on an existing engine (SLURM through submitit, Ray) by a class with this one method.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from harness.job import Job, run_case
from harness.models.model import Model
from harness.records.record import Record


class Executor(Protocol):
    """Runs each job and gives the records back as they come. It asks for a job when it can begin it."""

    def map(self, jobs: Iterable[Job]) -> Iterator[Record]: ...


class InProcess:
    """One after the other, in this process: a model stays loaded until a case wants another."""

    def map(self, jobs: Iterable[Job]) -> Iterator[Record]:
        """Lazily, so that a record is kept before the next case begins."""
        loaded: Model | None = None
        for job in jobs:
            if loaded is not None and loaded is not job.model:
                loaded.unload()
            loaded = job.model
            yield run_case(job)
