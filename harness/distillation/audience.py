"""Who is told of a training while it goes on.

What is told changes no bit of the training, and who hears it may neither stop it nor hold it up.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from harness.distillation.student import Student


class Hearer(Protocol):
    """Hears of one training."""

    @property
    def listening(self) -> bool:
        """False once what is told reaches nobody any more."""

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """Where the training's curves are after so many steps, by their names."""

    def picture(self, step: int, picture_3HW: Tensor) -> None:
        """What the student draws after so many steps, beside its teacher; in [0, 1]."""


class Audience(Protocol):
    """Hears of trainings, in whichever process they run: plain pickle sends it there."""

    def training(self, student: Student, told: Mapping[str, str]) -> AbstractContextManager[Hearer | None]:
        """A training that goes on as long as the context is open; None where nobody hears of it.

        told: what there is to say of it in words.
        """
