"""DS: the Inception-Score form by known answers, and the reading."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.judged.dino_score import DinoScore, inception_form


def certain(classes: list[int], of: int) -> Tensor:
    """Logits that leave no doubt."""
    return torch.nn.functional.one_hot(torch.tensor(classes), of).float() * 1e4


def drawn(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_classes_that_say_nothing_score_one(splits: int) -> None:
    assert inception_form(torch.zeros(30, 7), splits) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_certain_and_evenly_spread_classes_score_their_number(classes: int) -> None:
    assert inception_form(certain(list(range(classes)) * 5, classes), splits=1) == pytest.approx(classes, rel=1e-12)


def test_logits_of_minus_infinity_are_certainty_too() -> None:
    logits_NK = torch.full((4, 2), -math.inf)
    logits_NK[[0, 1], 0] = 0.0
    logits_NK[[2, 3], 1] = 0.0
    assert inception_form(logits_NK, splits=1) == pytest.approx(2.0, rel=1e-12)


def test_one_certain_class_scores_one() -> None:
    assert inception_form(certain([3] * 20, 5), splits=2) == pytest.approx(1.0, abs=1e-12)


def test_the_score_is_the_mean_over_consecutive_splits() -> None:
    logits_NK = certain([0] * 10 + [0, 1] * 5, 2)
    assert inception_form(logits_NK, splits=2) == pytest.approx((1 + 2) / 2, rel=1e-12)


def test_two_distributions_by_hand() -> None:
    p, q = 0.9, 0.1
    divergence = p * math.log(p / 0.5) + q * math.log(q / 0.5)
    logits_NK = torch.tensor([[p, q], [q, p]], dtype=torch.float64).log()
    assert inception_form(logits_NK, splits=1) == pytest.approx(math.exp(divergence), rel=1e-12)


def test_the_score_ignores_what_softmax_ignores_and_the_order_within_a_split() -> None:
    logits_NK = drawn(50, 6)
    value = inception_form(logits_NK, splits=1)
    assert inception_form(logits_NK + 17.0, splits=1) == pytest.approx(value, rel=1e-5)  # the shift costs digits
    assert inception_form(logits_NK.flip(0), splits=1) == pytest.approx(value, rel=1e-12)


def test_it_agrees_with_torchmetrics_on_the_same_shuffle() -> None:
    from torchmetrics.image.inception import InceptionScore

    logits_NK = drawn(40, 6)
    torch.manual_seed(0)
    order = torch.randperm(40)
    torch.manual_seed(0)
    theirs = InceptionScore.compute(SimpleNamespace(features=[logits_NK], splits=4))[0]
    assert inception_form(logits_NK[order], splits=4) == pytest.approx(float(theirs), rel=1e-5)  # theirs is float32


@pytest.mark.parametrize(("n", "splits"), [(9, 10), (5, 0)])
def test_splits_that_cannot_be_filled_are_refused(n: int, splits: int) -> None:
    with pytest.raises(ValueError, match="splits"):
        inception_form(torch.zeros(n, 3), splits)


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not numbers"):
        inception_form(torch.full((10, 3), math.nan))


def trial(logits_NK: Tensor, trained: bool = True) -> Any:
    n = len(logits_NK)
    dino = SimpleNamespace(logits_protocol="vit@0 head=own", logits=lambda images: logits_NK)
    return SimpleNamespace(
        case=SimpleNamespace(n=n, variant="linfusion", model="tiny_sd"),
        world=SimpleNamespace(name="shapes", dino=dino, pictured=False),
        rows=lambda reader: reader.read(torch.zeros(n, 3, 2, 2)),
        prompts=[str(i) for i in range(n)],
        trained=trained,
        untrained_allowed=False,
    )


def test_a_reading_of_ds_holds_interval_ceiling_and_protocol() -> None:
    (reading,) = DinoScore()(trial(drawn(200, 12)))
    assert reading.name == "ds"
    assert reading.better == "higher"
    assert reading.value is not None
    assert reading.low is not None
    assert reading.high is not None
    assert 1 <= reading.low < reading.value < reading.high
    assert reading.protocol == "ds vit@0 head=own splits=10 shuffle=0 n=200"
    assert reading.details["ceiling"] == 12
    assert sum(reading.details["parts"]) / 10 == pytest.approx(reading.value)


def test_prompts_in_blocks_of_one_kind_do_not_lower_the_score() -> None:
    (reading,) = DinoScore()(trial(certain([i // 50 for i in range(200)], 4)))
    assert reading.value is not None
    assert reading.value > 3.5  # consecutive splits without the shuffle would each hold one class and score 1


def test_an_untrained_student_has_no_ds() -> None:
    (reading,) = DinoScore()(trial(drawn(200, 12), trained=False))
    assert reading.value is None
    assert "untrained" in reading.reason


def test_too_few_images_have_no_ds() -> None:
    (reading,) = DinoScore(splits=100)(trial(drawn(80, 12)))
    assert reading.value is None
    assert "ask for at least 200" in reading.reason
