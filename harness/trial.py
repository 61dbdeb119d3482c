"""A trial: a case with all that its metrics ask of it. Each thing is made when it is first asked for, and once."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from harness.distillation.student import Student
from harness.features.kept import Reader
from harness.features.world import World
from harness.image_stream import Images, Readers, References
from harness.kept_images import NOTHING_KEPT, Keeping
from harness.models.model import Model, Parts
from harness.models.weights import RANDOM
from harness.records.case import Case
from harness.records.spelled import digest
from harness.seats.checkpoint import Weighted
from harness.seats.factory import is_training_free
from harness.seats.surgery import Factory, Seat, Seating, seated, seating_of


class Trial:
    """What a metric sees. `trained`: whether the variant has weights of its own or needs none."""

    def __init__(
        self,
        case: Case,
        model: Model,
        factory: Factory,
        world: World,
        student: Student,
        untrained_allowed: bool = False,
        keeping: Keeping = NOTHING_KEPT,
        readers: Readers = lambda trial: (),
    ) -> None:
        """keeping: what is kept of the images. readers: of all metrics of the case, so that one pass serves them."""
        self.case = case
        self.model = model
        self.world = world
        self.untrained_allowed = untrained_allowed
        self._factory = factory
        self._student = student
        self._weighted: Weighted | None = None
        self.images = Images(self, keeping, readers)
        self.real = References(world, case.resolution, keeping)

    @property
    def trained(self) -> bool:
        """False where the variant has parameters that nothing has trained, or the model's own are random."""
        able = self._student.available or self._student.exact or is_training_free(self._factory)
        return self.model.source != RANDOM and able

    @property
    def exact(self) -> bool:
        """Whether the variant is the teacher's own attention."""
        return self._student.exact

    @property
    def learning_curve(self) -> dict[str, Any] | None:
        """The errors of the student's training by its steps, where they were kept."""
        return self._student.learning_curve()

    @property
    def factory(self) -> Factory:
        """Makes the variant's mixers, with the student's weights where there are any."""
        if self._weighted is None and self._student.available:
            self._weighted = Weighted(self._factory, self._student.checkpoint())
        return self._weighted or self._factory

    @property
    def bare_factory(self) -> Factory:
        """Makes the variant's mixers as they are before any training."""
        return self._factory

    @contextmanager
    def denoiser(self, factory: Factory | None = None, parts: Parts = "all") -> Iterator[nn.Module]:
        """The denoiser on the case's device, seated by a factory: by default the variant's, with its weights.

        parts: `denoiser` where it is called on drawn text, and neither encodes nor makes images.
        """
        self.model.load(self.case.device, self.case.dtype, parts)
        with ExitStack() as seats:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._fresh_seed)
                seats.enter_context(seated(self.model.denoiser, factory or self.factory))
            yield self.model.denoiser

    @property
    def _fresh_seed(self) -> int:
        """What weights that nothing has trained are drawn from: model and variant, and not the cases before."""
        return int(digest([self.case.config, self.case.mixer])[:8], 16)

    @contextmanager
    def meta_denoiser(self) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
        """The same on the meta device, with the arguments of one call at the case's resolution, batch 1."""
        twin = self.model.on_meta(self.case.dtype)
        self._seat_once(twin.denoiser)
        yield twin.denoiser, twin.example(self.case.resolution)

    def seats(self) -> dict[str, Seat]:
        """The seat of each site, on the meta device."""
        return self._seat_once(self.model.on_meta(self.case.dtype).denoiser).seats

    def _seat_once(self, denoiser: nn.Module) -> Seating:
        """The variant stays in the twin for its other metrics and sizes: nobody needs the twin bare."""
        seating = seating_of(denoiser)
        if seating is not None and seating.name == self.case.mixer != "":
            return seating
        if seating is not None:
            seating.undo()
        return Seating(denoiser, self._factory, self.case.mixer)

    def notes(self) -> tuple[str, ...]:
        """What the record must say of published weights (what was loaded, missing, left over) and of the world."""
        notes = (*getattr(self.world, "notes", ()), *self.images.kept.notes, *self.real.kept.notes)
        if self._student.published is None or self._weighted is None:
            return notes
        return (f"published weights, {self._weighted.account()}", *notes)

    @property
    def prompts(self) -> list[str]:
        """One prompt an image: each of the world's prompts with each of the case's seeds, seeds changing first."""
        return [prompt for prompt in self.world.prompts(self.case.prompt_count) for _ in self.case.seeds][: self.case.n]

    @cached_property
    def captions(self) -> str:
        """Which prompts these are: scores of others are no pairs of theirs."""
        return digest(self.prompts)[:8]

    @property
    def seeds(self) -> list[int]:
        """One seed an image. The prompt's place is mixed in, so that no two images share their noise."""
        seeds = self.case.seeds
        return [_seed(seeds[i % len(seeds)], i // len(seeds)) for i in range(self.case.n)]

    def rows(self, reader: Reader) -> Tensor:
        """What a reader says of each image, (n, ...): each is made once, read by all readers, and forgotten."""
        return self.images.rows(reader)

    def reference_rows(self, reader: Reader, n: int) -> Tensor:
        """What a reader says of the first n real images of the world, (n, ...)."""
        return self.real.rows(reader, n)

    def references(self, n: int) -> Tensor:
        """(n, 3, H, W): the first few real images. What looks at all of them is a reader."""
        return self.world.references(n, self.case.resolution)

    def kept_images(self) -> dict[str, str]:
        """The images that became files, as the record names them; beside the teacher's the real ones of the prompts."""
        pictures = self.images.pictures
        if pictures is None:
            return {}
        beside = pictures.real(self.real.one) if self.exact and self.world.pictured else {}
        return pictures.named() | beside

    def dismiss_judges(self) -> None:
        """Let the extractors go from a device whose memory is scarce; on a CPU they stay for the next case."""
        if not self.case.device.startswith("cpu") and self.images.pictures is not None:
            self.world.dino.leave()
            self.world.clip.leave()


def _seed(seed: int, prompt: int) -> int:
    """Another number for each seed and each of a million prompts: seeds below a thousand stand in the last digits."""
    thousands, rest = divmod(seed, 1000)
    return rest + 1000 * (prompt + thousands * 2**20)
