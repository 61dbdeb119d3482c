"""The module scope: distinct sites of a call, their mixers alone, their sum, Table 2 of the paper, floors below."""

import math
from functools import partial

import pytest
import torch

from baselines import NeighborhoodAttention, SelfAttention
from deltaconv import DeltaConvBlock
from harness.distillation.student import Student
from harness.measured import rates as limits_module
from harness.measured.distinct_sites import distinct_sites, mixer_at, tokens_at
from harness.measured.mixer_bench import MixerBench, levels, over_floor
from harness.measured.mixers_latency import TABLE_2, MixersLatency, PaperLatency, published, summed
from harness.models.unet import UNetModel
from harness.records.case import Resolution
from harness.records.record import Reading
from harness.records.units import is_cost
from harness.trial import Trial

KERNELS = {"down_blocks.0": 7, "down_blocks.1": 9, "down_blocks.2": 5, "mid_block": 3, "up_blocks.1": 5}
PUBLISHED = KERNELS | {"up_blocks.2": 9, "up_blocks.3": 11}
"""SD1.5's, as in conf/model/sd15.yaml."""


@pytest.fixture(autouse=True)
def quick_limits(monkeypatch):
    """A thousand MFLOPs and MB a second, without measuring."""
    monkeypatch.setattr(limits_module, "matrix_rate", lambda device, dtype: 1e9)
    monkeypatch.setattr(limits_module, "copy_rate", lambda device: 1e9)


@pytest.fixture
def trial_of(make_case):
    def make(model, factory, **changes) -> Trial:
        case = make_case(**({"model": model.name, "weights": "shapes"} | changes))
        return Trial(case, model, factory, None, Student(case.model, case.variant))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def sd15():
    return OnceOnMeta("sd15", None, "sd15")


class OnceOnMeta(UNetModel):
    """Built once for all tests of this file."""

    twin: UNetModel | None = None

    def on_meta(self, dtype="fp32"):
        if self.twin is None:
            self.twin = super().on_meta(dtype)
        return self.twin


@pytest.fixture
def tiny():
    return UNetModel("tiny_sd", "pkg://harness.shapes/weights/tiny_sd")


# Places


def test_sd15_has_four_levels_and_its_known_price(trial_of, sd15):
    found = distinct_sites(trial_of(sd15, SelfAttention.for_site, resolution=Resolution(512, 512)))
    assert [(p.site.channels, p.grid, p.calls) for p in found] == [
        (320, (64, 64), 5),
        (640, (32, 32), 5),
        (1280, (16, 16), 5),
        (1280, (8, 8), 1),
    ]
    assert sum(p.calls * p.flops for p in found) / 1e9 == pytest.approx(173.67, abs=0.005)


def test_sites_of_one_shape_with_other_kernels_are_places_of_their_own(trial_of, sd15):
    trial = trial_of(sd15, partial(DeltaConvBlock.for_site, kernel_size=PUBLISHED), resolution=Resolution(1024, 512))
    found = distinct_sites(trial)
    assert [(p.site.path.split(".attentions")[0], p.grid, p.calls) for p in found] == [
        ("down_blocks.0", (64, 128), 2),
        ("down_blocks.1", (32, 64), 5),
        ("down_blocks.2", (16, 32), 5),
        ("mid_block", (8, 16), 1),
        ("up_blocks.3", (64, 128), 3),
    ]
    assert list(levels(trial)) == ["c320_p8", "c640_p16", "c1280_p32", "c1280_p64"]


def test_a_mixer_alone_is_real_random_and_always_the_same(trial_of, tiny):
    trial = trial_of(tiny, SelfAttention.for_site, dtype="bf16")
    distinct = distinct_sites(trial)[0]
    one, two = mixer_at(distinct, trial), mixer_at(distinct, trial)
    tokens_BNC = tokens_at(distinct, trial, 2)
    assert tokens_BNC.shape == (2, distinct.tokens, distinct.site.channels)
    assert tokens_BNC.dtype == next(one.parameters()).dtype == torch.bfloat16
    mixed_BNC = one(tokens_BNC, distinct.grid)
    assert mixed_BNC.shape == tokens_BNC.shape
    assert mixed_BNC.isfinite().all()
    assert mixed_BNC.std() > 0
    assert torch.equal(mixed_BNC, two(tokens_BNC, distinct.grid))
    assert tiny.pipeline is None


def test_the_random_numbers_of_others_are_left_alone(trial_of, tiny):
    trial = trial_of(tiny, SelfAttention.for_site)
    state = torch.random.get_rng_state()
    mixer_at(distinct_sites(trial)[0], trial)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_traffic_is_tokens_in_and_out_and_the_weights_once(trial_of, tiny):
    distinct = distinct_sites(trial_of(tiny, SelfAttention.for_site))[0]
    channels = distinct.site.channels
    assert distinct.traffic(3) == 2 * 3 * distinct.tokens * channels + 4 * channels**2 + channels


