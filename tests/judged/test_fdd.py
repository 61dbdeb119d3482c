"""FDD: its floor, its interval, its reading, and what it refuses."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.judged import left_out
from harness.judged.fdd import Fdd, reading_of, split_half_floor
from harness.judged.frechet import arrays, frechet_distance
from harness.judged.left_out import without
from harness.records.case import Resolution
from harness.records.groups import dealt


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_floor_is_about_the_bias_of_the_means_and_more() -> None:
    y_MD = drawn(400, 8)
    floor, half = split_half_floor(y_MD, 1000)
    assert half == 200
    assert 0.25 * 8 * (2 / 200) < floor < 10 * 8 * (2 / 200)
    assert split_half_floor(y_MD, 50)[1] == 50


def test_kinds_of_prompts_that_take_turns_are_spread_over_the_groups_and_halves() -> None:
    kind_N = torch.arange(512) % 4
    group_N, _ = dealt(range(512))
    assert all(set(kind_N[torch.from_numpy(group_N == group)].tolist()) == {0, 1, 2, 3} for group in range(20))
    far_apart_ND = kind_N[:, None] * 100.0 + drawn(512, 2)
    floor, _ = split_half_floor(far_apart_ND, 256)
    assert floor < frechet_distance(far_apart_ND[0::2], far_apart_ND[1::2]) / 10


@pytest.mark.parametrize(("n", "d"), [(200, 6), (200, 150), (30, 40)])
def test_the_distance_without_groups_is_that_of_the_other_images(n, d):
    x_ND, y_MD = drawn(n, d) * 1.2 + 0.1, drawn(n, d, seed=1)
    group_N, group_M = dealt(range(n), range(n))
    take = without(*arrays(x_ND, y_MD), group_N, group_M)
    for gone in (set(), {3}, {0, 7}):
        kept = ~np.isin(group_N, sorted(gone))
        exact = frechet_distance(x_ND[kept], y_MD[kept])
        assert take(frozenset(gone)) == pytest.approx(exact, rel=1e-9)


def test_with_many_features_the_derivative_spreads_as_the_distances_do(monkeypatch):
    """Their common shift, of second order, is of no account in a jackknife."""
    x_ND, y_MD = drawn(400, 12) * 1.2 + 0.1, drawn(400, 12, seed=1)
    groups = dealt(range(400), range(400))
    exact = without(*arrays(x_ND, y_MD), *groups)
    monkeypatch.setattr(left_out, "FEW", 2)
    moved = without(*arrays(x_ND, y_MD), *groups)
    assert moved(frozenset()) == pytest.approx(frechet_distance(x_ND, y_MD), rel=1e-9)
    one, other = (torch.tensor([take(frozenset({group})) for group in range(20)]) for take in (exact, moved))
    assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.98
    assert float(other.std() / one.std()) == pytest.approx(1, abs=0.1)


def test_singular_covariances_are_taken_again_also_with_many_features(monkeypatch):
    monkeypatch.setattr(left_out, "FEW", 2)
    x_ND = drawn(100, 3) @ drawn(3, 5, seed=4)
    groups = dealt(range(100), range(100))
    take = without(*arrays(x_ND, x_ND + 1), *groups)
    assert take(frozenset({1})) == pytest.approx(5, rel=1e-6)


def named(n: int) -> list[str]:
    return [f"prompt {i}" for i in range(n)]


def trial(
    images: Tensor, held: Tensor, trained: bool = True, untrained_allowed: bool = False, pictured: bool = True
) -> Any:
    """A trial whose extractor averages pixels over columns, in a world that holds so many real images."""

    dino = SimpleNamespace(protocol="mean@0", features=lambda images: images.mean(dim=-1).flatten(1).double())
    return SimpleNamespace(
        case=SimpleNamespace(n=len(images), variant="deltaconv", model="tiny_sd", resolution=Resolution(4, 4)),
        world=SimpleNamespace(
            name="noise", dino=dino, prompts=named, pictured=pictured, held=lambda n: min(n, len(held))
        ),
        rows=lambda reader: reader.read(images),
        reference_rows=lambda reader, n: reader.read(held[:n]),
        references=lambda n: held[:n],
        real=SimpleNamespace(once=lambda made_of, rows, compute: compute()),
        prompts=named(len(images)),
        trained=trained,
        untrained_allowed=untrained_allowed,
    )


def noise(n: int, seed: int) -> Tensor:
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_a_reading_of_fdd_holds_interval_floor_and_protocol() -> None:
    (reading,) = Fdd()(trial(noise(100, 0), noise(250, 1)))
    assert reading.name == "fdd"
    assert reading.better == "lower"
    assert reading.n == 100
    assert reading.value is not None
    assert reading.low is not None
    assert reading.high is not None
    assert 0 <= reading.low < reading.value < reading.high
    assert reading.protocol == "fdd mean@0 ref=noise n=100/100"
    assert reading.details["floor_n"] == 100
    assert len(reading.details["replicates"]) == 20
    assert "warning" not in reading.details


def test_worse_images_are_farther_away_than_the_floor() -> None:
    (same,) = Fdd()(trial(noise(300, 0), noise(600, 1)))
    (dark,) = Fdd()(trial(noise(300, 0) * 0.5, noise(600, 1)))
    assert same.details["floor_n"] == 300
    assert same.value is not None
    assert dark.value is not None
    assert same.value < 2 * same.details["floor"] < dark.value


def test_too_few_images_for_the_features_are_reported_with_a_warning() -> None:
    reading = reading_of("fdd", drawn(30, 40), drawn(50, 40, seed=1), (named(30), named(50)), "", (1.0, 25))
    assert reading.value is not None
    assert reading.details["warning"].startswith("30 images do not span 40 features")


def test_too_few_images_have_no_fdd() -> None:
    (reading,) = Fdd()(trial(noise(16, 0), noise(16, 1)))
    assert reading.value is None
    assert reading.reason == "n = 16 images are too few for this number: ask for at least 50 (n=50)"


def test_an_untrained_student_is_asked_for_no_image() -> None:
    refused = trial(noise(100, 0), noise(100, 1), trained=False)
    refused.rows = lambda reader: pytest.fail("made images")
    (reading,) = Fdd()(refused)
    assert reading.value is None
    assert "an untrained student has no quality" in reading.reason


def test_an_untrained_student_has_a_number_when_asked_for_in_so_many_words() -> None:
    (reading,) = Fdd()(trial(noise(100, 0), noise(100, 1), trained=False, untrained_allowed=True))
    assert reading.value is not None


def test_images_that_are_not_finite_have_no_fdd() -> None:
    images = noise(100, 0)
    images[3, 0, 0, 0] = math.nan
    (reading,) = Fdd()(trial(images, noise(100, 1)))
    assert reading.value is None
    assert "not finite" in reading.reason


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_error_is_the_spread_over_fresh_prompts_whether_images_follow_their_references_or_not(alike: float) -> None:
    """Within a factor of 1.6: 40 draws know their spread to 11 %, a jackknife of 20 groups to 16 %, each one sigma."""

    def sets(seed: int) -> tuple[Tensor, Tensor]:
        y_MD = drawn(200, 4, seed=seed)
        return 1.5 * (alike * y_MD + math.sqrt(1 - alike**2) * drawn(200, 4, seed=seed + 1000)), y_MD

    real = torch.tensor([frechet_distance(*sets(seed)) for seed in range(40)]).std()
    details = reading_of("fdd", *sets(77), (named(200), named(200)), "", (0.0, 1)).details
    assert real / 1.6 < details["error"] < real * 1.6


def test_a_floor_of_fewer_images_is_said():
    (reading,) = Fdd()(trial(noise(100, 0), noise(150, 1)))
    assert reading.details["floor_n"] == 75
    assert "the floor is taken of 75 images, not 100" in reading.details["warning"]


def test_prompts_alone_have_no_fdd_and_say_so():
    (reading,) = Fdd()(trial(noise(100, 0), noise(100, 1), pictured=False))
    assert reading.value is None
    assert reading.reason == "world noise holds prompts alone: there are no images to compare with"
