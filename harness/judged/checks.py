"""Can a score be trusted here? Tried in each run on real images: blur and noise must make a score worse, in the order
of their sizes. Where they do not, the reading is marked untrusted, with the reason. Shapes: N images.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from harness.trial import Trial

FEW, FEWEST, ROOM = 64, 8, 2**23
"""Real images that are enough: the changes are seen on each. No more than so many pixels of them in all."""
AT_ONCE = 2**20
"""Pixels that are blurred at a time: a convolution takes ten times the memory of its images."""
BLURS = (0.0, 0.02, 0.08)  # standard deviation of a Gaussian blur as a share of the image's shorter side
NOISES = (0.0, 0.1, 0.4)  # standard deviation of noise on pixels in [0, 1]


def some_references(trial: Trial) -> Tensor:
    """The first real images of the trial's world, at its size: fewer where they are large."""
    return trial.references(min(FEW, trial.case.n, max(FEWEST, ROOM // trial.case.resolution.pixels)))


def blurred(images_N3HW: Tensor, share: float) -> Tensor:
    """Images under a Gaussian blur of that share of their shorter side."""
    from torchvision.transforms.functional import gaussian_blur

    sigma = share * min(images_N3HW.shape[-2:])
    if sigma == 0:
        return images_N3HW
    reach = min(2 * round(3 * sigma) + 1, 2 * (min(images_N3HW.shape[-2:]) // 2) - 1)
    parts = list(torch.split(images_N3HW, max(1, AT_ONCE // images_N3HW[0, 0].numel())))
    for kernel in ([reach, 1], [1, reach]):  # along one side and then the other: the same, for reach times less
        parts = [gaussian_blur(part, kernel, [sigma, sigma]) for part in parts]
    return torch.cat(parts)


def noisy(images_N3HW: Tensor, sigma: float) -> Tensor:
    """Images with noise from a fixed seed, within [0, 1]."""
    noise = torch.randn(images_N3HW.shape, generator=torch.Generator().manual_seed(0))
    return (images_N3HW + sigma * noise).clamp(0, 1)


def once(trial: "Trial", made_of: Sequence[object], score: Callable[[Tensor], float]) -> Callable[[Tensor], float]:
    """The score, computed once of the same images: all variants share them. made_of: what decides it beside them."""
    return lambda images: trial.real.once(["self-check", *made_of], images, lambda: [score(images)])[0]


def untrusted_distance(images_N3HW: Tensor, distance: Callable[[Tensor], float]) -> str:
    """Why a distance from images as they are does not grow with blur and noise, or nothing."""
    return _disorders(images_N3HW, distance, BLURS, NOISES, 1)


def untrusted_score(images_N3HW: Tensor, score: Callable[[Tensor], float]) -> str:
    """Why images as they are do not score above strong blur and noise, or nothing. Weak ones a score may miss."""
    return _disorders(images_N3HW, score, BLURS[::2], NOISES[::2], -1)


def _disorders(
    images_N3HW: Tensor, number: Callable[[Tensor], float], blurs: Sequence[float], noises: Sequence[float], way: int
) -> str:
    """Why numbers do not rise (way 1) or fall (way -1) with the sizes, or nothing."""
    told = []
    for name, worsen, sizes in (("blur", blurred, blurs), ("noise", noisy, noises)):
        found = [number(worsen(images_N3HW, size)) for size in sizes]
        if not all(way * (after - before) > 0 for before, after in pairwise(found)):
            shown = ", ".join(f"{value:.3g}" for value in found)
            told.append(f"{name} of {', '.join(map(str, sizes))} on real images gives {shown}, which is out of order")
    return "; ".join(told)
