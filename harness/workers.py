"""Workers: processes that run jobs side by side, each on a device of its own and with its model kept loaded.

A worker that dies or takes too long costs nothing but its case: it is replaced, the next one takes the metrics of the
case that are counted, and the record says what happened. All compute with as many threads as this process, so that
their numbers are its numbers; what is timed is timed while all other workers stand still.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread
from time import monotonic

import torch

from harness.executor import InProcess, KeepsLoaded
from harness.job import Ended, Job, lost, timed
from harness.job_queue import Deal, Loaded, loaded_by
from harness.records.case import BadInput, is_whole
from harness.records.machine import usable_cores
from harness.records.record import Record, too_long
from harness.records.store import to_stderr

SPAWN = get_context("spawn")
FAREWELL_S = 10.0
"""How long a worker may take to clear up behind itself."""
LONGEST_WAIT_S = 86400.0
"""The system waits for no longer than a few weeks at a time."""
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat")
"""Where Linux counts the processes that it killed for memory: those of this container, else of the machine."""


@dataclass(frozen=True)
class Workers:
    """Runs jobs in `workers` processes; one, by default, is this process.

    devices: a GPU for each worker, such as [cuda:0,cuda:1]. timeout_s: how long a case may take, student and all, which
    makes even a single worker a process of its own.
    """

    workers: int = 1
    devices: Sequence[str] | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Raise BadInput for what starts no worker."""
        if not is_whole(self.workers, 1):
            raise BadInput(f"executor.workers={self.workers} runs nothing: give a whole number of at least 1")
        if self.timeout_s is not None and not (isinstance(self.timeout_s, int | float) and self.timeout_s > 0):
            raise BadInput(f"executor.timeout_s={self.timeout_s} stops everything: give seconds above 0, or null")
        self._check_devices()

    def _check_devices(self) -> None:
        given = list(self.devices or [])
        said = f"executor.devices=[{','.join(map(str, given))}]"
        wrong = next((name for name in given if not str(name).removeprefix("cuda:").isdecimal()), None)
        if wrong is not None:
            raise BadInput(f"{said} names {wrong}, which is no GPU: write cuda:0, cuda:1 and so on")
        numbers = [_number(name) for name in given]
        twice = next((number for number in numbers if numbers.count(number) > 1), None)
        if twice is not None:
            raise BadInput(f"{said} lists cuda:{twice} twice: give each worker a device of its own")
        if given and self.workers not in (1, len(given)):
            raise BadInput(f"{said} are {len(given)} and executor.workers={self.workers}: leave out one of both")

    @property
    def side_by_side(self) -> int:
        """How many cases run at once where nothing is timed."""
        return len(self.devices) if self.devices else self.workers

    def map(self, jobs: Sequence[Job], begin: Callable[[Job], Job]) -> Iterator[Record]:
        """The record of each job as it comes; `begin` has a last word on each when its turn comes."""
        if self.workers == 1 and not self.devices and self.timeout_s is None:
            yield from InProcess().map(jobs, begin)
            return
        devices: list[str | None] = [*self.devices] if self.devices else [None] * min(self.workers, max(1, len(jobs)))
        wrong = next((job.case.device for job in jobs if self.devices and job.case.device != "cuda"), None)
        if wrong is not None:
            raise BadInput(f"executor.devices with device={wrong}: give device=cuda, each worker then sees its own GPU")
        if lacking := [name for name in self.devices or [] if _number(name) >= torch.cuda.device_count()]:
            raise BadInput(f"executor.devices names {lacking[0]}, and there are {torch.cuda.device_count()} GPUs here")
        for warning in _warnings(len(devices), jobs[0].case.device if jobs else "cpu", bool(self.devices)):
            to_stderr(warning)
        crew = _Crew(devices, self.timeout_s)
        try:
            yield from crew.run(Deal(jobs), begin)
        finally:
            crew.dismiss()


def _number(device: str) -> int:
    return int(device.removeprefix("cuda:"))


def _warnings(workers: int, device: str, have_own: bool) -> Iterator[str]:
    if workers > (cores := usable_cores()):
        yield f"{workers} workers share {cores} cores: they slow each other down"
    if workers > 1 and device.startswith("cuda") and not have_own:
        yield f"{workers} workers share one GPU and its memory: executor.devices=[cuda:0,...] gives each its own"


@dataclass
class _Worker:
    """A process, and the job that it works on. ready: it has started, and waits or works."""

    process: SpawnProcess
    pipe: connection.Connection
    device: str | None
    ready: bool = False
    job: Job | None = None
    loaded: Loaded | None = None
    begun: float = 0.0
    killed_before: int = 0


