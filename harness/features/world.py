"""Worlds: prompts, real images and extractors that a quality metric needs. Here, what a world is, and one of real data;
the embedded one is `harness.shapes.world`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from harness.features.caption import caption
from harness.features.checked import Checked, few, picture
from harness.features.clip import ClipExtractor
from harness.features.dino import Dino
from harness.features.hub import Streamed, is_id
from harness.features.listing import Entry, entries, shuffled
from harness.features.picture import Unreadable
from harness.records.case import BadInput, Resolution
from harness.records.spelled import Inert, spelled

Captioned = tuple[Tensor, list[str]]  # images and their captions
FITS, FILTERS = ("squash", "crop"), ("bilinear", "bicubic")
READ = 32  # images that are read at a time


class World(Protocol):
    """Prompts in a fixed order, real images, and the extractors that judge."""

    @property
    def name(self) -> str: ...

    @property
    def dino(self) -> Dino: ...

    @property
    def clip(self) -> ClipExtractor: ...

    @property
    def pictured(self) -> bool:
        """Whether there are real images to compare with, and not prompts alone."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a record must say of it."""

    def held(self, n: int) -> int:
        """How many real images there are, asked for n of them: n, or fewer."""

    def prompts(self, n: int) -> list[str]: ...

    def references(self, n: int, resolution: Resolution, start: int = 0) -> Tensor: ...

    def training(self, n: int, resolution: Resolution, device: str = "cpu", start: int = 0) -> Iterator[Captioned]:
        """The first n images and captions to distil on, from one of them on, a few at a time."""


def taught_on(world: World) -> str:
    """What names the data that students learn from: as the world says itself, or else all its settings."""
    said = getattr(world, "taught_on", None)
    return str(said()) if said else json.dumps(spelled(world))


def to_draw(world: World, n: int) -> list[str]:
    """n captions of a world that teaches captions alone, for a teacher to draw images of; none of another world."""
    said = getattr(world, "to_draw", None)
    return said(n) if said else []


def untaught(world: World) -> str:
    """Why no student can be trained on a world's data, or nothing."""
    return str(getattr(world, "untaught", ""))


