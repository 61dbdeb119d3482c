"""The order in which several workers get jobs: a model is loaded as seldom as possible, and nothing timed is disturbed.

Jobs that time nothing go first, side by side; those that do follow one by one, while all other workers stand still.
"""

from collections import deque
from collections.abc import Collection, Iterable

from harness.job import Job, timed

Loaded = tuple[str, str, str]
"""What a worker keeps loaded: model, its configuration, number format."""


def loaded_by(job: Job) -> Loaded:
    """What a worker that ran it keeps."""
    return job.case.model, job.case.config, job.case.dtype


class Deal:
    """Jobs that wait, in their order, by what they load."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._shared: dict[Loaded, deque[Job]] = {}
        self._alone: dict[Loaded, deque[Job]] = {}
        for job in jobs:
            pile = self._alone if timed(job) else self._shared
            pile.setdefault(loaded_by(job), deque()).append(job)

    def __bool__(self) -> bool:
        return bool(self._shared or self._alone)

    def back(self, job: Job) -> None:
        """Put a job back, to be the first of its kind."""
        pile = self._alone if timed(job) else self._shared
        pile.setdefault(loaded_by(job), deque()).appendleft(job)

    def next(self, own: Loaded | None, others: Collection[Loaded | None], busy: bool) -> Job | None:
        """A job for a worker, by what it and the others have loaded; None where it has to wait. busy: whether any
        works.

        It stays with its model, or takes one that nobody has loaded, or helps where most is left.
        """
        pile = self._shared or ({} if busy else self._alone)
        if not pile:
            return None
        unshared = next((key for key in pile if key not in others), None)
        key = own if own in pile else unshared or max(pile, key=lambda key: len(pile[key]))
        assert key is not None
        job = pile[key].popleft()
        if not pile[key]:
            del pile[key]
        return job