class _Crew:
    """The workers of one run."""

    def __init__(self, devices: Sequence[str | None], timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self.workers = [_hired(device) for device in devices]

    def run(self, deal: Deal, begin: Callable[[Job], Job]) -> Iterator[Record]:
        """Until no job waits and none is worked on."""
        while deal or any(worker.job for worker in self.workers):
            self._give(deal, begin)
            for worker in self._heard():
                try:
                    record = worker.pipe.recv()
                except (EOFError, OSError):
                    yield from self._replace(worker, deal, _death(worker))
                    continue
                worker.ready = True
                if record is not None:
                    worker.job = None
                    yield record
            for worker in self._late():
                worker.process.kill()
                yield from self._replace(worker, deal, ("timeout", too_long(self.timeout_s or 0)))

    def dismiss(self) -> None:
        """End all processes: who waits for work sees that there is none and clears up, the others are killed."""
        for worker in self.workers:
            worker.pipe.close()
        for worker in self.workers:
            if worker.ready and worker.job is None:
                worker.process.join(FAREWELL_S)
            worker.process.kill()
            worker.process.join()

    def _give(self, deal: Deal, begin: Callable[[Job], Job]) -> None:
        """A job to each worker that waits, if there is one that it may begin now."""
        for worker in self.workers:
            working = [other.job for other in self.workers if other.job is not None]
            if worker.job is not None or not worker.ready or any(map(timed, working)):
                continue
            others = [other.loaded for other in self.workers if other is not worker]
            job = deal.next(worker.loaded, others, busy=bool(working))
            if job is None:
                continue
            job = begin(job)
            worker.job, worker.loaded = job, loaded_by(job)
            worker.begun, worker.killed_before = monotonic(), _oom_kills()
            worker.pipe.send(job)

    def _heard(self) -> list[_Worker]:
        """Those that have something to say or have died; nobody, once a case is over its time."""
        ends = [worker.begun + self.timeout_s for worker in self.workers if worker.job and self.timeout_s is not None]
        wait_s = min(LONGEST_WAIT_S, max(0.0, min(ends) - monotonic())) if ends else None
        heard = connection.wait([worker.pipe for worker in self.workers], wait_s)
        return [worker for worker in self.workers if worker.pipe in heard]

    def _late(self) -> list[_Worker]:
        now = monotonic()
        limit = self.timeout_s
        return [each for each in self.workers if limit is not None and each.job and now - each.begun > limit]

    def _replace(self, worker: _Worker, deal: Deal, ended: Ended) -> Iterator[Record]:
        """Hire another. The case goes back for its counted metrics; if these were what broke, it is lost."""
        worker.process.join()
        if not worker.ready:
            raise BadInput(f"a worker {ended[1]} before it could begin: run with executor.workers=1 to see why")
        self.workers[self.workers.index(worker)] = _hired(worker.device)
        if worker.job is not None and worker.job.ended is None:
            deal.back(replace(worker.job, ended=ended))
        elif worker.job is not None:
            yield lost(worker.job)


def _hired(device: str | None) -> _Worker:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(theirs, torch.get_num_threads()), daemon=True)
    with _seeing(device):
        process.start()
    theirs.close()
    return _Worker(process, ours, device)


@contextmanager
def _seeing(device: str | None) -> Iterator[None]:
    """While open, a process that starts sees one GPU alone, by the number that it has here."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if device is not None:
        index = _number(device)
        seen = [one for one in (before or "").split(",") if one]
        os.environ[name] = seen[index] if index < len(seen) else str(index)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        os.environ.update({name: before} if before is not None else {})


def _serve(pipe: connection.Connection, threads: int) -> None:
    """What a worker does: run what it is given until nobody gives any more. Ctrl-C is the business of who hired it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    runner = KeepsLoaded()
    pipe.send(None)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(runner.run(job))


def _end_with_parent() -> None:
    """End with the process that hired this one: nobody waits for the case any more."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _death(worker: _Worker) -> Ended:
    """How a worker that is gone ended: killed for memory, by a signal, or by itself."""
    worker.process.join()
    code = worker.process.exitcode or 0
    if code == -signal.SIGKILL and _oom_kills() > worker.killed_before:
        return "out_of_memory", "its worker was killed by the system, which was out of memory"
    if code < 0:
        return "failed", f"its worker was killed by {signal.Signals(-code).name}"
    return "failed", f"its worker ended with exit status {code}"


def _oom_kills() -> int:
    """How many processes the system has killed for memory so far; 0 where it does not say."""
    for path in map(Path, OOM_COUNTERS):
        try:
            counts = dict(line.split()[:2] for line in path.read_text().splitlines() if len(line.split()) > 1)
        except OSError:
            continue
        if "oom_kill" in counts:
            return int(counts["oom_kill"])
    return 0
