"""Fréchet distance: closed forms, the two ways to its root, and what it refuses."""

import math

import pytest
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from harness.judged import frechet
from harness.judged.frechet import FEW, Moments, Sums, arrays, frechet_distance, origin, threads_for

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


@pytest.mark.parametrize("fall", [0.0, 0.5, 1.0, 1.5])
def test_both_ways_to_the_root_agree_on_spectra_that_fall(fall):
    """Features of real networks lie near 0.5 to 1; at 1.5 the eigenvalues' way gives way to the other."""
    d, n = 96, 500
    turn = torch.linalg.qr(drawn(d, d, seed=9)).Q
    scale_D = torch.arange(1, d + 1, dtype=torch.float64) ** -fall
    x_ND, y_MD = arrays(drawn(n, d) * scale_D @ turn, drawn(n, d, seed=1) * scale_D @ turn)
    one, other = (Moments.of(Sums.of(z, origin(y_MD))) for z in (x_ND, y_MD))
    quick = frechet._eigenvalue_root(one, other)
    assert quick is not None
    traces = one.covariance_DD.trace() + other.covariance_DD.trace()
    assert quick == pytest.approx(frechet._nuclear_norm(one.factor_RD, other.factor_RD), abs=1e-12 * traces)


def test_a_singular_covariance_takes_the_other_way():
    x_ND, y_MD = drawn(50, 6) @ drawn(6, 10, seed=1), drawn(60, 10, seed=2)
    one, other = (Moments.of(Sums.of(z.numpy(), origin(y_MD.numpy()))) for z in (x_ND, y_MD))
    assert frechet._eigenvalue_root(one, other) is None
    assert frechet._eigenvalue_root(other, one) is None
    a, b = torch.cov(x_ND.T), torch.cov(y_MD.T)
    root = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    expected = (x_ND.mean(0) - y_MD.mean(0)).square().sum() + a.trace() + b.trace() - 2 * root
    assert frechet_distance(x_ND, y_MD) == pytest.approx(float(expected), rel=1e-6)


def test_blocks_and_half_precision_are_read_as_what_they_hold(monkeypatch):
    x_ND, y_MD = drawn(100, 6).half(), drawn(90, 6, seed=1).bfloat16()
    value = frechet_distance(x_ND.double(), y_MD.double())
    monkeypatch.setattr(frechet, "BLOCK", 7)
    assert frechet_distance(x_ND, y_MD) == pytest.approx(value, rel=1e-12)


def test_sums_without_a_part_are_those_of_the_rest():
    x_ND = drawn(40, 5).numpy() + 100
    middle_D = origin(x_ND)
    rest = Moments.of(Sums.of(x_ND, middle_D) - Sums.of(x_ND[:13], middle_D))
    known = Moments.of(Sums.of(x_ND[13:], middle_D))
    assert rest.covariance_DD == pytest.approx(known.covariance_DD, rel=1e-10, abs=1e-12)


def test_a_small_distance_takes_one_thread_and_gives_the_others_back() -> None:
    def threads() -> set[int]:
        return {library["num_threads"] for library in ThreadpoolController().select(internal_api="openblas").info()}

    before = threads()
    with threads_for(FEW):
        assert threads() == {1}
    assert threads() == before
    with threads_for(FEW + 1):
        assert threads() == before
