"""Worlds: prompts, real images and extractors that a quality metric needs. Here, what a world is, and one of real data.

The embedded world is `harness.shapes.world`. The paper (arXiv 2504.21292) evaluates on ten thousand captioned LAION
images; `conf/worlds/laion.yaml` reads such a folder with the paper's extractors, `conf/worlds/own.yaml` any folder.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from harness.features.caption import NoCaption, caption
from harness.features.clip import ClipExtractor
from harness.features.dino import Dino
from harness.features.listing import Entry, Source, entries
from harness.features.picture import Unreadable, read
from harness.records.case import BadInput, Resolution
from harness.records.spelled import Inert, digest, spelled

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FITS, FILTERS = ("squash", "crop"), ("bilinear", "bicubic")
READ = 32
"""Images that are read at a time."""


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

    def categories(self, n: int) -> list[str]: ...

    def references(self, n: int, resolution: Resolution, start: int = 0) -> Tensor: ...

    def training(
        self, n: int, resolution: Resolution, device: str = "cpu", start: int = 0
    ) -> Iterator[tuple[Tensor, list[str]]]:
        """The first n images and captions to distil on, from one of them on, a few at a time."""


def taught_on(world: World) -> str:
    """What names the data that students learn from: as the world says itself, or else all its settings."""
    said = getattr(world, "taught_on", None)
    return str(said()) if said else json.dumps(spelled(world))


def untaught(world: World) -> str:
    """Why no student can be trained on a world's data, or nothing."""
    said = getattr(world, "untaught", "")
    return str(said)


class Checked:
    """Entries whose pictures and captions were read to the end, in order; it looks as far ahead as it is asked."""

    def __init__(self, found: Sequence[Entry], skip_bad: bool, remedy: str) -> None:
        self._found, self._skip_bad, self._remedy = found, skip_bad, remedy
        self._seen = 0
        self.good: list[Entry] = []
        self.bad: list[str] = []

    def first(self, n: int) -> list[Entry]:
        """The first n that are good, or as many as there are; BadInput names bad ones that are not to be skipped."""
        while len(self.good) < n and self._seen < len(self._found):
            entry = self._found[self._seen]
            self._seen += 1
            why = _fault(entry)
            if why:
                self.bad.append(f"{entry.name} {why}")
            else:
                self.good.append(entry)
        if self.bad and not self._skip_bad:
            raise BadInput(
                f"{_few(self.bad)}: mend what is named, drop it from the list, or leave it out with {self._remedy}"
            )
        return self.good[:n]

    def fingerprint(self) -> str:
        """A digest of all entries, good or bad, without reading a picture."""
        found = [[entry.name, str(entry.caption), entry.category, _held(entry.source)] for entry in self._found]
        return digest([found, self._skip_bad])


def _fault(entry: Entry) -> str:
    """Why an entry cannot serve, or nothing."""
    try:
        caption(entry.caption)
        if entry.source is not None:
            _picture(entry)
    except (NoCaption, Unreadable, BadInput) as error:
        return str(error)
    return ""


def _few(bad: Sequence[str]) -> str:
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return "; ".join(bad[:3]) + more


