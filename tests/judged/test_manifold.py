"""Precision, recall, density and coverage: by definition, by sets whose answer is known, and what they refuse."""

import math

import pytest
import torch
from torch import Tensor

from harness.judged import manifold
from harness.judged.manifold import density_coverage, precision_recall


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x, y, k):
    """All four, pair by pair."""

    def distance(a, b):
        return math.sqrt(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)))

    def radius(z):
        return [sorted(distance(a, b) for j, b in enumerate(z) if j != i)[k - 1] for i, a in enumerate(z)]

    x, y = x.tolist(), y.tolist()
    rx, ry = radius(x), radius(y)
    inside = [[distance(a, b) < r for b, r in zip(y, ry, strict=True)] for a in x]
    precision = sum(any(row) for row in inside) / len(x)
    recall = sum(any(distance(a, b) <= r for a, r in zip(x, rx, strict=True)) for b in y) / len(y)
    density = sum(sum(row) for row in inside) / (k * len(x))
    coverage = sum(any(row[j] for row in inside) for j in range(len(y))) / len(y)
    return precision, recall, density, coverage


@pytest.mark.parametrize(("n", "m", "d", "k"), [(30, 20, 2, 3), (15, 40, 5, 5), (7, 9, 30, 1)])
def test_all_four_are_their_definitions_whatever_the_block(n, m, d, k, monkeypatch):
    x_ND, y_MD = drawn(n, d) * 0.8 + 0.3, drawn(m, d, seed=1)
    expected = by_definition(x_ND, y_MD, k)
    assert (*precision_recall(x_ND, y_MD, k), *density_coverage(x_ND, y_MD, k)) == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(manifold, "BLOCK", 4)
    assert (*precision_recall(x_ND, y_MD, k), *density_coverage(x_ND, y_MD, k)) == pytest.approx(expected, rel=1e-6)


def test_equal_sets_overlap_wholly():
    x_ND = drawn(50, 8)
    assert precision_recall(x_ND, x_ND.flip(0)) == (1.0, 1.0)
    density, coverage = density_coverage(x_ND, x_ND.flip(0))
    assert coverage == 1.0
    assert density == pytest.approx(1.0)  # a ball holds its centre and k - 1 neighbours; the k-th is on the surface


def test_sets_far_apart_do_not_overlap():
    x_ND = drawn(50, 8)
    assert precision_recall(x_ND, x_ND + 100) == (0.0, 0.0)
    assert density_coverage(x_ND, x_ND + 100) == (0.0, 0.0)


def test_one_kind_of_image_is_precise_and_recalls_little():
    y_MD = torch.cat([drawn(50, 4), drawn(50, 4, seed=1) + 50])
    precision, recall = precision_recall(drawn(50, 4, seed=2), y_MD)
    assert precision > 0.8
    assert recall <= 0.5
    assert density_coverage(drawn(50, 4, seed=2), y_MD)[1] <= 0.5


def test_a_collapsed_set_recalls_only_what_it_shows():
    y_MD = drawn(50, 4)
    x_ND = y_MD[:1].expand(50, 4)
    assert precision_recall(x_ND, y_MD) == (1.0, 1 / 50)
    assert precision_recall(torch.ones(9, 3), torch.ones(9, 3)) == (1.0, 1.0)


def test_features_far_from_zero_keep_their_neighbours():
    x_ND, y_MD = drawn(60, 4) * 0.9, drawn(60, 4, seed=1)
    near = (*precision_recall(x_ND, y_MD), *density_coverage(x_ND, y_MD))
    far = (*precision_recall(x_ND + 1e4, y_MD + 1e4), *density_coverage(x_ND + 1e4, y_MD + 1e4))
    assert far == pytest.approx(near)


@pytest.mark.parametrize(
    ("x_ND", "y_MD", "k", "sentence"),
    [
        (torch.ones(5, 3), torch.ones(50, 3), 5, "have no 5-th neighbour: give at least 6"),
        (torch.ones(9, 3), torch.ones(9, 3), 0, "have no 0-th neighbour"),
        (torch.full((9, 3), math.nan), torch.ones(9, 3), 5, "not finite"),
        (torch.ones(9, 3), torch.ones(9, 2), 5, "have no distance"),
    ],
)
def test_what_has_no_neighbours_is_refused(x_ND, y_MD, k, sentence):
    with pytest.raises(ValueError, match=sentence):
        precision_recall(x_ND, y_MD, k)
    with pytest.raises(ValueError, match=sentence):
        density_coverage(x_ND, y_MD, k)