# All mixers of one call


def test_the_sum_counts_each_site_as_often_as_it_is_visited(trial_of, tiny):
    (reading,) = MixersLatency(seconds=0.05)(trial_of(tiny, SelfAttention.for_site))
    sites = reading.details["sites"]
    assert sum(site["calls"] for site in sites) == 7
    assert reading.value == pytest.approx(sum(site["calls"] * site["median"] for site in sites))
    assert all(len(site["samples"]) >= reading.n >= 1 for site in sites)
    assert "batch 1, forward" in reading.protocol
    assert tiny.pipeline is None


def test_half_widths_of_sites_add_in_squares():
    def site(calls, median, half):
        timing = {"median": median, "low": median - half, "high": median + 2 * half, "noisy": ""}
        return {"calls": calls, "samples": [median], **timing}

    reading = summed("mixers_latency", "p", [site(2, 10.0, 1.5), site(1, 5.0, 4.0)])
    assert (reading.value, reading.low, reading.high) == (25.0, 20.0, 35.0)
    mean = summed("paper_latency", "p", [site(2, 10.0, 1.5), site(1, 5.0, 4.0)], share=1 / 3)
    assert mean.value == pytest.approx(25 / 3)
    assert mean.high == pytest.approx(35 / 3)


def test_a_site_without_an_interval_leaves_the_sum_without_one():
    alone = {"calls": 1, "median": 3.0, "low": None, "high": None, "samples": [3.0], "noisy": "cold"}
    reading = summed("mixers_latency", "p", [alone])
    assert (reading.value, reading.low, reading.high) == (3.0, None, None)
    assert reading.details["noisy"] == "1 of 1 sites were disturbed, the first: cold"


@pytest.mark.parametrize("metric", [MixersLatency(patience=1e-9), PaperLatency(patience=1e-9)])
def test_what_is_predicted_too_slow_is_a_dash_with_the_numbers(trial_of, tiny, metric):
    (reading,) = metric(trial_of(tiny, SelfAttention.for_site))
    assert reading.value is None
    assert reading.reason.startswith("down_blocks.0.attentions.0.transformer_blocks.0.attn1: one call is ")
    assert reading.reason.endswith("of this device in float32, and the patience is 1e-09 s")


class Wrong(NeighborhoodAttention):
    """Off its definition."""

    def definition(self, tokens_BNC, grid):
        return 2 * tokens_BNC


@pytest.mark.parametrize("metric", [MixersLatency(), PaperLatency(), MixerBench()])
def test_a_mixer_that_breaches_its_definition_is_not_timed(trial_of, tiny, metric):
    readings = list(metric(trial_of(tiny, partial(Wrong.for_site, kernel_size=5))))
    assert all(reading.value is None for reading in readings)
    assert all("it is not timed until they agree" in reading.reason for reading in readings)


# Table 2


def test_the_papers_number_stands_beside_ours_and_only_where_it_has_one(trial_of):
    """On the tiny shapes under the name of PixArt; what is too slow to be timed still shows what was printed."""
    named = UNetModel("pixart", "pkg://harness.shapes/weights/tiny_sd")
    for resolution, variant, printed in ((1024, "deltaconv", 3.53), (512, "deltaconv", None), (1024, "pooling", None)):
        size = Resolution(resolution, resolution)
        trial = trial_of(named, SelfAttention.for_site, variant=variant, resolution=size)
        assert published(trial).get("published", {}).get("ms") == printed
    trial = trial_of(named, SelfAttention.for_site, resolution=Resolution(1024, 1024))
    (reading,) = PaperLatency(patience=1e-9)(trial)
    assert reading.details["published"] == {"ms": 5.91, "dtype": "fp16", "device": "unknown"}
    assert "Table 2 of arXiv 2504.21292, batch 2, forward" in reading.protocol


