"""CLIP score: how well an image fits its prompt, 100 x cosine of their CLIP embeddings, clamped at 0 image by image
(torchmetrics clamps the mean). Every image's score stays in the record. Shapes: N images, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from harness.features.clip import ClipExtractor
from harness.features.kept import Reader
from harness.judged.checks import once, some_references, untrusted_score
from harness.judged.margin import Margin
from harness.judged.means import mean_score
from harness.judged.refusal import refusal
from harness.records.record import Reading
from harness.trial import Trial


def clip_score(image_ND: Tensor, text_ND: Tensor) -> Tensor:
    """(N,) scores from 0 to 100 in float64; the embeddings need not have length 1."""
    if image_ND.ndim != 2 or image_ND.shape != text_ND.shape:
        shapes = f"{tuple(image_ND.shape)} and {tuple(text_ND.shape)}"
        raise ValueError(f"embeddings of {shapes} are no pairs: give (N, D) twice")
    return 100 * F.cosine_similarity(image_ND.double(), text_ND.double(), dim=1).clamp(0, 1)


@dataclass(frozen=True)
class ClipScore:
    """Mean CLIP score of a trial's images with their prompts, over prompts; `real`: that of real images."""

    name: str = "clip_score"
    least: int = 8
    margin: Margin = field(default=Margin(share=0.01))
    needs: ClassVar[str] = "weights"

    def readers(self, trial: Trial) -> list[Reader]:
        return [seen_by(trial.world.clip)]

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        why = refusal(trial, max(2, self.least))
        if why:
            yield Reading(self.name, "clip_score", None, "1", "higher", self.name, trial.case.n, reason=why)
            return
        clip, prompts = trial.world.clip, trial.prompts
        texts_ND = clip.texts(prompts)
        scores = clip_score(trial.rows(seen_by(clip)), texts_ND).tolist()
        protocol = f"clip_score 100*cos>=0 {clip.protocol} n={len(scores)}"
        details = real_score(trial) | _doubt(trial)
        reading = mean_score(self.name, "clip_score", "1", "higher", protocol, scores, prompts, details, 0.0, 100.0)
        yield self.margin.beside(reading)


def _doubt(trial: Trial) -> dict[str, Any]:
    """The detail `untrusted`, where real images do not score as they must."""
    if not trial.world.pictured:
        return {}
    clip, real = trial.world.clip, some_references(trial)
    prompts = trial.world.prompts(len(real))
    texts_ND = clip.texts(prompts)
    fits = once(
        trial,
        ["clip_score", clip.protocol, prompts],
        lambda images: float(clip_score(clip.images(images), texts_ND).mean()),
    )
    told = untrusted_score(real, fits)
    own, others = (float(clip_score(clip.images(real), texts).mean()) for texts in (texts_ND, texts_ND.roll(1, 0)))
    if own <= others:
        unlike = f"captions of other images fit as well ({others:.3g}) as their own ({own:.3g})"
        told = f"{told}; {unlike}" if told else unlike
    return {"untrusted": told} if told else {}


def seen_by(clip: ClipExtractor) -> Reader:
    """Its embeddings of images."""
    return Reader(clip.protocol, clip.images)


def real_score(trial: Trial) -> dict[str, Any]:
    """What real images score with their own captions: the detail `real`; nothing where the world has none."""
    if not trial.world.pictured:
        return {}
    count = -(-trial.case.n // len(trial.case.seeds))
    clip = trial.world.clip
    scores_N = clip_score(trial.reference_rows(seen_by(clip), count), clip.texts(trial.world.prompts(count)))
    return {"real": float(scores_N.mean())}
