"""How near does a student stay to its teacher on the same prompt, seed, size and steps? Image by image.

DINO cosine follows what is shown; PSNR, SSIM and LPIPS follow pixels, and fall at once where a layout drifts that
nobody minds. The floor of each is that of shuffled pairs: two images of one world are alike whatever they
show. Distances to the teacher say nothing about which of both is better. Shapes: N images, D features.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.judged.refusal import refusal
from harness.records.groups import units_of
from harness.records.record import Better, Reading
from harness.records.statistics import mean_of

if TYPE_CHECKING:
    from harness.trial import Trial

ROUNDING = 1 / (12 * 255**2)
"""Mean squared error of rounding to 8 bits: images that agree to it have 58.9 dB, not endlessly many."""
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
AT_ONCE = 64


def psnr(x_N3HW: Tensor, y_N3HW: Tensor) -> Tensor:
    """(N,) decibels between images in [0, 1]."""
    errors_N = (x_N3HW.double() - y_N3HW.double()).square().mean(dim=(1, 2, 3))
    return -10 * errors_N.clamp(min=ROUNDING).log10()


def ssim(x_N3HW: Tensor, y_N3HW: Tensor) -> Tensor:
    """(N,) structural similarity of images in [0, 1], as torchmetrics takes it."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    parts = zip(torch.split(x_N3HW, AT_ONCE), torch.split(y_N3HW, AT_ONCE), strict=True)
    found = [structural_similarity_index_measure(x, y, reduction="none", data_range=1.0) for x, y in parts]
    return torch.cat([torch.as_tensor(one).reshape(-1).double() for one in found])


def lpips(x_N3HW: Tensor, y_N3HW: Tensor) -> Tensor:
    """(N,) learned perceptual distance (AlexNet) of images in [0, 1], as torchmetrics takes it."""
    from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

    parts = zip(torch.split(x_N3HW, AT_ONCE), torch.split(y_N3HW, AT_ONCE), strict=True)
    found = [
        learned_perceptual_image_patch_similarity(x, y, net_type="alex", reduction="none", normalize=True)
        for x, y in parts
    ]
    return torch.cat([one.reshape(-1).double() for one in found])


def lpips_at_hand() -> bool:
    """Whether AlexNet's weights are in torch's cache: nothing is downloaded for a number."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS).is_file()


@dataclass(frozen=True)
class Paired:
    """Four readings: dino_cos, psnr, ssim, lpips. The teacher's images of a setting are made once for all variants."""

    name: str = "paired"
    least: int = 8
    needs: ClassVar[str] = "weights"
    _teachers: dict[object, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        why = refusal(trial, self.least)
        if not why and trial.exact:
            why = "the teacher is what others are compared with"
        if why:
            for name, better, unit in NAMES:
                yield Reading(self.name, name, None, unit, better, name, trial.case.n, reason=why)
            return
        student, teacher = trial.images(), self._teacher(trial)
        dino = trial.world.dino
        features = dino.features(student), dino.features(teacher)
        yield self._reading(trial, 0, cosine, features, f"dino_cos {dino.protocol}")
        yield self._reading(trial, 1, psnr, (student, teacher), "psnr range=1")
        yield self._reading(trial, 2, ssim, (student, teacher), "ssim torchmetrics gaussian 11 range=1")
        if lpips_at_hand():
            yield self._reading(trial, 3, lpips, (student, teacher), "lpips torchmetrics alex")
        else:
            why = f"AlexNet's weights are not at hand: put {LPIPS_WEIGHTS} into torch's cache"
            n = trial.case.n
            yield Reading(self.name, "lpips", None, "1", "lower", "lpips torchmetrics alex", n, reason=why)

    def _teacher(self, trial: "Trial") -> Tensor:
        """The images of the same prompts and seeds by the model's own attention; the last setting's are kept."""
        case, model = trial.case, trial.model
        made_by = (case.model, model.fingerprint(), model.sampler, case.world, str(case.resolution), case.n)
        key = (*made_by, case.steps, case.guidance, case.seeds, case.dtype, case.device)
        if key not in self._teachers:
            self._teachers.clear()
            model.load(case.device, case.dtype)
            made = model.generate(trial.prompts, trial.seeds, case.resolution, case.steps, case.guidance, case.batch)
            self._teachers[key] = made.half()
        return self._teachers[key].float()

    def _reading(
        self,
        trial: "Trial",
        which: int,
        measure: Callable[[Tensor, Tensor], Tensor],
        pair: tuple[Tensor, Tensor],
        protocol: str,
    ) -> Reading:
        name, better, unit = NAMES[which]
        values = measure(*pair).tolist()
        mean = mean_of(values, trial.prompts)
        floor = float(measure(pair[0], pair[1].roll(len(trial.case.seeds), 0)).mean())
        return Reading(
            metric=self.name,
            name=name,
            value=mean.value,
            unit=unit,
            better=better,
            protocol=f"{protocol} teacher of {trial.case.model} n={len(values)}",
            n=len(values),
            low=mean.low,
            high=mean.high,
            samples=tuple(values),
            details={"shuffled": floor} | units_of(trial.prompts),
        )


NAMES: tuple[tuple[str, Better, str], ...] = (
    ("dino_cos", "higher", "1"),
    ("psnr", "higher", "dB"),
    ("ssim", "higher", "1"),
    ("lpips", "lower", "1"),
)


def cosine(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """(N,) cosines of pairs of features."""
    return F.cosine_similarity(x_ND.double(), y_ND.double(), dim=1)