def test_table_2_grows_with_4096_pixels_rather_than_with_uhd():
    """28 equal layers, C = 1152: cost of one is 8NC² + 4N²C; N is a token of 16 x 16 pixels."""

    def price(tokens: int) -> int:
        return 8 * tokens * 1152**2 + 4 * tokens**2 * 1152

    grown = TABLE_2["self_attention", 4096] / TABLE_2["self_attention", 1024]
    square, uhd = (price(pixels // 256) / price(1024**2 // 256) for pixels in (4096**2, 3840 * 2160))
    assert abs(math.log(grown / square)) < 0.1 < 1 < abs(math.log(grown / uhd))


def test_the_mean_is_over_the_mixers_of_a_call(trial_of, tiny):
    (reading,) = PaperLatency(seconds=0.05)(trial_of(tiny, SelfAttention.for_site))
    assert reading.value == pytest.approx(sum(s["calls"] * s["median"] for s in reading.details["sites"]) / 7)


# Against the limits


def test_each_level_has_forward_and_training_in_time_and_over_its_floor(trial_of, tiny):
    readings = {r.name: r for r in MixerBench(seconds=0.05)(trial_of(tiny, SelfAttention.for_site))}
    labels = ("c48_p4", "c96_p8", "c96_p16")
    kinds = ("forward", "forward_over_floor", "training", "training_over_floor")
    assert set(readings) == {"mixer_bench"} | {f"{kind}_{at}" for kind in kinds for at in labels}
    forward, training = readings["forward_c96_p8"], readings["training_c96_p8"]
    assert training.details["flops"] == 3 * forward.details["flops"]
    assert training.details["bytes"] == 3 * forward.details["bytes"]
    assert forward.details["floor"] == pytest.approx(
        1e3 * max(forward.details["flops"], forward.details["bytes"]) / 1e9
    )
    assert readings["training_over_floor_c96_p8"].value == pytest.approx(training.value / training.details["floor"])
    floor = sum(readings[f"forward_{at}"].details["floor"] for at in labels)
    assert readings["mixer_bench"].value == pytest.approx(sum(readings[f"forward_{at}"].value for at in labels) / floor)
    assert tiny.pipeline is None


def test_what_the_metric_says_is_a_cost_of_this_machine(trial_of, tiny):
    """So it is grouped by machine, and judged as a ratio; a score would be neither."""
    readings = list(MixerBench(seconds=0.02)(trial_of(tiny, SelfAttention.for_site)))
    assert {(reading.unit, reading.better) for reading in readings} == {("ms", "lower"), ("x", "lower")}
    assert all(is_cost(reading.unit, reading.better) for reading in readings)


def time_of(name: str, value: float | None, low: float | None, high: float | None, noisy: str = "", **more) -> Reading:
    details = {"floor": 2.0, "noisy": noisy}
    return Reading("mixer_bench", name, value, "ms", "lower", "p", n=9, low=low, high=high, details=details, **more)


def test_a_time_over_its_floor_keeps_its_interval_and_its_noise():
    ratio = over_floor("mixer_bench", "ratio", [time_of("forward", 10.0, 8.0, 14.0, "loud")], "p")
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == (5.0, 4.0, 7.0, 9)
    assert ratio.details == {"floor": 2.0, "noisy": "forward: loud"}


def test_half_widths_of_levels_add_in_squares_over_all_their_floors():
    times = [time_of("one", 10.0, 7.0, 16.0), time_of("two", 20.0, 16.0, 28.0, "loud")]
    ratio = over_floor("mixer_bench", "ratio", times, "p")
    assert (ratio.value, ratio.low, ratio.high) == (7.5, 6.25, 10.0)
    assert ratio.details["noisy"] == "two: loud"


def test_levels_of_which_one_has_no_interval_or_no_time_have_none_together():
    known = time_of("one", 10.0, 7.0, 16.0)
    ratio = over_floor("mixer_bench", "ratio", [known, time_of("two", 20.0, None, None)], "p")
    assert (ratio.value, ratio.low, ratio.high) == (7.5, None, None)
    ratio = over_floor("mixer_bench", "ratio", [known, time_of("two", None, None, None, reason="too slow")], "p")
    assert (ratio.value, ratio.reason) == (None, "two: too slow")


def test_a_level_beyond_the_patience_is_a_dash_and_so_is_the_whole(trial_of, tiny):
    """At 1e9 FLOPs a second: between the prices of the two dearest levels."""
    trial = trial_of(tiny, SelfAttention.for_site)
    prices = {level: distinct.flops for level, distinct in levels(trial).items()}
    *others, below, dear = sorted(prices, key=lambda level: prices[level])
    patience = (prices[below] + prices[dear]) / 2e9
    readings = {r.name: r for r in MixerBench(seconds=0.02, patience=patience)(trial)}
    assert "one call is" in readings[f"forward_{dear}"].reason
    assert all(readings[f"forward_{cheap}"].value is not None for cheap in (*others, below))
    assert readings["mixer_bench"].reason.startswith(f"forward_{dear}: one call is")


def test_training_is_not_tried_where_its_forward_shows_that_it_takes_too_long(trial_of, tiny, monkeypatch):
    monkeypatch.setattr(limits_module, "matrix_rate", lambda device, dtype: 1e30)
    readings = {r.name: r for r in MixerBench(seconds=0.02, patience=1e-6)(trial_of(tiny, SelfAttention.for_site))}
    assert readings["forward_c48_p4"].value is not None
    assert readings["training_c48_p4"].value is None
    assert readings["training_c48_p4"].reason.endswith("s by its forward; the patience is 1e-06 s")