@dataclass(frozen=True)
class FolderWorld(Inert):
    """Captioned images of a local folder, in the order of its list (`harness.features.listing` says which layouts).

    captions: the list inside the folder; without it one is looked for. skip_bad: leave out pictures and captions that
    cannot serve; all that a run may ask for are read before an image is generated. side: size of the references
    whatever the resolution, so that an extractor of that size resizes nothing again. fit: `squash` loses the aspect
    ratio as the field's FDD does, `crop` takes the centre. resize: PIL's antialiased filter, bilinear as the paper's
    FDD or bicubic as dgm-eval's. training_folder: another such folder, a data set of the hub, or a list of captions
    alone, to distil on: shuffled, and without what cannot serve.
    """

    name: str
    dino: Dino
    clip: ClipExtractor
    folder: str | Path | None = None
    captions: str | None = None
    side: int | None = None
    fit: Literal["squash", "crop"] = "squash"
    training_folder: str | Path | None = None
    skip_bad: bool = False
    resize: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def pictured(self) -> bool:
        return any(entry.source is not None for entry in self._first(1))

    def held(self, n: int) -> int:
        return len(self._checked.first(n)) if self.pictured else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a record must say of the folders: what was left out of them."""
        asked = {self.name: "_checked", f"{self.name} to learn from": "_teaching"}  # what nobody asked was not read
        bad = {name: vars(self)[read].bad for name, read in asked.items() if read in vars(self)}
        return tuple(
            f"{len(each)} entries of world {name} were left out: {few(each)}" for name, each in bad.items() if each
        )

    def prompts(self, n: int) -> list[str]:
        return [caption(entry.caption) for entry in self._first(n)]

    def references(self, n: int, resolution: Resolution, start: int = 0) -> Tensor:
        """(n - start, 3, H, W) float32 in [0, 1]: the images of the first n captions, from one of them on."""
        size = (self.side, self.side) if self.side else (resolution.width, resolution.height)
        return torch.stack([_pixels(entry, size, self.fit, self.resize) for entry in self._first(n)[start:]])

    def training(self, n: int, resolution: Resolution, device: str = "cpu", start: int = 0) -> Iterator[Captioned]:
        """Images (B, 3, H, W) at that size and their captions, from the training folder; the centre of each."""
        if self.untaught:
            raise BadInput(self.untaught)
        size, chosen = (resolution.width, resolution.height), islice(self._teaching.first(n), start, n)
        while rows := list(islice(chosen, READ)):
            images = torch.stack([_pixels(row, size, "crop", self.resize) for row in rows])
            yield images.to(device), [caption(row.caption) for row in rows]

    def to_draw(self, n: int) -> list[str]:
        """n captions where the training folder holds captions alone; where they are fewer, each several times."""
        if self.untaught or isinstance(self._teaching, Streamed):
            return []
        some = self._teaching.first(n)
        alone = some and all(entry.source is None for entry in some)
        return list(islice(cycle([caption(entry.caption) for entry in some]), n)) if alone else []

    def fingerprints(self) -> dict[str, str]:
        """The entries of the folder: captions, and each picture by its name, size and time."""
        return {"folder": "none" if self.folder is None else self._checked.fingerprint()}

    def taught_on(self) -> str:
        """The entries of the training folder, and how they are resized if not as usual."""
        if self.training_folder is None:
            return "nothing"
        return self._teaching.fingerprint() + ("" if self.resize == "bilinear" else f" {self.resize}")

    @property
    def untaught(self) -> str:
        if self.training_folder is not None:
            return ""
        return (
            f"world {self.name!r} has nothing to distil a student on: give captioned images, or a list of captions for "
            f"the teacher to draw, with catalog.worlds.{self.name}.training_folder=FOLDER"
        )

    def require_training(self, n: int = 0) -> None:
        """Raise BadInput where there are no n entries to distil a student on."""
        if self.untaught:
            raise BadInput(self.untaught)
        self._teaching.require(n)

    @cached_property
    def _teaching(self) -> Checked | Streamed:
        folder = str(self.training_folder)
        if is_id(folder):
            return Streamed(folder)
        return Checked(shuffled(entries(Path(folder).expanduser(), self.captions)), True, "")

    @cached_property
    def _checked(self) -> Checked:
        if self.folder is None:
            raise BadInput(
                f"world {self.name!r} has no images yet: give them with catalog.worlds.{self.name}.folder=FOLDER"
            )
        remedy = f"catalog.worlds.{self.name}.skip_bad=true"
        return Checked(entries(Path(self.folder).expanduser(), self.captions), self.skip_bad, remedy)

    def _first(self, n: int) -> list[Entry]:
        """Checked twice as far as asked, so that the spare references of a floor hold no surprise later."""
        good = self._checked.first(2 * n)
        if n > len(good):
            raise BadInput(
                f"world {self.name!r} holds {len(good)} entries that can serve, n={n} asks for more: "
                "lower n or add images"
            )
        return good[:n]


def _pixels(entry: Entry, size: tuple[int, int], fit: str, resize: str) -> Tensor:
    """(3, H, W) float32 in [0, 1], resized by PIL."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        image = picture(entry)
    except Unreadable as error:
        raise BadInput(f"reference image {entry.name} {error}: mend it or drop it from the list") from error
    if resize not in FILTERS or fit not in FITS:
        raise BadInput(f"fit={fit} and resize={resize} are not known: give {' or '.join(FITS)}, {' or '.join(FILTERS)}")
    way = Image.Resampling[resize.upper()]
    image = ImageOps.fit(image, size, way) if fit == "crop" else image.resize(size, way)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
