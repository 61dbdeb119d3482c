"""FDD: closed forms of the Fréchet distance, its floor, its interval, and what it refuses."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.judged.frechet import Fdd, Moments, frechet_distance, reading_of, split_half_floor
from harness.records.case import BadInput, Resolution
from harness.records.statistics import dealt

EXACT = 1e-9
"""Float64 rounding on values of the order of one."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean_D: Tensor, covariance_DD: Tensor, n: int = 200, seed: int = 0) -> Tensor:
    """A sample whose mean and covariance are exactly those."""
    x_ND = drawn(n, len(mean_D), seed=seed)
    x_ND = x_ND - x_ND.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x_ND.T @ x_ND / (n - 1)), x_ND.T, upper=False).T
    sample_ND: Tensor = white @ torch.linalg.cholesky(covariance_DD).T + mean_D
    return sample_ND


@pytest.mark.parametrize("n", [2, 7, 40, 300])
def test_a_set_is_at_distance_zero_from_itself_also_with_fewer_images_than_features(n: int) -> None:
    x_ND = drawn(n, 64) * 5
    assert frechet_distance(x_ND, x_ND) <= EXACT * 64 * 25
    assert frechet_distance(x_ND, x_ND.flip(0)) <= EXACT * 64 * 25


def test_the_distance_of_known_normal_distributions() -> None:
    zero, one = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    variances = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    shift = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    x_ND, y_ND = with_moments(zero, one), with_moments(shift, variances.diag(), seed=1)
    expected = float(shift.square().sum() + (variances.sqrt() - 1).square().sum())
    assert frechet_distance(x_ND, y_ND) == pytest.approx(expected, rel=EXACT)


def test_covariances_that_do_not_commute_agree_with_the_eigenvalues_of_their_product() -> None:
    x_ND, y_MD = drawn(90, 11) @ drawn(11, 11, seed=1), drawn(70, 11, seed=2) @ drawn(11, 11, seed=3) + 1
    a, b = torch.cov(x_ND.T), torch.cov(y_MD.T)
    root = torch.linalg.eigvals(a @ b).sqrt().real.sum()
    expected = (x_ND.mean(0) - y_MD.mean(0)).square().sum() + a.trace() + b.trace() - 2 * root
    assert frechet_distance(x_ND, y_MD) == pytest.approx(float(expected), rel=1e-8)


