"""Worker processes: the numbers of one process, and a worker that dies or hangs costs its own case alone.

Starting a worker imports torch and diffusers, so few tests do.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import tiny_pipelines
from slow_and_deadly import Counts, Notes, Untimed
from test_run import Brightness, World, streams

from baselines import SelfAttention
from harness import workers
from harness.experiment import Catalog, Experiment
from harness.lacking import lacking
from harness.records.case import BadInput
from harness.records.store import Store
from harness.run import run
from harness.workers import Workers

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def made(tmp_path):
    """An experiment on a tiny pipeline; keyword arguments change its settings."""
    model = tiny_pipelines.model("sd", tmp_path / "sd")

    def make(metrics, **settings):
        catalog = Catalog(
            {"tiny": model}, {"self_attention": partial(SelfAttention.for_site)}, metrics, {"noise": World()}
        )
        chosen = {"models": ["tiny"], "variants": ["self_attention"], "resolutions": [32, 64, 96], "world": "noise"}
        return Experiment(catalog, **(chosen | {"metrics": list(metrics), "out": tmp_path / "out", "n": 3} | settings))

    return make


def records(folder):
    return {str(record.case.resolution): record for record in Store(folder).records()}


def test_a_worker_that_is_killed_costs_its_case_alone_and_the_others_have_the_numbers_of_one_process(made, tmp_path):
    settings = {"steps": 2, "batch": 2}
    metrics = {"counts": Counts(), "brightness": Brightness()}
    assert run(made(metrics, **settings, out=tmp_path / "one"), streams()[0]) == 0
    metrics |= {"untimed": Untimed(str(tmp_path / "notes"), "SIGKILL")}
    assert run(made(metrics, **settings, executor=Workers(2)), streams()[0]) == 1
    small, broken, large = (records(tmp_path / "out")[size] for size in ("32", "64", "96"))
    assert (small.status, broken.status, large.status) == ("ok", "failed", "ok")
    assert broken.reason == "its worker was killed by SIGKILL"
    assert [(reading.name, reading.value) for reading in broken.readings] == [("counts", 64)]
    for size, record in (("32", small), ("96", large)):
        alone = records(tmp_path / "one")[size]
        assert record.reading("brightness").value == alone.reading("brightness").value
        assert record.identities.items() >= alone.identities.items()


def test_a_case_that_takes_too_long_is_stopped_and_the_next_is_taken(made, tmp_path, monkeypatch):
    notes = tmp_path / "notes"

    def clock() -> float:
        """Stands still until the case that hangs has begun, so that a slow machine fails no other."""
        return 100.0 if notes.exists() and "begin 64" in notes.read_text() else 0.0

    monkeypatch.setattr(workers, "monotonic", clock)
    metrics = {"counts": Counts(), "untimed": Untimed(str(notes), "hang")}
    assert run(made(metrics, executor=Workers(timeout_s=2)), streams()[0]) == 0
    small, slow, large = (records(tmp_path / "out")[size] for size in ("32", "64", "96"))
    assert (small.status, slow.status, large.status) == ("ok", "timeout", "ok")
    assert slow.reason == "it took longer than timeout_s=2"
    assert slow.readings[0].value == 64
    again, longer = (lacking(made(metrics).jobs()[1], slow, limit).case.metrics for limit in (2.0, 20))
    assert (again, longer) == ((), ("untimed",))


def test_what_is_timed_is_alone_and_a_kill_for_memory_spares_the_larger_sizes(made, tmp_path, monkeypatch):
    kills = iter(range(100))
    monkeypatch.setattr(workers, "_oom_kills", lambda: next(kills))
    notes = tmp_path / "notes"
    metrics = {"counts": Counts(), "notes": Notes(str(notes), "SIGKILL")}
    settings = {"resolutions": [16, 32, 64, 96], "executor": Workers(2)}
    assert run(made(metrics, **settings), streams()[0]) == 0
    assert notes.read_text().split("\n")[:5] == ["begin 16", "end 16", "begin 32", "end 32", "begin 64"]
    full, spared = (records(tmp_path / "out")[size] for size in ("64", "96"))
    assert full.status == spared.status == "out_of_memory"
    assert full.reason == "its worker was killed by the system, which was out of memory"
    assert spared.reason == "not tried: 64 was too large for memory already"
    assert [record.readings[0].value for record in (full, spared)] == [64, 96]


HIRES = """
if __name__ == "__main__":
    from harness.workers import _hired
    worker = _hired(None)
    worker.pipe.recv()
    print(worker.process.pid, flush=True)
    worker.pipe.recv()
