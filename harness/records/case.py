"""A case: one point of the sweep's grid, as a picklable value whose key is a hash of what changes its result."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.records.spelled import digest

NAMED = ("model", "variant", "resolution", "weights", "mixer", "config", "processor")
"""Fields of a case that stand for themselves wherever it is shown; all others are its settings."""


class BadInput(ValueError):
    """What the user gave cannot be used: the message is the one sentence that the user sees (exit status 2)."""


def is_whole(value: object, least: int) -> bool:
    """Whether it is a whole number of at least so much; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def at_least(part: object, called: str, **bounds: float) -> None:
    """Raise BadInput for the first setting of a part that is below its bound."""
    for setting, least in bounds.items():
        if (value := getattr(part, setting)) < least:
            raise BadInput(f"{called}.{setting}={value} is not possible: give at least {least}")


@dataclass(frozen=True)
class Resolution:
    """Size of an image in pixels, written `1024` where square and `4096x2160` (width x height) otherwise.

    Sizes are ordered by their pixels.
    """

    width: int
    height: int

    @classmethod
    def parse(cls, value: "int | str | Resolution") -> "Resolution":
        """Read `512`, `"512"` or `"1024x1536"`; raise BadInput for anything else."""
        if isinstance(value, Resolution):
            return value
        match = re.fullmatch(r"([0-9]{1,7})(?:x([0-9]{1,7}))?", str(value).strip())
        if match is None or isinstance(value, bool):
            raise BadInput(
                f"resolution {value!r} is not a size: give a side such as 512, or WIDTHxHEIGHT such as 1024x1536"
            )
        width = int(match[1])
        height = int(match[2] or width)
        if min(width, height) < 1:
            raise BadInput(f"resolution {value!r} has no pixels: give sides of at least one latent patch")
        return cls(width, height)

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def __lt__(self, other: "Resolution") -> bool:
        return (self.pixels, self.width) < (other.pixels, other.width)

    def __str__(self) -> str:
        return str(self.width) if self.width == self.height else f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Case:
    """Model, variant, resolution, and every setting that changes a result.

    `weights`: a fingerprint of the model's files and of the student's, or `shapes` where a cost is taken on the
    configuration alone. `mixer`: the factory of the variant's mixers, spelled out with all settings. `config`: a digest
    of the model's class and configuration. `processor`: the name of what computes. `sampler`: where it is not multistep
    DPM-Solver. An old record may lack the last four, and its key is without. `metrics` are not part of the identity, so
    that a record can be extended by one that it lacks.
    """

    model: str
    variant: str
    resolution: Resolution
    metrics: tuple[str, ...]
    world: str
    n: int
    steps: int
    guidance: float
    seeds: tuple[int, ...]
    batch: int
    dtype: str
    device: str
    weights: str
    mixer: str = ""
    config: str = ""
    processor: str = ""
    sampler: str = ""

    def identity(self) -> dict[str, Any]:
        """The fields that change a result, as JSON values: of a device its kind, which of several is no matter."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields |= {"resolution": str(self.resolution), "seeds": list(self.seeds)}
        fields["device"] = self.device.partition(":")[0]
        unknown = [name for name in ("mixer", "config", "processor", "sampler") if not fields[name]]
        return {name: value for name, value in fields.items() if name not in ("metrics", *unknown)}

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits that name this case on disk."""
        return digest(self.identity())

    @property
    def pixels(self) -> int:
        return self.resolution.pixels

    @property
    def prompt_count(self) -> int:
        """Prompts of its n images, one for each seed of a prompt."""
        return -(-self.n // len(self.seeds))

    @property
    def made(self) -> tuple[str, str]:
        """What the variant is made of here: its mixers with their settings, and the model's configuration."""
        return self.mixer, self.config

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The fields that change a result and have no place of their own in a record, as JSON values."""
        return {name: value for name, value in self.identity().items() if name not in NAMED}

    def __str__(self) -> str:
        return f"{self.model} {self.variant} {self.resolution}"
