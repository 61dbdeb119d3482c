"""One student is trained once: who comes second waits, and says for what."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from harness.distillation.processes import count
from harness.distillation.student import Student
from harness.records.case import BadInput

SHORT_S = 0.1
"""Seconds after which a run that finds the lock taken says so, and waits on."""


@contextmanager
def alone(student: Student) -> Iterator[None]:
    """While open, no other run trains this student. Processes of one training pass together.

    BadInput where the cache cannot be written.
    """
    if count() > 1:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(student.cached.with_suffix(".lock"))
    try:
        student.cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=SHORT_S)
        except Timeout:
            say(f"another run trains {student.variant} of {student.model}: waiting for it")
            lock.acquire()
    except OSError as error:
        raise BadInput(
            f"students are kept in {student.cached.parent}, which cannot be written ({error.strerror or error}): set "
            "DELTABENCH_CACHE to a folder that can, or train.on_demand=false to train none"
        ) from error
    try:
        yield
    finally:
        lock.release()


def announce(student: Student, budget: str) -> None:
    """What will be trained, how long, and where it is kept; the way to do without."""
    say(
        f"no student of {student.variant} on {student.model} is here: training one for {budget}, to be kept as "
        f"{student.cached} (train.on_demand=false does without)"
    )


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)
