"""How near does a student stay to its teacher on the same prompt, seed, size and steps? Image by image.

DINO cosine follows what is shown; PSNR, SSIM and LPIPS follow pixels, and fall at once where a layout drifts. The floor
of each is that of shuffled pairs: two images of one world are alike whatever they show. Shapes: N images, D features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.features.kept import Reader
from harness.judged.fdd import features_of
from harness.judged.means import mean_score
from harness.judged.refusal import refusal, unlike_teacher
from harness.records.record import Better, Reading
from harness.trial import Trial

ROUNDING = 1 / (12 * 255**2)
"""Mean squared error of rounding to 8 bits: images that agree to it have 58.9 dB, not endlessly many."""
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
AT_ONCE = 64
ROOM = 2**28  # bytes of the teacher's images that are remembered from variant to variant


def psnr(x_N3HW: Tensor, y_N3HW: Tensor) -> Tensor:
    """(N,) decibels between images in [0, 1]."""
    errors_N = (x_N3HW.double() - y_N3HW.double()).square().mean(dim=(1, 2, 3))
    return -10 * errors_N.clamp(min=ROUNDING).log10()


def ssim(x_N3HW: Tensor, y_N3HW: Tensor) -> Tensor:
    """(N,) structural similarity of images in [0, 1], as torchmetrics takes it."""
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    return _in_parts(x_N3HW, y_N3HW, lambda x, y: measure(x, y, reduction="none", data_range=1.0))


def lpips(x_N3HW: Tensor, y_N3HW: Tensor) -> Tensor:
    """(N,) learned perceptual distance (AlexNet) of images in [0, 1], as torchmetrics takes it."""
    from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity as measure

    return _in_parts(x_N3HW, y_N3HW, lambda x, y: measure(x, y, net_type="alex", reduction="none", normalize=True))


def _in_parts(x_N3HW: Tensor, y_N3HW: Tensor, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    parts = zip(torch.split(x_N3HW, AT_ONCE), torch.split(y_N3HW, AT_ONCE), strict=True)
    return torch.cat([torch.as_tensor(measure(x, y)).reshape(-1).double() for x, y in parts])


def lpips_at_hand() -> bool:
    """Whether AlexNet's weights are in torch's cache: nothing is downloaded for a number."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS).is_file()


@dataclass(frozen=True)
class Paired:
    """Four readings: dino_cos, psnr, ssim, lpips. The teacher's images are made once for all variants, if they fit."""

    name: str = "paired"
    least: int = 8
    needs: ClassVar[str] = "weights"
    _teachers: dict[object, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        if why := refusal(trial, self.least) or unlike_teacher(trial):
            for name, better, unit in NAMES:
                yield Reading(self.name, name, None, unit, better, name, trial.case.n, reason=why)
            return
        own, teachers, pixels = self.readers(trial)
        x_ND, y_ND, shift = trial.rows(own), trial.rows(teachers), len(trial.case.seeds)
        cosines = torch.stack([cosine(x_ND, y_ND), cosine(x_ND, y_ND.roll(shift, 0))], dim=1)
        yield self._reading(trial, 0, cosines, f"dino_cos {trial.world.dino.protocol}")
        found_NM2 = trial.rows(pixels)
        yield self._reading(trial, 1, found_NM2[:, 0], "psnr range=1")
        yield self._reading(trial, 2, found_NM2[:, 1], "ssim torchmetrics gaussian 11 range=1")
        if found_NM2.shape[1] > 2:
            yield self._reading(trial, 3, found_NM2[:, 2], "lpips torchmetrics alex")
        else:
            why = f"AlexNet's weights are not at hand: put {LPIPS_WEIGHTS} into torch's cache"
            n = trial.case.n
            yield Reading(self.name, "lpips", None, "1", "lower", "lpips torchmetrics alex", n, reason=why)

    def readers(self, trial: Trial) -> list[Reader]:
        """Features of the images and of the teacher's; (N, M, 2): each measure of the pair and of a shuffled one."""
        if trial.exact:
            return []
        dino, case = trial.world.dino, trial.case
        measures = (psnr, ssim, lpips) if lpips_at_hand() else (psnr, ssim)

        def teachers(images: Tensor, rows: range) -> Tensor:
            return dino.features(self._teacher(trial, rows))

        def pixels(images: Tensor, rows: range) -> Tensor:
            others = self._teacher(trial, [(row - len(case.seeds)) % case.n for row in rows])
            pairs = (self._teacher(trial, rows), others)
            return torch.stack([torch.stack([of(images, pair) for pair in pairs], 1) for of in measures], 1)

        return [
            features_of(dino),
            Reader(f"teacher {dino.protocol}", teachers, numbered=True),
            Reader(f"pairs/v1 measures={len(measures)} n={case.n}", pixels, numbered=True),
        ]

    def _teacher(self, trial: Trial, rows: Sequence[int]) -> Tensor:
        """Images by the model's own attention of the same prompts and seeds, made in the batches of the trial."""
        found = []
        for row in rows:
            start = row // trial.case.batch * trial.case.batch
            batch = self._batch(trial, range(start, min(start + trial.case.batch, trial.case.n)))
            found.append(batch[row - start].float())
        return torch.stack(found)

    def _batch(self, trial: Trial, rows: range) -> Tensor:
        """Some of them in half precision; of earlier ones as many are remembered as there is room for."""
        case, model = trial.case, trial.model
        made_by = (case.model, model.fingerprint(), model.sampler, case.world, str(case.resolution), case.n, case.batch)
        key = (*made_by, case.steps, case.guidance, case.seeds, case.dtype, case.device, rows)
        if key not in self._teachers:
            while len(self._teachers) > 2 and sum(batch.nbytes for batch in self._teachers.values()) > ROOM:
                del self._teachers[next(iter(self._teachers))]
            model.load(case.device, case.dtype)
            some, seeds = trial.prompts[rows.start : rows.stop], trial.seeds[rows.start : rows.stop]
            made = model.generate(some, seeds, case.resolution, case.steps, case.guidance, case.batch)
            self._teachers[key] = made.half()
        return self._teachers[key]

    def _reading(self, trial: Trial, which: int, pair_N2: Tensor, protocol: str) -> Reading:
        name, better, unit = NAMES[which]
        values, details = pair_N2[:, 0].tolist(), {"shuffled": float(pair_N2[:, 1].mean())}
        told = f"{protocol} teacher of {trial.case.model} n={len(values)}"
        return mean_score(self.name, name, unit, better, told, values, trial.prompts, details)


NAMES: tuple[tuple[str, Better, str], ...] = (
    ("dino_cos", "higher", "1"),
    ("psnr", "higher", "dB"),
    ("ssim", "higher", "1"),
    ("lpips", "lower", "1"),
)


def cosine(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """(N,) cosines of pairs of features."""
    return F.cosine_similarity(x_ND.double(), y_ND.double(), dim=1)
