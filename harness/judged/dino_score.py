"""DS: the Inception-Score form on the classes of a DINO classifier, as ΔConvFusion computes it (arXiv 2504.21292).

    DS = mean over splits of exp( mean_x KL( p(y|x) || p(y) ) )

It needs no references: it rewards confident and diverse classes, not fidelity, so a student may exceed its teacher. It
grows with the images in a split, so n, the splits and the rule for an n that does not divide evenly belong to its
protocol. The spread of the splits, which hold other prompts, is the error of their mean. DreamBooth's DINO score, a
mean cosine of pairs, is another metric. Shapes: N images, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.features.dino import Dino
from harness.features.kept import Reader
from harness.judged.checks import once, some_references, untrusted_score
from harness.judged.margin import Margin
from harness.judged.refusal import refusal
from harness.records.case import at_least
from harness.records.groups import mixed
from harness.records.record import Reading
from harness.records.statistics import mean_of
from harness.trial import Trial


def inception_form(logits_NK: Tensor, splits: int = 10) -> float:
    """Mean over consecutive splits of exp(mean KL(p(y|x) || p(y))), in float64: from 1 to min(K, N / splits)."""
    return float(split_scores(logits_NK, splits).mean())


def split_scores(logits_NK: Tensor, splits: int) -> Tensor:
    """The score of each of the consecutive splits; they differ in size by one image at most."""
    if logits_NK.ndim != 2 or splits < 1 or len(logits_NK) < splits:
        raise ValueError(f"logits of {tuple(logits_NK.shape)} cannot fill {splits} splits: give (N, K), N >= splits")
    if logits_NK.isnan().any():
        raise ValueError("logits hold values that are not numbers")
    p_NK = logits_NK.detach().double().cpu().softmax(dim=1)
    return torch.stack([_score(part) for part in p_NK.tensor_split(splits)])


def _score(p_NK: Tensor) -> Tensor:
    """exp of the mean divergence from the split's own average; 0 log 0 is 0."""
    marginal_K = p_NK.mean(dim=0, keepdim=True).expand_as(p_NK)
    return (torch.xlogy(p_NK, p_NK) - torch.xlogy(p_NK, marginal_K)).sum(dim=1).mean().exp()


@dataclass(frozen=True)
class DinoScore:
    """DS of a trial's images. Prompts are shuffled once, by a fixed seed, so that no split is one kind of prompt."""

    name: str = "ds"
    splits: int = 10
    least: int = 50
    margin: Margin = field(default=Margin(share=0.05))
    needs: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        at_least(self, self.name, splits=2)

    def readers(self, trial: Trial) -> list[Reader]:
        return [classes_of(trial.world.dino)]

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        why = refusal(trial, max(self.least, 2 * self.splits))
        if why:
            yield Reading(self.name, "ds", None, "1", "higher", self.name, trial.case.n, reason=why)
            return
        dino = trial.world.dino
        logits_NK = trial.rows(classes_of(dino))[mixed(trial.prompts)]
        n, classes = logits_NK.shape
        parts = split_scores(logits_NK, self.splits).tolist()
        score = mean_of(parts)
        rule = "" if n % self.splits == 0 else f" sizes={n // self.splits}..{n // self.splits + 1}"
        protocol = f"ds {dino.logits_protocol} splits={self.splits}{rule} shuffle=0 n={n}"
        details = {"classes": classes, "ceiling": min(classes, n / self.splits), "error": score.error, "parts": parts}
        details |= _doubt(trial)
        low, high = max(1.0, score.low), score.high
        reading = Reading(self.name, "ds", score.value, "1", "higher", protocol, n, low, high, details=details)
        yield self.margin.beside(reading)


def _doubt(trial: Trial) -> dict[str, Any]:
    """The detail `untrusted`, where real images do not score as they must."""
    if not trial.world.pictured:
        return {}
    dino = trial.world.dino
    score = once(trial, ["ds", dino.logits_protocol], lambda images: inception_form(dino.logits(images), splits=1))
    told = untrusted_score(some_references(trial), score)
    return {"untrusted": told} if told else {}


def classes_of(dino: Dino) -> Reader:
    """Its logits of images."""
    return Reader(dino.logits_protocol, dino.logits)
