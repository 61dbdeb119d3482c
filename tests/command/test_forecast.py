"""Forecasts: from the store where it knows enough, else from counts and a rate that is named, and nothing is run."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from baselines import LinFusionAttention, SelfAttention
from harness import forecast
from harness.console import Console
from harness.experiment import Catalog, Experiment
from harness.forecast import SHARE, Forecast, forecasts
from harness.job import Job
from harness.models.unet import UNetModel
from harness.records.case import Case
from harness.records.machine import describe
from harness.records.record import Reading, Record
from harness.records.store import Store
from harness.run import run
from harness.work import CALL_S, COUNTING_S, IMAGE_S, MODEL_S, SIZE_S, TIMED_CALLS

SIZES = [64, 128, 192, 256]
RATE = 1e9
WEIGHTS = 10**6


def predicted(experiment: Experiment) -> list[Forecast]:
    return forecasts(experiment, experiment.jobs())


def cases(experiment: Experiment) -> list[Case]:
    return [job.case for job in experiment.jobs()]


def counting_s(place: int) -> float:
    """Of one metric, in the case at that place: the first has to look at the model, the first four each at a size."""
    return COUNTING_S + (MODEL_S if place == 0 else 0.0) + (SIZE_S if place < len(SIZES) else 0.0)


def timed_s(calls_s: float) -> float:
    """Of a metric with a budget of three seconds."""
    return 3.0 + TIMED_CALLS * calls_s


def flops_of(case: Case) -> int:
    pixels = case.resolution.width * case.resolution.height
    return 10**8 + 10**5 * pixels + (50 * pixels**2 if case.variant == "self_attention" else 0)


def bytes_of(case: Case) -> int:
    return WEIGHTS + 500 + 40 * case.resolution.width * case.resolution.height


@dataclass(frozen=True)
class Counts:
    """A metric on shapes that follows a law, and remembers how often it was asked."""

    name: str
    law: Callable[[Case], int]
    asked: list[Case] = field(default_factory=list, compare=False)
    needs: str = "shapes"

    def __call__(self, trial) -> Iterator[Reading]:
        self.asked.append(trial.case)
        unit, details = ("byte", {"weights": WEIGHTS}) if self.name == "projected_memory" else ("FLOP", {})
        yield Reading(self.name, self.name, self.law(trial.case), unit, "lower", f"{self.name}/v1", details=details)


@dataclass(frozen=True)
class Never:
    """A metric that a forecast must not take."""

    name: str
    needs: str
    seconds: float = 0.0
    batch: int | None = 1


@dataclass(frozen=True)
class Alone(Never):
    """Mixers by themselves: needs shapes, but runs."""

    patience: float = 20.0
    runs: bool = True

    def __call__(self, trial) -> Iterator[Reading]:
        raise AssertionError("a forecast measures nothing")


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Two variants of a model that is never loaded; the machine multiplies at a made-up rate."""
    monkeypatch.setattr("harness.measured.rates.matrix_rate", lambda device, dtype: RATE / SHARE)
    model = UNetModel("tiny", source="random", config="sd15")
    variants = {"self_attention": partial(SelfAttention.for_site), "linfusion": partial(LinFusionAttention.for_site)}
    metrics = {
        "flops": Counts("flops", flops_of, []),
        "projected_memory": Counts("projected_memory", bytes_of, []),
        "latency": Never("latency", "device", 3.0),
        "fdd": Never("fdd", "weights"),
        "mixers": Alone("mixers", "shapes", 3.0),
    }
    return Experiment(
        Catalog({"tiny": model}, variants, metrics, {"shapes": object()}),
        models=["tiny"],
        variants=["self_attention", "linfusion"],
        metrics=["flops", "latency"],
        resolutions=SIZES,
        out=tmp_path / "out",
        n=5,
        steps=7,
        guidance=3.0,
        batch=2,
        dry_run=True,
    )


def test_without_records_time_is_flops_over_a_rate_that_is_called_assumed(experiment):
    found = predicted(experiment)
    assert [str(one.case) for one in found] == [str(case) for case in cases(experiment)]
    for place, one in enumerate(found):
        assert one.seconds == pytest.approx(counting_s(place) + timed_s(flops_of(one.case) / RATE))
        assert one.memory == pytest.approx(bytes_of(one.case), abs=1)
        assert "assumed" in one.basis


