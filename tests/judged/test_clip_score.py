"""CLIP score: known vectors, and the reading."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.judged.clip_score import ClipScore, clip_score
from harness.records.case import Resolution


def test_known_vectors_have_known_scores() -> None:
    image_ND = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    text_ND = torch.tensor([[5.0, 0.0], [4.0, 3.0], [0.0, 2.0], [1.0, 0.0]])
    expected = torch.tensor([100.0, 96.0, 0.0, 100 / 2**0.5], dtype=torch.float64)
    torch.testing.assert_close(clip_score(image_ND, text_ND), expected, rtol=1e-12, atol=1e-12)


def test_each_image_is_clamped_not_the_mean() -> None:
    scores = clip_score(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert scores.tolist() == [100.0, 0.0]
    assert scores.mean() == 50.0


def test_equal_embeddings_score_exactly_one_hundred_at_most() -> None:
    embeddings = torch.randn(200, 37, generator=torch.Generator().manual_seed(0))
    scores = clip_score(embeddings, embeddings)
    assert scores.max() <= 100
    torch.testing.assert_close(scores, torch.full_like(scores, 100.0), rtol=1e-12, atol=0)


def test_an_embedding_of_zero_fits_nothing() -> None:
    assert clip_score(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0.0


@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((2, 3), (2, 4)), ((3,), (3,))])
def test_what_is_no_pair_is_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        clip_score(torch.ones(shapes[0]), torch.ones(shapes[1]))


def trial(scores: Tensor, trained: bool = True, pictured: bool = True) -> Any:
    """A trial whose image i has the given cosine with its prompt, and whose real images fit theirs exactly."""
    image_ND = torch.stack([scores, (1 - scores.square()).sqrt()], dim=1)
    text_ND = torch.tensor([[1.0, 0.0]]).expand(len(scores), 2)

    def embedded(images: Tensor) -> Tensor:
        return text_ND if images.any() else image_ND

    clip = SimpleNamespace(protocol="clip@0", images=embedded, texts=lambda prompts: text_ND)
    return SimpleNamespace(
        case=SimpleNamespace(
            n=len(scores), variant="neighborhood", model="tiny_sd", seeds=(0,), resolution=Resolution(2, 2)
        ),
        world=SimpleNamespace(name="shapes", clip=clip, pictured=pictured, prompts=lambda n: ["real"] * n),
        rows=lambda reader: reader.read(torch.zeros(len(scores), 3, 2, 2)),
        reference_rows=lambda reader, n: reader.read(torch.ones(n, 3, 2, 2)),
        references=lambda n: torch.ones(n, 3, 2, 2),
        real=SimpleNamespace(once=lambda made_of, rows, compute: compute()),
        prompts=[str(i) for i in range(len(scores))],
        trained=trained,
        untrained_allowed=False,
    )


def test_a_reading_holds_every_image_and_an_interval() -> None:
    cosines = torch.rand(50, generator=torch.Generator().manual_seed(0))
    (reading,) = ClipScore()(trial(cosines))
    assert reading.samples == pytest.approx((100 * cosines).tolist(), rel=1e-4)
    assert reading.value == pytest.approx(sum(reading.samples) / 50)
    assert reading.low is not None
    assert reading.high is not None
    assert reading.low < sum(reading.samples) / 50 < reading.high
    assert reading.details["real"] == pytest.approx(100)
    assert reading.protocol == "clip_score 100*cos>=0 clip@0 n=50"


def test_prompts_alone_have_a_score_but_no_real_one_beside_it() -> None:
    (reading,) = ClipScore()(trial(torch.rand(50), pictured=False))
    assert reading.value is not None
    assert "real" not in reading.details


def test_the_interval_is_the_same_whenever_it_is_taken() -> None:
    cosines = torch.rand(50, generator=torch.Generator().manual_seed(0))
    (first,), (second,) = ClipScore()(trial(cosines)), ClipScore()(trial(cosines))
    assert first == second


def test_an_untrained_student_has_no_clip_score() -> None:
    (reading,) = ClipScore()(trial(torch.rand(50), trained=False))
    assert reading.value is None
    assert "neighborhood has no trained weights on tiny_sd" in reading.reason


def test_too_few_images_have_no_clip_score() -> None:
    (reading,) = ClipScore()(trial(torch.rand(3)))
    assert reading.value is None
    assert "ask for at least 8" in reading.reason
