"""Patch FDD: Fréchet distance of crops at native resolution, as large as what the extractor reads.

A resize to the extractor's side hides what breaks in large images: fine structure, and objects that repeat. Crops are
taken at places that depend on the image's number alone, the same in generated and real images. Shapes: N images, P
patches of one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.features.kept import Reader
from harness.judged.fdd import reading_of, spare, split_half_floor
from harness.judged.refusal import refusal, unpictured
from harness.records.case import at_least
from harness.records.record import Reading
from harness.trial import Trial


def patches(images_N3HW: Tensor, side: int, each: int, seed: int = 0, first: int = 0) -> Tensor:
    """(N * each, 3, side, side): crops at random places, image after image; first: the number of the first image."""
    height, width = images_N3HW.shape[-2:]
    if side > min(height, width):
        raise ValueError(f"images of {width}x{height} hold no patch of {side} pixels")
    cut = []
    for number, image in enumerate(images_N3HW, first):
        source = random.Random(f"{seed} {number}")
        for _ in range(each):
            top, left = source.randint(0, height - side), source.randint(0, width - side)
            cut.append(image[:, top : top + side, left : left + side])
    return torch.stack(cut)


@dataclass(frozen=True)
class PatchFdd:
    """FDD of patches; each: how many of an image."""

    name: str = "patch_fdd"
    each: int = 4
    least: int = 50
    needs: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        at_least(self, self.name, each=1)

    def readers(self, trial: Trial) -> list[Reader]:
        """The features of patches: (N, P, D)."""
        dino, side, each = trial.world.dino, trial.world.dino.reads, self.each
        size = trial.case.resolution
        if min(size.width, size.height) <= side:
            return []

        def read(images: Tensor, rows: range) -> Tensor:
            found_ND: Tensor = dino.features(patches(images, side, each, first=rows.start))
            return found_ND.reshape(len(rows), each, -1)

        return [Reader(f"patches {each}x{side}px {dino.protocol}", read, numbered=True)]

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        why = refusal(trial, self.least) or unpictured(trial) or self._too_small(trial)
        if why:
            yield Reading(self.name, self.name, None, "1", "lower", self.name, trial.case.n, reason=why)
            return
        dino, side = trial.world.dino, trial.world.dino.reads
        (reader,) = self.readers(trial)
        x_ND, spare_MD = trial.rows(reader).flatten(0, 1), trial.reference_rows(reader, spare(trial)).flatten(0, 1)
        y_MD = spare_MD[: len(x_ND)]
        made, real = (
            [prompt for prompt in prompts for _ in range(self.each)]
            for prompts in (trial.prompts, trial.world.prompts(len(y_MD) // self.each))
        )
        protocol = f"patch_fdd {self.each}x{side}px {dino.protocol} ref={trial.world.name} n={len(x_ND)}/{len(y_MD)}"
        yield reading_of(self.name, x_ND, y_MD, (made, real), protocol, split_half_floor(spare_MD, len(x_ND)))

    def _too_small(self, trial: Trial) -> str:
        """Why crops would be whole images, or would be cut from images that were resized, or nothing."""
        side, size = trial.world.dino.reads, trial.case.resolution
        if min(size.width, size.height) <= side:
            return f"at {size} pixels a patch of {side} is the image or more: fdd says it"
        if tuple(trial.references(1).shape[-2:]) != (size.height, size.width):
            return f"world {trial.world.name} gives its references resized: patches need them at {size}; set side=null"
        return ""
