"""Executors: who runs the cases. A case is a picklable value and the job a plain function, so that the same sweep can
run on an existing engine (SLURM through submitit, Ray) by a class with this one method.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from harness.records.case import Case
from harness.records.record import Record

Job = Callable[[Case], Record]


class Executor(Protocol):
    """Runs the job on each case and gives the records back as they come."""

    def map(self, job: Job, cases: Iterable[Case]) -> Iterator[Record]: ...


class InProcess:
    """One after the other, in this process: the models stay loaded from case to case."""

    def map(self, job: Job, cases: Iterable[Case]) -> Iterator[Record]:
        """Lazily, so that a record is kept before the next case begins."""
        return map(job, cases)
