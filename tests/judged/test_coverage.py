"""Do 95 % intervals hold the truth in 95 of 100 runs? Runs are drawn from a known population.

Each of 200 runs is judged as a metric judges it. An interval is about what the metric gives on average at that many
images: of a CLIP score the mean of the population, of FDD and DS their mean over draws, biases of few images included.
With 200 runs, coverage is known to 1.5 percentage points (one standard error, binomial).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from known_rows import rows_alone, trial  # noqa: F401, the first is a fixture
from torch import Tensor

from harness.judged.clip_score import ClipScore
from harness.judged.dino_score import DinoScore, inception_form
from harness.judged.fdd import Fdd
from harness.judged.frechet import frechet_distance
from harness.records.record import Reading

pytestmark = pytest.mark.usefixtures("rows_alone")
RUNS = 200
DRAWS = 2000
"""Of which the truth of a number that only a set has is known to a fortieth of its spread, and better."""


@dataclass(frozen=True)
class Population:
    """Images lie near their reference, with heavy tails; the spread of feature i falls as 1 / i where it `falls`."""

    features: int
    classes: int
    falls: bool

    def sets(self, n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """(n, D) features of images, and of their references."""
        spread_D = torch.arange(1, self.features + 1) ** -(0.5 * self.falls)
        shared, noise = torch.randn(2, n, self.features, generator=source)
        return (1.2 * (0.8 * shared + 0.6 * noise) + 0.2 * noise**2) * spread_D, shared * spread_D

    def logits(self, n: int, source: torch.Generator) -> Tensor:
        """(n, K), of which some classes are seen far more often than others."""
        favour_K = torch.linspace(3, -3, self.classes) * self.falls
        return 3 * torch.randn(n, self.classes, generator=source) + favour_K

    def embeddings(self, n: int, source: torch.Generator) -> Tensor:
        """(n, 2), beside a text of (1, 0): most agree, a few are far off."""
        return torch.cat([torch.ones(n, 1), 0.3 * torch.randn(n, 1, generator=source) ** 2], dim=1)


SMALL = Population(features=8, classes=12, falls=False)
WHOLE = Population(features=128, classes=72, falls=True)
"""As many features and classes as the extractors of the embedded world have."""


def readings(metric, population: Population, n: int) -> Iterator[Reading]:
    """Of RUNS fresh samples."""
    source = torch.Generator().manual_seed(n)
    for _ in range(RUNS):
        if metric.name == "fdd":
            features, references = population.sets(n, source)
            yield from metric(trial(features=features, references=references))
        elif metric.name == "ds":
            yield from metric(trial(logits=population.logits(n, source)))
        else:
            texts = torch.tensor([[1.0, 0.0]]).expand(n, 2)
            yield from metric(trial(embeddings=population.embeddings(n, source), texts=texts))


def truth(metric, population: Population, n: int) -> float:
    """What its intervals are about: by quadrature, or the mean over other draws."""
    source = torch.Generator().manual_seed(10**6 + n)
    if metric.name == "clip_score":
        z = np.linspace(-9, 9, 200_001)
        score = 100 / np.sqrt(1 + 0.09 * z**4)
        return float(np.trapezoid(score * np.exp(-(z**2) / 2), z) / np.sqrt(2 * np.pi))
    draw: Callable[[], float] = {
        "fdd": lambda: frechet_distance(*population.sets(n, source)),
        "ds": lambda: inception_form(population.logits(n, source), splits=10),
    }[metric.name]
    return sum(draw() for _ in range(DRAWS)) / DRAWS


def covered(metric, population: Population, n: int) -> float:
    """The share of intervals that hold the truth."""
    known = truth(metric, population, n)
    return sum(reading.low <= known <= reading.high for reading in readings(metric, population, n)) / RUNS


@pytest.mark.parametrize("n", [64, 512])
@pytest.mark.parametrize("metric", [DinoScore(), Fdd(), ClipScore()], ids=lambda metric: metric.name)
def test_intervals_cover_what_they_promise(metric, n):
    assert 0.92 <= covered(metric, SMALL, n) <= 0.98


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("n", [50, 64, 512])
@pytest.mark.parametrize("metric", [DinoScore(), Fdd(), ClipScore()], ids=lambda metric: metric.name)
def test_intervals_cover_what_they_promise_with_as_many_features_and_classes_as_extractors_have(metric, n):
    assert 0.92 <= covered(metric, WHOLE, n) <= 0.98
