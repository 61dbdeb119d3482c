"""Latency: what is wrong is not timed, raw samples are kept, and the teacher is timed beside."""

import statistics
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from harness.case import BadInput, Resolution
from harness.metrics.conformance import breach, first_breach
from harness.metrics.latency import ImageLatency, Latency
from harness.metrics.mixer_bench import MixerBench
from harness.metrics.mixers_latency import MixersLatency
from harness.mixer import Grid, Site, TokenMixer
from harness.record import Reading
from harness.surgery import Room, Seat


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


class Plain(nn.Module):
    """A denoiser of one seat."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        room = Room(SimpleNamespace(config={}))
        room.grid = (2, 3)
        self.seat = Seat(Site("block.attn1", 4, 1), Wrong(factor), room)

    def forward(self, x: Tensor) -> Tensor:
        return self.seat(x)  # type: ignore[no-any-return]


def test_a_mixer_that_breaches_its_definition_is_named() -> None:
    assert first_breach(Plain(1.0)) == ""
    assert first_breach(Plain(2.0)) == (
        "Wrong at block.attn1 is 1.0e+00 off its definition on a 7x13 grid (torch.float32, cpu): "
        "it is not timed until they agree"
    )


def test_not_a_number_is_a_breach() -> None:
    assert "off its definition" in breach(Wrong(float("nan")), Site("block.attn1", 4, 1), torch.ones(1))


SITE = Site("block.attn1", 4, 1)


def trial_of(factor: float, batch: int = 3) -> SimpleNamespace:
    """A trial whose denoiser is one seat; the teacher's attention there is the identity."""

    @contextmanager
    def denoiser(factory=None):  # type: ignore[no-untyped-def]
        plain = Plain(factor)
        if factory is not None:
            plain.seat.mixer = factory(SITE, nn.Identity())
        yield plain

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
    model = SimpleNamespace(
        example=lambda size, batch=1: {"x": torch.ones(batch, 6, 4)}, generate=lambda *given: torch.ones(1, 3, 8, 8)
    )
    return SimpleNamespace(
        case=case,
        model=model,
        denoiser=denoiser,
        prompts=["a red circle"],
        factory=lambda site, attention: Wrong(factor),
    )


def teacher_alone(latency: Latency, moved: float) -> Reading:
    """The latency of a run whose first case saw a teacher that was faster by a factor."""
    latency.paces.clear()
    first = next(iter(latency(trial_of(1.0))))  # type: ignore[arg-type]
    for key in latency.paces:
        latency.paces[key] = first.details["teacher"]["median"] / moved
    return next(iter(latency(trial_of(1.0))))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def quick_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.metrics.latency.matrix_rate", lambda device, dtype: 1e9)


@pytest.mark.parametrize("metric", [Latency(seconds=0.05), ImageLatency(seconds=0.05)])
def test_a_breach_is_a_dash_with_its_reason(metric: Latency | ImageLatency) -> None:
    readings = list(metric(trial_of(2.0)))  # type: ignore[arg-type]
    assert [reading.name for reading in readings][:1] == [metric.name]
    assert all(reading.value is None for reading in readings)
    assert all("it is not timed until they agree" in reading.reason for reading in readings)


@pytest.mark.parametrize("metric", [Latency(seconds=0.05), ImageLatency(seconds=0.05)])
def test_a_reading_keeps_its_raw_samples_and_what_the_machine_did(metric: Latency | ImageLatency) -> None:
    reading = next(iter(metric(trial_of(1.0))))  # type: ignore[arg-type]
    assert reading.name == metric.name
    assert reading.value == statistics.median(reading.samples)
    assert reading.n == len(reading.samples) >= 6
    assert reading.low is not None
    assert reading.high is not None
    assert reading.low <= reading.value <= reading.high
    assert {"p90", "threads", "load_average", "other_cores", "noisy", "first_call"} <= set(reading.details)


def test_the_ratio_to_the_teacher_is_a_reading_of_its_own() -> None:
    latency, ratio = Latency(seconds=0.05)(trial_of(1.0))  # type: ignore[arg-type]
    assert (ratio.metric, ratio.name, ratio.unit, ratio.better) == ("latency", "latency_ratio", "x", "lower")
    assert ratio.n == len(ratio.samples) == len(ratio.details["teacher_ms"])
    assert ratio.low < ratio.value < ratio.high  # type: ignore[operator]
    assert latency.details["teacher"]["median"] == statistics.median(ratio.details["teacher_ms"])
    assert latency.details["teacher"]["moved"] == 0


def test_a_teacher_that_is_too_slow_for_its_share_is_not_called() -> None:
    """Six tokens of four channels are 1344 FLOPs: at a rate of one a second they take 22 minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.metrics.latency.matrix_rate", lambda device, dtype: 1.0)
        latency, ratio = Latency(seconds=0.05)(trial_of(1.0))  # type: ignore[arg-type]
    assert latency.value is not None
    assert "teacher" not in latency.details
    assert ratio.value is None
    assert ratio.reason.startswith("the teacher's call needs at least 1.3e+03 s beside ")
    assert ratio.reason.endswith(" s, too long for 6 pairs in seconds=0.05")


def test_a_teacher_that_changed_its_pace_within_the_run_is_said() -> None:
    told = teacher_alone(Latency(seconds=0.05), moved=100.0)
    assert told.details["teacher"]["moved"] > 10
    assert "the teacher's own call is +" in told.details["noisy"]
    assert "off the first case of this run" in told.details["noisy"]


@pytest.mark.parametrize(("batch", "said"), [(1, "batch 1,"), (2, "batch 2,"), (None, "batch 3,")])
def test_a_call_has_one_image_unless_told_otherwise(batch: int | None, said: str) -> None:
    latency, ratio = Latency(seconds=0.02, batch=batch)(trial_of(1.0))  # type: ignore[arg-type]
    assert said in latency.protocol
    assert said in ratio.protocol


@pytest.mark.parametrize("metric", [Latency, MixersLatency, MixerBench])
def test_a_batch_without_images_is_refused(metric: type) -> None:
    with pytest.raises(BadInput, match=r"batch=0 is not possible: give at least 1, or null for the case's"):
        metric(batch=0)
