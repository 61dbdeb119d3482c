"""One student is trained once: who comes second waits, and says for what."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.distillation.processes import count
from harness.distillation.student import Student
from harness.records.case import BadInput
from harness.records.files import locked


@contextmanager
def alone(student: Student) -> Iterator[None]:
    """While open, no other run trains this student. Processes of one training pass together.

    BadInput where the cache cannot be written.
    """
    with ExitStack() as stack:
        if count() == 1:
            waiting = f"another run trains {student.variant} of {student.model}: waiting for it"
            try:
                student.cached.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(student.cached.with_suffix(".lock"), waiting))
            except OSError as error:
                raise BadInput(
                    f"students are kept in {student.cached.parent}, which cannot be written "
                    f"({error.strerror or error}): set DELTABENCH_CACHE to a folder that can, or train.on_demand=false "
                    "to train none"
                ) from error
        yield


def announce(student: Student, budget: str) -> None:
    """What will be trained, how long, and where it is kept; the way to do without."""
    say(
        f"no student of {student.variant} on {student.model} is here: training one for {budget}, to be kept as "
        f"{student.cached} (train.on_demand=false does without)"
    )


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)