class Flat(nn.Module):
    """Bytes of an image as its features."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = images.double().flatten(1)
        return features


def test_it_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    source = torch.Generator().manual_seed(0)
    x_N3HW = torch.randint(0, 256, (60, 3, 2, 2), dtype=torch.uint8, generator=source)
    y_N3HW = torch.randint(0, 128, (50, 3, 2, 2), dtype=torch.uint8, generator=source)
    theirs = FrechetInceptionDistance(Flat(), input_img_size=(3, 2, 2))
    theirs.update(x_N3HW, real=True)
    theirs.update(y_N3HW, real=False)
    ours = frechet_distance(Flat()(x_N3HW), Flat()(y_N3HW))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-6)  # they return float32


def test_with_fewer_images_than_features_it_is_the_nuclear_norm_of_the_cross_product() -> None:
    x_ND, y_MD = drawn(9, 50), drawn(13, 50, seed=1) + 0.1
    a, b = (x - x.mean(0) for x in (x_ND, y_MD))
    shared = torch.linalg.svdvals(a @ b.T).sum() / math.sqrt(8 * 12)
    expected = (x_ND.mean(0) - y_MD.mean(0)).square().sum() + a.square().sum() / 8 + b.square().sum() / 12 - 2 * shared
    assert frechet_distance(x_ND, y_MD) == pytest.approx(float(expected), rel=EXACT)


def test_it_is_symmetric_and_blind_to_a_common_rotation_and_translation() -> None:
    x_ND, y_MD = drawn(40, 6), drawn(30, 6, seed=1) * 2
    rotation, shift = torch.linalg.qr(drawn(6, 6, seed=2)).Q, drawn(6, seed=3)
    value = frechet_distance(x_ND, y_MD)
    assert frechet_distance(y_MD, x_ND) == pytest.approx(value, rel=EXACT)
    assert frechet_distance(x_ND @ rotation + shift, y_MD @ rotation + shift) == pytest.approx(value, rel=1e-8)


def test_a_translation_of_one_set_adds_its_squared_length() -> None:
    x_ND, shift = drawn(40, 6), drawn(6, seed=3)
    assert frechet_distance(x_ND, x_ND + shift) == pytest.approx(float(shift.square().sum()), rel=EXACT)


def test_features_in_float32_with_a_large_common_offset_keep_their_digits() -> None:
    x_ND = (drawn(50, 4) + 1000).float()
    assert frechet_distance(x_ND, x_ND + 1) == pytest.approx(4.0, rel=1e-6)


def test_constant_features_have_the_distance_of_their_means() -> None:
    assert frechet_distance(torch.ones(5, 3), torch.zeros(4, 3)) == pytest.approx(3.0, rel=EXACT)


@pytest.mark.parametrize(
    ("x_ND", "y_MD", "sentence"),
    [
        (torch.zeros(1, 3), torch.zeros(4, 3), "have no covariance"),
        (torch.zeros(4, 3), torch.zeros(4, 2), "unlike sizes"),
        (torch.full((4, 3), math.nan), torch.zeros(4, 3), "not finite"),
    ],
)
def test_what_has_no_distance_is_refused(x_ND: Tensor, y_MD: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        frechet_distance(x_ND, y_MD)


def test_the_floor_is_about_the_bias_of_the_means_and_more() -> None:
    y_MD = drawn(400, 8)
    floor, half = split_half_floor(y_MD, 1000)
    assert half == 200
    assert 0.25 * 8 * (2 / 200) < floor < 10 * 8 * (2 / 200)
    assert split_half_floor(y_MD, 50)[1] == 50


def test_kinds_of_prompts_that_take_turns_are_spread_over_the_groups_and_halves() -> None:
    kind_N = torch.arange(512) % 4
    group_N = torch.from_numpy(dealt(range(512)))
    assert all(set(kind_N[group_N == group].tolist()) == {0, 1, 2, 3} for group in range(20))
    far_apart_ND = kind_N[:, None] * 100.0 + drawn(512, 2)
    floor, _ = split_half_floor(far_apart_ND, 256)
    assert floor < frechet_distance(far_apart_ND[0::2], far_apart_ND[1::2]) / 10


def named(n: int) -> list[str]:
    return [f"prompt {i}" for i in range(n)]


def trial(images: Tensor, held: Tensor, trained: bool = True, untrained_allowed: bool = False) -> Any:
    """A trial whose extractor averages pixels over columns, in a world that holds so many real images."""

    def references(n: int | None = None) -> Tensor:
        if (n or len(images)) > len(held):
            raise BadInput("too few")
        return held[: n or len(images)]

    dino = SimpleNamespace(protocol="mean@0", features=lambda images: images.mean(dim=-1).flatten(1).double())
    return SimpleNamespace(
        case=SimpleNamespace(n=len(images), variant="deltaconv", model="tiny_sd", resolution=Resolution(4, 4)),
        world=SimpleNamespace(name="noise", dino=dino, prompts=named),
        images=lambda: images,
        references=references,
        prompts=named(len(images)),
        trained=trained,
        untrained_allowed=untrained_allowed,
    )


def noise(n: int, seed: int) -> Tensor:
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_a_reading_of_fdd_holds_interval_floor_and_protocol() -> None:
    (reading,) = Fdd()(trial(noise(100, 0), noise(150, 1)))
    assert reading.name == "fdd"
    assert reading.better == "lower"
    assert reading.n == 100
    assert reading.value is not None
    assert reading.low is not None
    assert reading.high is not None
    assert 0 <= reading.low < reading.value < reading.high
    assert reading.protocol == "fdd mean@0 ref=noise n=100/100"
    assert reading.details["floor_n"] == 50
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
    assert reading.reason == "n = 16 images are too few for this number: ask for at least 64 (n=64)"


def test_an_untrained_student_is_asked_for_no_image() -> None:
    refused = trial(noise(100, 0), noise(100, 1), trained=False)
    refused.images = lambda: pytest.fail("made images")
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


def test_moments_of_the_same_features_are_the_same_whatever_their_precision() -> None:
    x_ND = drawn(20, 3).float()
    assert torch.equal(Moments.of(x_ND).covariance_DD, Moments.of(x_ND.double()).covariance_DD)
