"""What is kept of the images of a case: the first of them as PNG files, and the features of all."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from harness.distillation.student import cache_folder
from harness.features.kept import Kept, fresh
from harness.records.case import BadInput, is_whole
from harness.records.files import write_whole
from harness.records.store import PROMPTS

ALL = "all"
SHOWN = 64
"""Images that a record names at most; all that are kept lie in its folder."""


@dataclass(frozen=True)
class Keeping:
    """Where a run keeps what: images and their features in its store, features of real images in the user's cache.

    store: None keeps nothing. images: how many of a case; None for all. since: files older than this time (in s) are
    made again.
    """

    store: Path | None = None
    images: int | None = 8
    since: float = 0.0

    def features(self) -> Kept:
        return Kept(self.store / "features" if self.store else None, self.since)

    def references(self) -> Kept:
        """Features of real images, which other runs compare with too."""
        return Kept(cache_folder() / "references" if self.store else None, self.since)

    def lacks(self, key: str, n: int) -> bool:
        """Whether an image of a case with n of them is to be kept, and is no file."""
        kept = n if self.images is None else min(n, self.images)
        return self.store is not None and not all((self._folder(key) / f"{row}.png").exists() for row in range(kept))

    def pictures(self, key: str, prompts: Sequence[str]) -> "KeptPictures | None":
        if self.store is None:
            return None
        return KeptPictures(self.store, self._folder(key), prompts[: self.images], self.since)

    def _folder(self, key: str) -> Path:
        assert self.store is not None
        return self.store / "images" / key


NOTHING_KEPT = Keeping()


def how_many(keep: int | str) -> int | None:
    """The setting `keep` as a number, None for all; BadInput for what is neither."""
    if keep == ALL:
        return None
    if isinstance(keep, str) or not is_whole(keep, 0):
        raise BadInput(f"keep={keep} is not possible: give how many images of a case to keep, or {ALL}")
    return keep


@dataclass
class KeptPictures:
    """The first images of a case and their prompts, written as they come, each file whole or not at all."""

    store: Path
    folder: Path
    prompts: Sequence[str]
    since: float = 0.0
    error: OSError | None = field(default=None, init=False)

    def lack(self, rows: range) -> bool:
        """Whether one of these images is to be kept and is not there."""
        mine = self._mine(rows) if self.error is None else range(0)
        return any(self._of_others or not fresh(self._path(row), self.since) for row in mine)

    @cached_property
    def _of_others(self) -> bool:
        """Whether the files are of other prompts: a world may have another folder than when they were written."""
        try:
            known = json.loads((self.folder / PROMPTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return any(theirs != ours for theirs, ours in zip(known, self.prompts, strict=False))

    def keep(self, rows: range, images: Tensor) -> None:
        """Write those that are to be kept; the first fault ends the keeping, but no measurement."""
        if self.error is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if rows.start == 0:
                write_whole(self.folder / PROMPTS, json.dumps(list(self.prompts)) + "\n")
            for row in self._mine(rows):
                write_whole(self._path(row), png(images[row - rows.start]))
        except OSError as error:
            self.error = error

    def named(self) -> dict[str, str]:
        """Paths for the record, relative to its store; raises the fault that kept images from being written."""
        if self.error is not None:
            raise self.error
        paths = [self._path(row) for row in range(min(len(self.prompts), SHOWN))]
        return {f"image/{path.stem}": path.relative_to(self.store).as_posix() for path in paths if path.exists()}

    def real(self, read: Callable[[int], Tensor]) -> dict[str, str]:
        """Write the real images of the prompts beside them; paths for the record. read: that of the n-th prompt."""
        found, place = {}, {prompt: row for row, prompt in enumerate(dict.fromkeys(self.prompts))}
        for index, prompt in enumerate(self.prompts[:SHOWN]):
            path = self.folder / f"real_{index}.png"
            write_whole(path, png(read(place[prompt])))  # always: the world may have other pictures than before
            found[f"real/{index}"] = path.relative_to(self.store).as_posix()
        return found

    def _mine(self, rows: range) -> range:
        return range(rows.start, min(rows.stop, len(self.prompts)))

    def _path(self, row: int) -> Path:
        return self.folder / f"{row}.png"


def png(image: Tensor) -> bytes:
    """(3, H, W) in [0, 1] as the bytes of a PNG file."""
    from torchvision.utils import save_image

    out = io.BytesIO()
    save_image(image, out, format="png")
    return out.getvalue()
