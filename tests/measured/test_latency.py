"""Latency: what is wrong is not timed, raw samples are kept, and the teacher is timed beside."""

import itertools
import statistics
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.measured.conformance import breach, first_breach
from harness.measured.latency import ImageLatency, Latency
from harness.measured.mixer_bench import MixerBench
from harness.measured.mixers_latency import MixersLatency
from harness.records.case import BadInput, Resolution
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import Seat
from harness.seats.teacher import TeacherAttention

Make = Callable[..., Any]


class Wrong(TokenMixer):
    """Twice what its definition says."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(factor))

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return tokens_BNC * self.weight

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return tokens_BNC

    def flops(self, grid: Grid) -> int:
        return 0


class Ticks:
    """A clock that nothing moves but the calls of variant and teacher, each by the next duration of its script."""

    def __init__(self, variant_ms: tuple[float, ...], teacher_ms: tuple[float, ...]) -> None:
        self.scripts = {False: itertools.cycle(variant_ms), True: itertools.cycle(teacher_ms)}
        self.calls = {False: 0, True: 0}
        self.now_ms = 0.0

    def read(self, work: Callable[[], object]) -> float:
        begun_ms = self.now_ms
        work()
        return self.now_ms - begun_ms

    def call(self, by_teacher: bool) -> None:
        self.calls[by_teacher] += 1
        self.now_ms += next(self.scripts[by_teacher])


class Plain(nn.Module):
    """A denoiser of one seat, whose calls take the time that the script says."""

    def __init__(self, factor: float, ticks: Ticks | None = None) -> None:
        super().__init__()
        self.ticks = ticks
        self.seat = Seat(Site("block.attn1", 4, 1), Wrong(factor))

    def forward(self, x: Tensor) -> Tensor:
        if self.ticks is not None:
            self.ticks.call(isinstance(self.seat.mixer, TeacherAttention))
        return self.seat(x, token_grid=(2, 3))  # type: ignore[no-any-return]


def test_a_mixer_that_breaches_its_definition_is_named() -> None:
    assert first_breach(Plain(1.0)) == ""
    assert first_breach(Plain(2.0)) == (
        "Wrong at block.attn1 is 1.0e+00 off its definition on a 7x13 grid (torch.float32, cpu): "
        "it is not timed until they agree"
    )


def test_not_a_number_is_a_breach() -> None:
    assert "off its definition" in breach(Wrong(float("nan")), Site("block.attn1", 4, 1), torch.ones(1))


SITE = Site("block.attn1", 4, 1)


@pytest.fixture
def trial_of(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Trials whose denoiser is one seat with the identity as its teacher, timed by the script of the latest."""

    def make(
        factor: float = 1.0,
        batch: int = 3,
        variant_ms: tuple[float, ...] = (2.0, 2.1, 2.2),
        teacher_ms: tuple[float, ...] = (4.0,),
    ) -> SimpleNamespace:
        ticks = Ticks(variant_ms, teacher_ms)
        monkeypatch.setattr("harness.measured.latency.clock_for", lambda device: ticks.read)
        monkeypatch.setattr("harness.measured.timing.clock_for", lambda device: ticks.read)
        monkeypatch.setattr("harness.measured.latency.matrix_rate", lambda device, dtype: 1e9)
        return trial(factor, batch, ticks)

    return make


def trial(factor: float, batch: int, ticks: Ticks) -> SimpleNamespace:
    @contextmanager
    def denoiser(factory=None, parts="all"):  # type: ignore[no-untyped-def]
        plain = Plain(factor, ticks)
        if factory is not None:
            plain.seat.mixer = factory(SITE, nn.Identity())
        yield plain

    def generate(*given: object) -> Tensor:
        ticks.call(by_teacher=False)
        return torch.ones(1, 3, 8, 8)

    case = SimpleNamespace(
        model="plain",
        device="cpu",
        dtype="fp32",
        resolution=Resolution(8, 8),
        steps=1,
        guidance=1.0,
        seeds=(0,),
        batch=batch,
    )
    model = SimpleNamespace(example=lambda size, batch=1: {"x": torch.ones(batch, 6, 4)}, generate=generate)
    return SimpleNamespace(
        case=case,
        model=model,
        denoiser=denoiser,
        prompts=["a red circle"],
        factory=lambda site, attention: Wrong(factor),
        ticks=ticks,
    )


@pytest.mark.parametrize("metric", [Latency(seconds=0.05), ImageLatency(seconds=0.05)])
def test_a_breach_is_a_dash_with_its_reason(metric: Latency | ImageLatency, trial_of: Make) -> None:
    readings = list(metric(trial_of(2.0)))
    assert [reading.name for reading in readings][:1] == [metric.name]
    assert all(reading.value is None for reading in readings)
    assert all("it is not timed until they agree" in reading.reason for reading in readings)


