"""Images as a stream: made or read a batch at a time, seen by all readers in one pass, then let go.

What readers return is kept by batch, under all that the images are made of: a run that was killed goes on at the batch
where it stopped, to the same bits.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

from torch import Tensor, nn

from harness.features.kept import FINITE, Batch, Reader, content, read_all
from harness.features.world import World
from harness.kept_images import Keeping, KeptPictures
from harness.models.model import Model
from harness.records.case import Case, Resolution
from harness.records.machine import threads, version
from harness.records.spelled import digest, spelled

REFERENCES, ROOM = 64, 2**23
"""Real images that are read at once, and how many pixels they may have in all."""
PACKAGES = ("torch", "diffusers", "transformers", "timm", "open_clip_torch")
"""What can move the last bits of an image or of a feature."""

Readers = Callable[[Any], Sequence[Reader]]
"""What all metrics of a trial read of its images."""


class Maker(Protocol):
    """What makes images: a trial."""

    case: Case
    model: Model

    @property
    def prompts(self) -> list[str]: ...

    @property
    def seeds(self) -> list[int]: ...

    def denoiser(self) -> AbstractContextManager[nn.Module]: ...


class Images:
    """The images of a trial. readers: of all metrics of its case, so that one pass serves them."""

    def __init__(self, trial: Maker, keeping: Keeping, readers: Readers) -> None:
        self.kept = keeping.features()
        self.pictures: KeptPictures | None = None
        self._trial, self._keeping, self._readers = trial, keeping, readers
        self._rows: dict[str, Tensor | Exception] = {}

    def rows(self, reader: Reader) -> Tensor:
        """What a reader says of each image, (n, ...); raises what it, or the making of the images, raised."""
        if reader.key not in self._rows:
            readers = [FINITE, reader, *self._readers(self._trial)]
            try:
                self._rows |= self._read(readers)
            except Exception as error:
                self._rows |= dict.fromkeys([each.key for each in readers], error)  # another try would end the same
                raise
        return _rows_or_error(self._rows[reader.key])

    def _read(self, readers: Sequence[Reader]) -> dict[str, Tensor | Exception]:
        """One pass; images of which all is known are not made."""
        prompts, seeds, case = self._trial.prompts, self._trial.seeds, self._trial.case
        self.pictures = self.pictures or self._keeping.pictures(case.key, prompts)
        batches = [Batch(rows, self._address(prompts, seeds, rows)) for rows in parts(case.n, case.batch)]

        def make(rows: range) -> Tensor:
            """Seated for this batch alone: a reader may want the teacher's images beside them."""
            some, theirs = list(prompts[rows.start : rows.stop]), list(seeds[rows.start : rows.stop])
            with self._trial.denoiser():
                return self._trial.model.generate(some, theirs, case.resolution, case.steps, case.guidance, case.batch)

        return read_all(batches, readers, make, self.kept, self.pictures)

    def _address(self, prompts: Sequence[str], seeds: Sequence[int], rows: range) -> str:
        """A digest of all that a batch is made of, whatever else the case asks for."""
        case = self._trial.case.identity()
        settings = {name: value for name, value in case.items() if name not in ("n", "seeds", "world")}
        own = prompts[rows.start : rows.stop], seeds[rows.start : rows.stop]
        return digest([settings, *map(list, own), versions(), threads()])


class References:
    """The real images of a world at one size. Many cases compare with them, and each is read once for all."""

    def __init__(self, world: World, resolution: Resolution, keeping: Keeping) -> None:
        self.kept = keeping.references()
        self._world, self._resolution = world, resolution

    def rows(self, reader: Reader, n: int) -> Tensor:
        """What a reader says of the first n, (n, ...)."""
        kind = type(self._world).__name__
        world = spelled(self._world, [f"{kind}.dino", f"{kind}.clip"])
        at_once = max(1, min(REFERENCES, ROOM // self._resolution.pixels))
        batches = [Batch(rows, self._address(world, rows)) for rows in parts(n, at_once)]
        return _rows_or_error(read_all(batches, [reader], self._make, self.kept)[reader.key])

    def one(self, row: int) -> Tensor:
        """(3, H, W): one of them."""
        return self._make(range(row, row + 1))[0]

    def once(self, made_of: Sequence[object], rows: Tensor, compute: Callable[[], Sequence[float]]) -> list[float]:
        """Numbers computed from such rows, kept. made_of: what is computed, and its settings."""
        return self.kept.once(made_of, rows, compute)

    def _make(self, rows: range) -> Tensor:
        return self._world.references(rows.stop, self._resolution, rows.start)

    def _address(self, world: object, rows: range) -> str:
        """A digest of the world's settings and files, and of the first image: the code that makes it may change."""
        return digest([world, str(self._resolution), rows.start, rows.stop, content(self._make(rows[:1])), versions()])


def parts(n: int, size: int) -> list[range]:
    """The numbers below n, so many at a time."""
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


@cache
def versions() -> list[str]:
    """Of the packages that make and read images."""
    return [version(name) or "" for name in PACKAGES]


def _rows_or_error(found: Tensor | Exception) -> Tensor:
    if isinstance(found, Exception):
        raise found
    return found