@dataclass(frozen=True)
class FolderWorld(Inert):
    """Captioned images of a local folder, in the order of its list (`harness.features.listing` says which layouts).

    captions: the list inside the folder; without it one is looked for. Every picture and caption that a run may ask for
    is read before an image is generated; a bad one is named, and left out only with `skip_bad`.
    side: references come at this size whatever the resolution, so that an extractor of that size resizes nothing again.
    fit: `squash` loses the aspect ratio as the field's FDD does, `crop` takes the centre. resize: PIL's antialiased
    filter, bilinear as the paper's FDD or bicubic as dgm-eval's.
    training_folder: another such folder, to distil students on; what is judged is never trained on.
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
        """Whether there are real images to compare with, and not prompts alone."""
        return any(entry.source is not None for entry in self._first(1))

    def held(self, n: int) -> int:
        """How many real images there are, asked for n of them: n, or fewer."""
        return len(self._checked.first(n)) if self.pictured else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a record must say of the folder: what was left out of it."""
        bad = self._checked.bad if "_checked" in vars(self) else []  # a world that nobody asked was not read
        return (f"{len(bad)} entries of world {self.name} were left out: {_few(bad)}",) if bad else ()

    def prompts(self, n: int) -> list[str]:
        """The first n captions."""
        return [caption(entry.caption) for entry in self._first(n)]

    def categories(self, n: int) -> list[str]:
        """The first n categories, empty where the list names none."""
        return [entry.category for entry in self._first(n)]

    def references(self, n: int, resolution: Resolution, start: int = 0) -> Tensor:
        """(n - start, 3, H, W) float32 in [0, 1]: the images of the first n captions, from one of them on."""
        size = (self.side, self.side) if self.side else (resolution.width, resolution.height)
        return torch.stack([_pixels(entry, size, self.fit, self.resize) for entry in self._first(n)[start:]])

    def training(
        self, n: int, resolution: Resolution, device: str = "cpu", start: int = 0
    ) -> Iterator[tuple[Tensor, list[str]]]:
        """Images (B, 3, H, W) at that size and their captions, from the training folder; the centre of each."""
        self.require_training()
        size, chosen = (resolution.width, resolution.height), self._teaching._first(n)
        for first in range(start, n, READ):
            rows = chosen[first : first + READ]
            images = torch.stack([_pixels(row, size, "crop", self.resize) for row in rows])
            yield images.to(device), [caption(row.caption) for row in rows]

    def fingerprints(self) -> dict[str, str]:
        """The entries of the folder: captions, and each picture by its name, size and time."""
        return {"folder": "none" if self.folder is None else self._checked.fingerprint()}

    def taught_on(self) -> str:
        """The entries of the training folder."""
        return "nothing" if self.training_folder is None else self._teaching._checked.fingerprint()

    @property
    def untaught(self) -> str:
        """Why there is nothing to distil a student on, or nothing."""
        if self.training_folder is not None:
            return ""
        return (
            f"world {self.name!r} has nothing to distil a student on: give captioned images with "
            f"catalog.worlds.{self.name}.training_folder=FOLDER"
        )

    def require_training(self, n: int = 0) -> None:
        """Raise BadInput where there are no n entries to distil a student on."""
        if self.untaught:
            raise BadInput(self.untaught)
        self._teaching._first(n)

    @cached_property
    def _teaching(self) -> "FolderWorld":
        return replace(self, folder=self.training_folder, side=None, fit="crop")

    @cached_property
    def _checked(self) -> Checked:
        if self.folder is None:
            raise BadInput(
                f"world {self.name!r} has no images yet: give them with catalog.worlds.{self.name}.folder=FOLDER"
            )
        found = entries(Path(self.folder).expanduser(), self.captions)
        return Checked(found, self.skip_bad, f"catalog.worlds.{self.name}.skip_bad=true")

    def _first(self, n: int) -> list[Entry]:
        """Checked twice as far as asked, so that the spare references of a floor hold no surprise later."""
        good = self._checked.first(2 * n)
        if n > len(good):
            raise BadInput(
                f"world {self.name!r} holds {len(good)} entries that can serve, n={n} asks for more: "
                "lower n or add images"
            )
        return good[:n]


def _held(source: Source) -> Any:
    """What can be known of a picture without reading it: size and time of its file, and where it lies inside."""
    path = source if isinstance(source, Path) else getattr(source, "path", None)
    if path is None:
        return None
    status = path.stat() if path.exists() else None
    inside = [] if isinstance(source, Path) else spelled(source)["settings"]
    return [path.name, inside, status and status.st_size, status and status.st_mtime_ns]


def _pixels(entry: Entry, size: tuple[int, int], fit: str, resize: str) -> Tensor:
    """(3, H, W) float32 in [0, 1], resized by PIL."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        image = _picture(entry)
    except Unreadable as error:
        raise BadInput(f"reference image {entry.name} {error}: mend it or drop it from the list") from error
    if resize not in FILTERS or fit not in FITS:
        raise BadInput(f"fit={fit} and resize={resize} are not known: give {' or '.join(FITS)}, {' or '.join(FILTERS)}")
    way = Image.Resampling[resize.upper()]
    image = ImageOps.fit(image, size, way) if fit == "crop" else image.resize(size, way)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _picture(entry: Entry) -> "Picture":
    if entry.source is None:
        raise Unreadable("is a prompt without a picture: there is nothing to compare with")
    return read(entry.source if isinstance(entry.source, Path) else entry.source())