def test_three_sizes_are_counted_and_the_others_follow_by_their_law(experiment):
    predicted(experiment)
    for name, count in (("flops", 3), ("projected_memory", 2)):
        asked = experiment.catalog.metrics[name].asked
        assert len(asked) == len({str(case) for case in asked}) == count * len(experiment.variants)
        assert max(case.resolution.width for case in asked) == SIZES[-1]


def test_images_cost_steps_and_guidance_and_their_batch_fills_memory(experiment):
    plain, judged = (predicted(replace(experiment, metrics=names))[3] for names in (["latency"], ["latency", "fdd"]))
    call_s = flops_of(judged.case) / RATE
    images_s = 5 * 7 * 2 * call_s + 5 * IMAGE_S + 5 / 2 * 7 * 2 * CALL_S
    assert judged.seconds - plain.seconds == pytest.approx(images_s)
    assert judged.memory - WEIGHTS == pytest.approx(2 * 2 * (plain.memory - WEIGHTS), abs=4)


def test_what_is_counted_on_shapes_runs_nowhere_and_needs_no_weights(experiment):
    for place, one in enumerate(predicted(replace(experiment, metrics=["flops"]))):
        assert one.seconds == pytest.approx(counting_s(place))
        assert (one.memory, one.basis) == (None, "counted on shapes")


def test_mixers_that_run_alone_take_their_budget_or_their_patience_and_no_denoiser_call(experiment):
    found = predicted(replace(experiment, metrics=["flops", "mixers"]))
    for place, one in enumerate(found):
        calls_s = TIMED_CALLS * flops_of(one.case) / RATE
        assert one.seconds == pytest.approx(counting_s(place) + 3.0 + min(20.0, calls_s))
        assert one.memory is None
    assert TIMED_CALLS * flops_of(found[0].case) / RATE < 20.0 < TIMED_CALLS * flops_of(found[3].case) / RATE


def kept(store: Store, case: Case, ms: float, batch: int = 1, asked: Sequence[Job] = ()) -> None:
    """Put what a run would have taken of a case; of one of the jobs that are asked for under its identities."""
    taken = (
        Reading("flops", "flops", 10**6, "FLOP", "lower", "flops/v1"),
        Reading("latency", "latency", ms, "ms", "lower", f"latency/v1: one denoiser call, batch {batch}, eager"),
    )
    known = next((job.identities for job in asked if job.case == case), {})
    store.put(Record(case, "ok", readings=taken, machine=describe("cpu"), identities=dict(known)))


def test_records_of_three_sizes_make_a_law_and_their_own_cases_are_kept(experiment, tmp_path):
    store = Store(tmp_path / "out")
    asked = cases(experiment)
    for case in asked[:3]:
        kept(store, case, 1e4 + 2.0 * case.resolution.width**2, asked=experiment.jobs())
    found = predicted(experiment)
    assert [(one.basis, one.seconds, one.case.metrics) for one in found[:3]] == [("kept", 0.0, ())] * 3
    call_s = 10 + 2e-3 * 256**2
    assert found[3].seconds == pytest.approx(counting_s(0) + timed_s(call_s))
    assert found[3].basis == "law of 3 latencies in the store"


def test_the_rate_of_other_variants_in_the_store_is_better_than_an_assumption(experiment, tmp_path):
    store = Store(tmp_path / "out")
    for case in cases(experiment)[:2]:
        kept(store, case, 500.0)
    last = predicted(experiment)[-1]
    assert "median of 2 in the store" in last.basis
    assert last.seconds == pytest.approx(counting_s(7) + timed_s(flops_of(last.case) / 2e6))


def test_a_latency_of_many_images_is_taken_as_one_of_each(experiment, tmp_path):
    store = Store(tmp_path / "out")
    for case in cases(experiment)[:3]:
        pixels = case.resolution.width**2
        kept(store, replace(case, batch=16), 16 * (1e4 + 2.0 * pixels), 16)
        kept(store, replace(case, batch=64), 64 * (1e6 + 9.0 * pixels), 64)
    found = predicted(experiment)
    call_s = 10 + 2e-3 * 64**2
    assert found[0].seconds == pytest.approx(counting_s(0) + timed_s(call_s))
    assert found[0].basis == "its latency in the store"
    assert found[3].seconds == pytest.approx(counting_s(3) + timed_s(10 + 2e-3 * 256**2))
    asked = predicted(replace(experiment, batch=32, catalog=with_batch_of_the_case(experiment)))
    assert asked[0].seconds == pytest.approx(counting_s(0) + timed_s(32 * call_s))
    rates = sorted(
        10**6 / ms * 1e3 for pixels in (64**2, 128**2, 192**2) for ms in (1e4 + 2 * pixels, 1e6 + 9 * pixels)
    )
    rate = (rates[2] + rates[3]) / 2
    assert found[-1].seconds == pytest.approx(counting_s(7) + timed_s(flops_of(found[-1].case) / rate))