@pytest.mark.parametrize("metric", [Latency(seconds=0.05), ImageLatency(seconds=0.05)])
def test_a_reading_keeps_its_raw_samples_and_what_the_machine_did(
    metric: Latency | ImageLatency, trial_of: Make
) -> None:
    reading = next(iter(metric(trial_of())))
    assert reading.name == metric.name
    assert reading.value == statistics.median(reading.samples) == pytest.approx(2.1)
    assert reading.n == len(reading.samples) == 16  # two thirds of 50 ms
    assert (reading.low, reading.high) == pytest.approx((2.0, 2.2))
    assert {"p90", "threads", "load_average", "other_cores", "noisy", "first_call"} <= set(reading.details)


def test_the_ratio_to_the_teacher_is_a_reading_of_its_own(trial_of: Make) -> None:
    latency, ratio = Latency(seconds=0.05)(trial_of())
    assert (ratio.metric, ratio.name, ratio.unit, ratio.better) == ("latency", "latency_ratio", "x", "lower")
    assert ratio.n == len(ratio.samples) == len(ratio.details["teacher_ms"]) == 10  # as many pairs as blocks
    assert 0.5 <= ratio.low < ratio.value < ratio.high <= 0.55
    assert set(map(round, ratio.details["teacher_ms"])) == {4}
    assert latency.details["teacher"] == {"median": statistics.median(ratio.details["teacher_ms"]), "moved": 0}


def test_a_teacher_that_is_too_slow_for_its_share_is_not_called(trial_of: Make) -> None:
    """Six tokens of four channels are 1344 FLOPs: at a rate of one a second they take 22 minutes."""
    given = trial_of()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.measured.latency.matrix_rate", lambda device, dtype: 1.0)
        latency, ratio = Latency(seconds=0.05)(given)
    assert latency.value is not None
    assert "teacher" not in latency.details
    assert given.ticks.calls[True] == 0
    assert (ratio.value, ratio.reason) == (
        None,
        "the teacher's call needs at least 1.3e+03 s beside 0.0021 s, too long for 6 pairs in seconds=0.05",
    )


def test_a_teacher_whose_call_was_slow_twice_is_not_called_again(trial_of: Make) -> None:
    """Six pairs with 2 ms of the variant leave 14 ms to the teacher."""
    given = trial_of(teacher_ms=(4.0, 20.0, 30.0))
    latency, ratio = Latency(seconds=0.05)(given)
    assert latency.value is not None
    assert given.ticks.calls[True] == 3  # the first warms up
    assert ratio.reason == "the teacher's call takes 0.03 s beside 0.0021 s, too long for 6 pairs in seconds=0.05"


def test_a_teacher_whose_call_was_slow_once_is_asked_again(trial_of: Make) -> None:
    _, ratio = Latency(seconds=0.05)(trial_of(teacher_ms=(4.0, 20.0, *(4.0,) * 50)))
    assert ratio.value == pytest.approx(0.525, rel=0.05)


def test_a_teacher_that_changed_its_pace_within_the_run_is_said(trial_of: Make) -> None:
    metric = Latency(seconds=0.05)
    list(metric(trial_of()))
    told = next(iter(metric(trial_of(teacher_ms=(6.0,)))))
    assert told.details["teacher"]["moved"] == pytest.approx(0.5)
    assert "the teacher's own call is +50% off the first case of this run" in told.details["noisy"]


def test_what_disturbed_the_machine_during_the_pairs_is_said_beside_the_ratio(
    trial_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other_cores, said in ((1.4, "other work kept 1.4 cores busy"), (0.0, "")):
        seen = SimpleNamespace(end=lambda cores=other_cores: {"other_cores": cores, "stolen": 0.0})
        monkeypatch.setattr("harness.measured.latency.Load", SimpleNamespace(begin=lambda seen=seen: seen))
        _, ratio = Latency(seconds=0.05)(trial_of())
        assert ratio.details["noisy"] == said


@pytest.mark.parametrize(("batch", "said"), [(1, "batch 1,"), (2, "batch 2,"), (None, "batch 3,")])
def test_a_call_has_one_image_unless_told_otherwise(batch: int | None, said: str, trial_of: Make) -> None:
    latency, ratio = Latency(seconds=0.02, batch=batch)(trial_of())
    assert said in latency.protocol
    assert said in ratio.protocol


@pytest.mark.parametrize("metric", [Latency, MixersLatency, MixerBench])
def test_a_batch_without_images_is_refused(metric: type) -> None:
    with pytest.raises(BadInput, match=r"batch=0 is not possible: give at least 1, or null for the case's"):
        metric(batch=0)
