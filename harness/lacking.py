"""What of a job has to be taken, beside what the store keeps of its case."""

from harness.job import Job, ReadsImages
from harness.records.record import Record
from harness.records.store import missing


def lacking(job: Job, kept: Record | None, timeout_s: float | None) -> Job:
    """The job for the metrics that have no number yet, and, where more images are to be kept, those that had looked at
    them. timeout_s: how long a case may take now.
    """
    names = set(missing(job.case, kept, job.identities, timeout_s))
    if kept is not None and job.keeping.lacks(job.case.key, job.case.n):
        looked = {reading.metric for reading in kept.readings if reading.value is not None}
        names |= {name for name in looked.intersection(job.metrics) if isinstance(job.metrics[name], ReadsImages)}
    return job.taking(tuple(name for name in job.case.metrics if name in names))
