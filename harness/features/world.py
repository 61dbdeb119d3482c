"""Worlds: prompts, real images and extractors that a quality metric needs. Here, what a world is, and one of real data.

The embedded world is `harness.shapes.world`. The paper (arXiv 2504.21292) evaluates on ten thousand captioned LAION
images; `conf/worlds/laion.yaml` reads such a folder with the paper's extractors.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from harness.features.clip import ClipExtractor
from harness.features.dino import Dino
from harness.records.case import BadInput, Resolution

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

    def prompts(self, n: int) -> list[str]: ...

    def categories(self, n: int) -> list[str]: ...

    def references(self, n: int, resolution: Resolution) -> Tensor: ...

    def training(self, n: int, resolution: Resolution, device: str = "cpu") -> Iterator[tuple[Tensor, list[str]]]: ...


@dataclass(frozen=True)
class Entry:
    """One captioned image of a folder."""

    path: Path
    caption: str
    category: str


@dataclass(frozen=True)
class FolderWorld:
    """Captioned images of a local folder, in the order of its list.

    folder: images, and the captions either in `captions`, a JSON list or one JSON object a line (`file_name`, `text`,
    or as in the paper's list `img_path`, `prompt`; optional `category`), or in a text file beside each image.
    side: references come at this size whatever the resolution, so that an extractor of that size resizes nothing again.
    fit: `squash` loses the aspect ratio as the field's FDD does, `crop` takes the centre.
    training_folder: another such folder, to distil students on; what is judged is never trained on.
    """

    name: str
    dino: Dino
    clip: ClipExtractor
    folder: str | Path | None = None
    captions: str = "metadata.jsonl"
    side: int | None = None
    fit: Literal["squash", "crop"] = "squash"
    training_folder: str | Path | None = None

    def prompts(self, n: int) -> list[str]:
        """The first n captions."""
        return [entry.caption for entry in self._first(n)]

    def categories(self, n: int) -> list[str]:
        """The first n categories, empty where the list names none."""
        return [entry.category for entry in self._first(n)]

    def references(self, n: int, resolution: Resolution) -> Tensor:
        """(n, 3, H, W) float32 in [0, 1]: the images that belong to the first n captions."""
        size = (self.side, self.side) if self.side else (resolution.width, resolution.height)
        return torch.stack([_image(entry.path, size, self.fit) for entry in self._first(n)])

    def training(self, n: int, resolution: Resolution, device: str = "cpu") -> Iterator[tuple[Tensor, list[str]]]:
        """Images (B, 3, H, W) at that size and their captions, from the training folder; the centre of each."""
        if self.training_folder is None:
            raise BadInput(
                f"world {self.name!r} has nothing to distil a student on: give captioned images with "
                f"catalog.worlds.{self.name}.training_folder=FOLDER, or train.on_demand=false to do without"
            )
        other = replace(self, folder=self.training_folder, side=None, fit="crop")
        size, entries = (resolution.width, resolution.height), other._first(n)
        for first in range(0, n, READ):
            rows = entries[first : first + READ]
            images = torch.stack([_image(row.path, size, "crop") for row in rows])
            yield images.to(device), [row.caption for row in rows]

    @cached_property
    def _entries(self) -> list[Entry]:
        if self.folder is None:
            raise BadInput(
                f"world {self.name!r} has no images yet: give them with catalog.worlds.{self.name}.folder=FOLDER"
            )
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise BadInput(
                f"world {self.name!r} reads {str(folder)!r}, which is no folder: give one of images and captions"
            )
        listed = folder / self.captions
        return _listed(listed) if listed.is_file() else _beside(folder)

    def _first(self, n: int) -> list[Entry]:
        if n > len(self._entries):
            held = len(self._entries)
            raise BadInput(f"world {self.name!r} holds {held} images, n={n} asks for more: lower n or add images")
        return self._entries[:n]


def _listed(path: Path) -> list[Entry]:
    """Entries of a JSON list or of one JSON object a line."""
    text = path.read_text(encoding="utf-8")
    try:
        lines = [line for line in text.splitlines() if line.strip()]
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
        return [_entry(path.parent, row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"captions {str(path)!r} cannot be read ({type(error).__name__}: {error}): "
            'write one {"file_name": ..., "text": ...} a line'
        ) from error


def _entry(folder: Path, row: dict[str, Any]) -> Entry:
    """A row in the words of Hugging Face's image folders, or of the paper's list, whose paths are another machine's."""
    if "file_name" in row:
        return Entry(folder / row["file_name"], str(row["text"]), str(row.get("category", "")))
    name = Path(row["img_path"]).name
    path = folder / name if (folder / name).exists() else folder / "imgs" / name
    return Entry(path, str(row["prompt"]), str(row.get("category", "")))


def _beside(folder: Path) -> list[Entry]:
    """Images with a text file of the same name, sorted by name."""
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"})
    captioned = [(path, path.with_suffix(".txt")) for path in images if path.with_suffix(".txt").is_file()]
    if not captioned:
        raise BadInput(f"folder {str(folder)!r} holds no captioned images: add metadata.jsonl, or a .txt beside each")
    return [Entry(path, text.read_text(encoding="utf-8").strip(), "") for path, text in captioned]


def _image(path: Path, size: tuple[int, int], fit: str) -> Tensor:
    """(3, H, W) float32 in [0, 1], resized by PIL's antialiased bilinear filter as the paper's FDD does."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(
            f"reference image {str(path)!r} cannot be read ({type(error).__name__}): mend it or drop it from the list"
        ) from error
    bilinear = Image.Resampling.BILINEAR
    image = ImageOps.fit(image, size, bilinear) if fit == "crop" else image.resize(size, bilinear)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