def with_batch_of_the_case(experiment: Experiment) -> Catalog:
    """The catalogue, latencies at the case's own batch."""
    metrics = experiment.catalog.metrics
    return replace(experiment.catalog, metrics=metrics | {"latency": replace(metrics["latency"], batch=None)})


def test_records_of_other_settings_of_a_variant_say_nothing_of_its_time(experiment, tmp_path):
    store = Store(tmp_path / "out")
    for case in cases(experiment)[-4:-1]:
        kept(store, replace(case, mixer='{"mixer": "x", "parameters": {}}'), 500.0)
    last = predicted(experiment)[-1]
    assert (last.case.variant, last.case.mixer == "") == ("linfusion", False)
    assert last.basis.endswith("(median of 3 in the store)")


def test_a_dry_run_downloads_no_published_weights_to_give_them_a_name(experiment, monkeypatch, tmp_path):
    def fetched(source: str) -> None:
        raise AssertionError(f"{source} was asked for")

    monkeypatch.setattr("harness.seats.checkpoint._downloaded", fetched)
    published = partial(LinFusionAttention.for_site, published="somebody/linfusion")
    catalog = replace(experiment.catalog, variants=experiment.catalog.variants | {"linfusion": published})
    out, err = io.StringIO(), io.StringIO()
    asked = replace(experiment, catalog=catalog, metrics=["latency", "fdd"])
    assert run(asked, Console(out, err)) == 0
    *rows, last = out.getvalue().splitlines()
    assert sum("its weights are downloaded first" in row for row in rows) == len(SIZES)
    assert json.loads(last)["cases"] == 2 * len(SIZES)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_leaves_a_store_as_it_is(experiment, tmp_path):
    store = Store(tmp_path / "out")
    kept(store, cases(experiment)[0], 500.0)
    broken = tmp_path / "out" / "records" / f"{cases(experiment)[1].key}.json"
    broken.write_text("{")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    err = io.StringIO()
    assert run(experiment, Console(io.StringIO(), err)) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert f"record {broken.name} cannot be read" in err.getvalue()


def test_records_of_another_machine_say_nothing_of_time(experiment, tmp_path, monkeypatch):
    store = Store(tmp_path / "out")
    kept(store, cases(experiment)[0], 500.0)
    monkeypatch.setattr(forecast, "describe", lambda device: {"cpu": "another"})
    assert "assumed" in predicted(experiment)[-1].basis


def test_a_call_that_cannot_be_counted_is_unknown_with_the_reason(experiment):
    def unpriced(case: Case) -> int:
        raise RuntimeError("operator aten.mystery has no price")

    experiment.catalog.metrics["flops"] = Counts("flops", unpriced, [])
    for one in predicted(experiment):
        assert one.basis == "unknown: operator aten.mystery has no price"
        assert (one.seconds, one.memory) == (None, None)


def test_what_is_unknown_is_a_dash_and_no_part_of_the_total(experiment):
    def unpriced(case: Case) -> int:
        if case.variant == "linfusion":
            raise RuntimeError("operator aten.mystery has no price")
        return 10**6

    experiment.catalog.metrics["flops"] = Counts("flops", unpriced, [])
    out, err = io.StringIO(), io.StringIO()
    run(experiment, Console(out, err))
    *rows, last = out.getvalue().splitlines()
    assert [row.split()[3:5] for row in rows[-4:]] == [["–", "–"]] * 4
    summary = json.loads(last)
    assert (summary["unknown"], summary["predicted_s"]) == (
        4,
        round(sum(map(counting_s, range(4))) + 4 * timed_s(10**6 / RATE), 1),
    )
    assert "8 of 8 cases to take, about 15 s and what 4 of them take, which is unknown" in err.getvalue()
