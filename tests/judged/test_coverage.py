"""Do 95 % intervals hold the truth in 95 of 100 runs? Runs are drawn from a known population, small and ready-made.

Each run of 200 is judged as a metric judges it. With 200 runs, coverage is known to 1.5 percentage points (one sigma).
"""

from types import SimpleNamespace

import pytest
import torch

from harness.judged.clip_score import ClipScore
from harness.judged.dino_score import DinoScore
from harness.judged.fdd import Fdd
from harness.records.case import Resolution

RUNS = 200
FEATURES, CLASSES = 8, 12


def runs(metric, n, monkeypatch):
    """Readings of `metric` of RUNS fresh samples of n prompts: images lie near their reference, with heavy tails."""
    source = torch.Generator().manual_seed(n)

    def drawn(*shape):
        return torch.randn(*shape, generator=source)

    for _ in range(RUNS):
        shared, noise = drawn(2 * n, FEATURES), drawn(n, FEATURES)
        made = 1.2 * (0.8 * shared[:n] + 0.6 * noise) + 0.2 * noise**2
        logits = 3 * drawn(n, CLASSES)
        pairs = torch.cat([torch.ones(n, 1), 0.3 * drawn(n, 1) ** 2], dim=1)
        dino = SimpleNamespace(
            protocol="d",
            logits_protocol="l",
            features=lambda rows: rows,
            logits=lambda rows, found=logits: found,
        )
        clip = SimpleNamespace(
            protocol="c",
            texts=lambda prompts: torch.tensor([[1.0, 0.0]]).expand(n, 2),
            images=lambda rows, found=pairs: found,
        )
        yield from metric(
            SimpleNamespace(
                case=SimpleNamespace(n=n, variant="v", model="m", resolution=Resolution(8, 8)),
                world=SimpleNamespace(
                    name="w",
                    dino=dino,
                    clip=clip,
                    prompts=lambda count: [f"{i}" for i in range(count)],
                    pictured=metric.name == "fdd",
                    held=lambda count: count,
                ),
                rows=lambda reader, made=made: reader.read(made),
                reference_rows=lambda reader, count, shared=shared: reader.read(shared[:count]),
                references=lambda count, shared=shared: shared[:count],
                real=SimpleNamespace(once=lambda made_of, rows, compute: compute()),
                prompts=[f"{i}" for i in range(n)],
                trained=True,
                untrained_allowed=False,
            )
        )


@pytest.mark.parametrize("n", [64, 512])
@pytest.mark.parametrize("metric", [DinoScore(), Fdd(), ClipScore()], ids=lambda metric: metric.name)
def test_intervals_cover_what_they_promise(metric, n, monkeypatch):
    if metric.name == "fdd":
        monkeypatch.setattr("harness.judged.fdd.split_half_floor", lambda y, count: (0.0, count))
        monkeypatch.setattr("harness.judged.fdd.untrusted_distance", lambda images, distance: "")  # rows are no images
    found = list(runs(metric, n, monkeypatch))
    truth = sum(reading.value for reading in found) / RUNS
    covered = sum(reading.low <= truth <= reading.high for reading in found) / RUNS
    assert 0.92 <= covered <= 0.98
