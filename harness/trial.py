"""A trial: a case come alive. Everything is made when it is first asked for, and made once."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.distillation.student import Student
from harness.features.world import World
from harness.models.model import Model, Parts
from harness.models.weights import RANDOM
from harness.records.case import Case, Resolution
from harness.records.spelled import digest
from harness.seats.checkpoint import Weighted
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
    ) -> None:
        self.case = case
        self.model = model
        self.world = world
        self.untrained_allowed = untrained_allowed
        self._factory = factory
        self._student = student
        self._weighted: Weighted | None = None
        self._images: Tensor | None = None
        self._references: dict[tuple[int, Resolution], Tensor] = {}

    @property
    def trained(self) -> bool:
        """False where the variant has parameters that nothing has trained, or the model's own are random."""
        return self.model.source != RANDOM and (self._student.available or self._student.exact)

    @property
    def exact(self) -> bool:
        """Whether the variant is the teacher's own attention."""
        return self._student.exact

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
        notes = tuple(getattr(self.world, "notes", ()))
        if self._student.published is None or self._weighted is None:
            return notes
        return (f"published weights, {self._weighted.account()}", *notes)

    @property
    def prompts(self) -> list[str]:
        """One prompt an image: each of the world's prompts with each of the case's seeds, seeds changing first."""
        return [prompt for prompt in self.world.prompts(self._prompt_count) for _ in self.case.seeds][: self.case.n]

    @property
    def seeds(self) -> list[int]:
        """One seed an image. The prompt's place is mixed in, so that no two images share their noise."""
        seeds = self.case.seeds
        return [_seed(seeds[i % len(seeds)], i // len(seeds)) for i in range(self.case.n)]

    def images(self) -> Tensor:
        """(n, 3, H, W) in [0, 1], generated once."""
        if self._images is None:
            case = self.case
            with self.denoiser():
                self._images = self.model.generate(
                    self.prompts, self.seeds, case.resolution, case.steps, case.guidance, case.batch
                )
        return self._images

    @property
    def made_images(self) -> Tensor | None:
        """The images, if a metric has asked for them."""
        return self._images

    def references(self, n: int | None = None) -> Tensor:
        """Real images of the world at the case's resolution, n of them or as many as there are images."""
        key = (n or self.case.n, self.case.resolution)
        if key not in self._references:
            self._references[key] = self.world.references(*key)
        return self._references[key]

    @property
    def _prompt_count(self) -> int:
        return -(-self.case.n // len(self.case.seeds))


def _seed(seed: int, prompt: int) -> int:
    """Another number for each seed and each of a million prompts: seeds below a thousand stand in the last digits."""
    thousands, rest = divmod(seed, 1000)
    return rest + 1000 * (prompt + thousands * 2**20)