"""


def test_a_worker_that_waits_clears_up_behind_itself_before_it_ends():
    crew = workers._Crew([None], timeout_s=None)
    (worker,) = crew.workers
    assert worker.pipe.recv() is None  # it has started
    worker.ready = True
    crew.dismiss()
    assert worker.process.exitcode == 0


def test_a_worker_does_not_outlive_who_hired_it(tmp_path):
    (tmp_path / "hires.py").write_text(HIRES)
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    command = [sys.executable, str(tmp_path / "hires.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    worker.wait(timeout=60)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(-11, "its worker was killed by SIGSEGV"), (3, "its worker ended with exit status 3")],
)
def test_how_a_worker_ended_is_said(code, reason):
    ended = SimpleNamespace(process=SimpleNamespace(join=lambda: None, exitcode=code), killed_before=0)
    assert workers._death(ended) == ("failed", reason)


def test_one_worker_is_this_process_and_several_are_others(made, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_Crew", lambda *arguments: pytest.fail("started a process"))
    assert run(made({"counts": Counts()}, executor=Workers()), streams()[0]) == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"workers": 0}, r"executor.workers=0 runs nothing: give a whole number of at least 1"),
        ({"workers": True}, r"executor.workers=True runs nothing"),
        ({"timeout_s": 0}, r"executor.timeout_s=0 stops everything: give seconds above 0, or null"),
        ({"devices": ["cuda:0", "cuda:0"]}, r"executor.devices=\[cuda:0,cuda:0\] lists cuda:0 twice"),
        ({"devices": ["cuda:0", "0"]}, r"executor.devices=\[cuda:0,0\] lists cuda:0 twice"),
        ({"devices": ["gpu1"]}, r"executor.devices=\[gpu1\] names gpu1, which is no GPU: write cuda:0"),
        ({"devices": ["cuda:0", "cuda:1"], "workers": 3}, r"are 2 and executor.workers=3: leave out one of both"),
    ],
)
def test_workers_that_cannot_be_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(BadInput, match=sentence):
        Workers(**settings)


def test_devices_of_a_run_on_the_cpu_are_refused(made):
    executor = Workers(devices=["cuda:0", "cuda:1"])
    with pytest.raises(BadInput, match=r"executor.devices with device=cpu: give device=cuda"):
        run(made({"counts": Counts()}, executor=executor), streams()[0])


def test_a_gpu_that_there_is_not_is_refused(monkeypatch):
    monkeypatch.setattr(workers.torch.cuda, "device_count", lambda: 1)
    jobs = [SimpleNamespace(case=SimpleNamespace(device="cuda"))]
    with pytest.raises(BadInput, match=r"executor.devices names cuda:1, and there are 1 GPUs here"):
        next(Workers(devices=["cuda:0", "cuda:1"]).map(jobs, lambda job: job))


def test_a_case_may_be_given_longer_than_the_system_waits_at_a_time(monkeypatch):
    crew = object.__new__(workers._Crew)
    crew.timeout_s, crew.workers = 1e12, [workers._Worker(None, None, None, job=object())]
    monkeypatch.setattr(workers, "LONGEST_WAIT_S", 5.0)
    waited = []
    monkeypatch.setattr(workers.connection, "wait", lambda pipes, wait_s: waited.append(wait_s) or [])
    assert crew._heard() == []
    assert waited == [5.0]


def test_more_workers_than_cores_or_for_one_gpu_are_said_and_not_forbidden(monkeypatch):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert list(workers._warnings(2, "cpu", False)) == []
    assert list(workers._warnings(3, "cpu", False)) == ["3 workers share 2 cores: they slow each other down"]
    (said,) = workers._warnings(2, "cuda", False)
    assert said.startswith("2 workers share one GPU and its memory")


@pytest.mark.parametrize(
    ("before", "device", "seen"), [(None, "cuda:1", "1"), ("4,6", "cuda:1", "6"), ("4", None, "4")]
)
def test_a_worker_sees_its_own_gpu_alone(monkeypatch, before, device, seen):
    name = "CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv(name, before)
    with workers._seeing(device):
        assert workers.os.environ.get(name) == seen
    assert workers.os.environ.get(name) == before


@pytest.mark.parametrize(
    ("content", "count"),
    [("oom 3\noom_kill 2\n", 2), ("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7), ("low 0\n", 0)],
)
def test_kills_for_memory_are_read_where_the_system_counts_them(tmp_path, monkeypatch, content, count):
    (tmp_path / "events").write_text(content)
    monkeypatch.setattr(workers, "OOM_COUNTERS", (str(tmp_path / "none"), str(tmp_path / "events")))
    assert workers._oom_kills() == count
