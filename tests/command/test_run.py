"""A run in this process: what goes wrong in a case is in its record, and the sweep goes on."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_pipelines
import torch
from slow_and_deadly import Counts

from baselines import DepthwiseConvolution, LinFusionAttention, SelfAttention
from harness.console import Console
from harness.counted.flops import Flops
from harness.distillation.recipe import Recipe
from harness.distillation.stages import EndToEnd, Layerwise
from harness.distillation.training import Schedule
from harness.experiment import Catalog, Experiment
from harness.features.kept import Reader
from harness.measured.latency import Latency
from harness.models.unet import UNetModel
from harness.records.case import BadInput
from harness.records.record import Reading
from harness.records.store import Store
from harness.run import quick_first, run
from harness.seats.mixer import Unavailable

pytestmark = pytest.mark.usefixtures("cache")


@dataclass(frozen=True)
class Fails:
    """Needs shapes alone, but runs: raises what it is given at sizes of at least 64 pixels."""

    error: Exception
    needs: str = "shapes"
    runs: bool = True

    def __call__(self, trial) -> Iterator[Reading]:
        if trial.case.resolution.width >= 64:
            raise self.error
        yield Reading("fails", "fails", 1, "1", "higher", "fails/v1")


@dataclass(frozen=True)
class Brightness:
    """Needs images, and so a trained variant."""

    needs: str = "weights"

    def readers(self, trial) -> list[Reader]:
        return [Reader("brightness/v1", lambda images: images.mean(dim=(1, 2, 3)))]

    def __call__(self, trial) -> Iterator[Reading]:
        if not (trial.trained or trial.untrained_allowed):
            yield Reading("brightness", "brightness", None, "1", "higher", "brightness/v1", reason="untrained")
            return
        yield Reading(
            "brightness", "brightness", float(trial.rows(*self.readers(trial)).mean()), "1", "higher", "brightness/v1"
        )


class World:
    """Two prompts and pictures of noise."""

    name = "noise"
    pictured = False
    notes = ()

    def prompts(self, n):
        return [f"prompt {i}" for i in range(n)]

    def taught_on(self):
        return "noise"

    def training(self, n, resolution, device, start=0):
        yield torch.rand(n - start, 3, resolution.height, resolution.width), self.prompts(n)[start:]


@pytest.fixture
def made(tmp_path):
    """An experiment on a tiny pipeline of random weights; keyword arguments change its settings."""
    model = tiny_pipelines.model("sd", tmp_path / "sd")
    variants = {
        "self_attention": partial(SelfAttention.for_site),
        "linfusion": partial(LinFusionAttention.for_site, inherit=False),
        "depthwise": partial(DepthwiseConvolution.for_site, kernel_size=3),
    }

    def make(metrics, **settings):
        catalog = Catalog({"tiny": model}, variants, metrics, {"noise": World()})
        chosen = {"models": ["tiny"], "variants": ["self_attention"], "resolutions": [32, 64], "world": "noise"}
        chosen |= {"metrics": list(metrics), "out": tmp_path / "out", "n": 3, "steps": 2, "batch": 2}
        return Experiment(catalog, **(chosen | settings))

    return make


def streams() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(out, io.StringIO()), out


FAILURES = [
    (RuntimeError("the mixer broke"), "failed", 1),
    (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", 0),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", 0),
    (BadInput("this cannot be used"), "failed", 1),
    (TypeError("this is of another type"), "failed", 1),
    (Unavailable("natten is not installed: pip install natten"), "unavailable", 0),
]


@pytest.mark.parametrize(("error", "status", "left_by"), FAILURES, ids=lambda value: str(value)[:20])
def test_a_failure_is_in_the_record_with_its_reason_and_the_sweep_goes_on(made, tmp_path, error, status, left_by):
    console, out = streams()
    assert run(made({"fails": Fails(error)}), console) == left_by
    small, large = Store(tmp_path / "out").records()
    assert (small.status, large.status) == ("ok", status)
    assert large.reason.endswith(str(error))
    assert json.loads(out.getvalue().splitlines()[-1])["statuses"] == {"ok": 1, status: 1}


def test_what_fails_is_told_with_its_traceback_in_a_file_until_it_succeeds(made, tmp_path):
    class Breaks(Counts):
        def __call__(self, trial) -> Iterator[Reading]:
            if broken:
                raise KeyError("no such thing")
            yield from super().__call__(trial)

    broken = True
    assert run(made({"breaks": Breaks(), "counts": Counts()}, resolutions=[64]), streams()[0]) == 1
    (record,) = Store(tmp_path / "out").records()
    assert (record.status, record.reason) == ("failed", "KeyError 'no such thing'")
    assert record.reading("counts").value == 64  # what does not depend on it is taken all the same
    told = tmp_path / "out" / record.artifacts["traceback"]
    assert "KeyError: 'no such thing'" in told.read_text()
    broken = False
    assert run(made({"breaks": Breaks(), "counts": Counts()}, resolutions=[64]), streams()[0]) == 0
    (record,) = Store(tmp_path / "out").records()
    assert (record.status, record.artifacts, told.exists()) == ("ok", {}, False)


@pytest.mark.parametrize("details", [{"x": float("nan")}, {"x": object()}, {"x": {1, 2}}])
def test_a_reading_that_json_cannot_hold_is_a_failure_of_its_case(made, tmp_path, details):
    class Odd(Counts):
        def __call__(self, trial) -> Iterator[Reading]:
            yield Reading("odd", "odd", 1, "1", "lower", "odd/v1", details=details)

    assert run(made({"odd": Odd()}, resolutions=[64]), streams()[0]) == 1
    (record,) = Store(tmp_path / "out").records()
    assert record.reason.startswith("reading odd holds what is no number or text")


def test_a_size_that_is_too_large_for_memory_spares_the_larger_ones(made, tmp_path):
    run(made({"fails": Fails(torch.OutOfMemoryError("full"))}, resolutions=[32, 64, 96, 128]), streams()[0])
    reasons = [record.reason for record in Store(tmp_path / "out").records()]
    assert reasons[:2] == ["", "full"]
    assert all("64" in reason for reason in reasons[2:])
    assert all(record.machine for record in Store(tmp_path / "out").records())


def test_what_is_counted_is_taken_at_every_size_and_before_memory_runs_out(made, tmp_path):
    metrics = {"fails": Fails(torch.OutOfMemoryError("full")), "counts": Counts()}
    run(made(metrics, resolutions=[32, 64, 96]), streams()[0])
    small, full, spared = Store(tmp_path / "out").records()
    assert (small.status, full.status, spared.status) == ("ok", "out_of_memory", "out_of_memory")
    assert (full.reason, spared.reason) == ("full", "not tried: 64 was too large for memory already")
    assert [reading.value for record in (full, spared) for reading in record.readings] == [64, 96]
    assert spared.case.metrics == ("fails", "counts")


def test_what_breaks_while_it_is_counted_is_a_failure_whatever_memory_says(made, tmp_path):
    class Breaks(Counts):
        def __call__(self, trial) -> Iterator[Reading]:
            if trial.case.resolution.width > 64:
                raise RuntimeError("no price")
            yield from super().__call__(trial)

    metrics = {"fails": Fails(torch.OutOfMemoryError("full")), "counts": Breaks()}
    assert run(made(metrics, resolutions=[64, 96]), streams()[0]) == 1
    assert [record.reason for record in Store(tmp_path / "out").records()] == ["full", "no price"]


def test_what_memory_refused_is_not_tried_again_on_this_machine_but_on_a_larger_one(made, tmp_path, monkeypatch):
    def machine(gigabytes: int) -> dict[str, object]:
        return {"cpu": "a", "threads": 2, "gpu": "b", "memory": 2**36, "gpu_memory": gigabytes * 2**30}

    asked = []

    class Grows(Fails):
        def __call__(self, trial) -> Iterator[Reading]:
            asked.append(trial.case.resolution.width)
            yield from super().__call__(trial)

    for gigabytes in (16, 16, 80):
        for module in ("job", "run", "records.store"):
            monkeypatch.setattr(f"harness.{module}.describe", lambda device, size=gigabytes: machine(size))
        run(made({"fails": Grows(torch.OutOfMemoryError("full"))}, resolutions=[64, 96]), streams()[0])
        asked.append(gigabytes)
    assert asked == [64, 16, 16, 64, 80]


def test_the_record_says_which_layout_a_convolution_took(made, tmp_path):
    metrics = {"flops": Flops(), "latency": Latency(seconds=0.01, least=1)}
    experiment = made(metrics, variants=["depthwise"], resolutions=[32])
    assert run(experiment, streams()[0]) == 0
    (record,) = Store(tmp_path / "out", print).records()
    assert record.sites
    for site in record.sites:
        height, width = site.grid
        assert f" at {height}x{width} on cpu, which was tried to be faster" in site.note


def test_the_first_images_are_kept_with_their_prompts(made, tmp_path):
    run(made({"brightness": Brightness()}, resolutions=[32]), streams()[0])
    (record,) = Store(tmp_path / "out").records()
    assert sorted(record.artifacts) == ["image/0", "image/1", "image/2"]
    assert all((tmp_path / "out" / path).is_file() for path in record.artifacts.values())
    prompts = json.loads((tmp_path / "out" / "images" / record.case.key / "prompts.json").read_text())
    assert prompts == ["prompt 0", "prompt 1", "prompt 2"]


def test_an_untrained_student_has_no_quality_unless_asked_for_in_so_many_words(made, tmp_path):
    settings = {"variants": ["linfusion"], "resolutions": [32]}
    run(made({"brightness": Brightness()}, **settings), streams()[0])
    (record,) = Store(tmp_path / "out").records()
    assert record.reading("brightness").reason == "untrained"
    run(made({"brightness": Brightness()}, **settings, untrained=True, out=tmp_path / "other"), streams()[0])
    (record,) = Store(tmp_path / "other").records()
    assert record.reading("brightness").value is not None


def test_a_missing_student_is_distilled_on_demand_once(made, tmp_path, capsys):
    schedule = Schedule(steps=2, learning_rate=1e-3, warmup=1, precision="fp32")
    settings = {
        "variants": ["linfusion"],
        "resolutions": [32],
        "train": Recipe([Layerwise(schedule), EndToEnd(schedule)], sizes=[32], samples=4, batch=2),
    }
    run(made({"brightness": Brightness()}, **settings), streams()[0])
    (record,) = Store(tmp_path / "out").records()
    assert record.reading("brightness").value is not None
    assert "linfusion of tiny, layer by layer" in capsys.readouterr().err
    run(made({"brightness": Brightness()}, **settings, out=tmp_path / "again"), streams()[0])
    assert "layer by layer" not in capsys.readouterr().err


def test_an_image_does_not_depend_on_the_batch_that_it_was_made_in(made):
    images = []
    for batch in (1, 3):
        experiment = made({"brightness": Brightness()}, batch=batch)
        images.append(experiment.jobs()[0].trial().rows(Reader("images", lambda images: images)))
    torch.testing.assert_close(images[0], images[1], atol=1e-4, rtol=0)


def test_metrics_stop_at_the_limits_of_a_cpu_and_cases_without_metrics_are_left_out(made):
    metrics = {"brightness": Brightness(), "fails": Fails(RuntimeError())}
    jobs = made(metrics, cpu_limits={"tiny": {"brightness": 32, "fails": 32}}).jobs()
    assert [str(job.case.resolution) for job in jobs] == ["32"]
    jobs = made(metrics, cpu_limits={"tiny": {"brightness": 32}}).jobs()
    assert [job.case.metrics for job in jobs] == [("brightness", "fails"), ("fails",)]


def test_the_limits_of_a_cpu_are_none_of_another_device(made, monkeypatch):
    monkeypatch.setattr("harness.experiment._check_device", lambda device, dtype: None)
    metrics = {"brightness": Brightness(), "fails": Fails(RuntimeError())}
    jobs = made(metrics, cpu_limits={"tiny": {"brightness": 0, "fails": 0}}, device="cuda:0").jobs()
    assert [job.case.metrics for job in jobs] == [("brightness", "fails")] * 2


def test_random_weights_have_no_quality_and_teach_no_student(made):
    schedule = Schedule(steps=2, learning_rate=1e-3, warmup=1, precision="fp32")
    recipe = Recipe([Layerwise(schedule), EndToEnd(schedule)], sizes=[32], samples=4, batch=2)
    variants = ["self_attention", "linfusion"]
    experiment = made({"brightness": Brightness()}, variants=variants, resolutions=[32], train=recipe)
    model = UNetModel("tiny", source="random", config="sd15")
    random = replace(experiment, catalog=replace(experiment.catalog, models={"tiny": model}))
    assert [job.trial().trained for job in random.jobs()] == [False, False]
    assert all(job.trial().trained == (job.case.variant == variants[0]) for job in experiment.jobs())


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("models", "tiny", "models=tiny is not a list: write models=\\[tiny\\]"),
        ("resolutions", 512, "resolutions=512 is not a list: write resolutions=\\[512\\]"),
        ("resolutions", [], "resolutions=\\[\\] leaves nothing to do"),
    ],
)
def test_a_setting_that_lists_nothing_is_refused_in_one_sentence(made, setting, value, sentence):
    with pytest.raises(BadInput, match=sentence):
        made({"brightness": Brightness()}, **{setting: value})


def test_costs_on_shapes_alone_are_not_named_after_weights(made):
    metrics = {"fails": Fails(RuntimeError())}
    assert {job.case.weights for job in made(metrics).jobs()} == {"shapes"}
    metrics["brightness"] = Brightness()
    jobs = made(metrics, variants=["self_attention", "linfusion"]).jobs()
    named = {job.case.variant: job.case.weights for job in jobs}
    assert "+" not in named["self_attention"]
    assert named["linfusion"].startswith(named["self_attention"] + "+")


def test_models_of_which_all_is_counted_come_first_and_the_rest_keeps_its_order() -> None:
    def job(model: str, *metrics: str) -> Any:
        counted = tuple(name for name in metrics if name == "flops")
        return SimpleNamespace(case=SimpleNamespace(model=model, metrics=metrics), counted=counted)

    jobs = [job("tiny", "flops", "latency"), job("large", "flops"), job("tiny", "flops"), job("large", "flops")]
    assert quick_first(jobs) == [jobs[1], jobs[3], jobs[0], jobs[2]]
