"""The configurations of a diffusers pipeline folder: enough to know every shape without reading a weight."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.case import BadInput, Resolution
from harness.records.spelled import digest
from harness.seats.sources import json_of

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Layout:
    """A folder with model_index.json and one folder a component, each with its JSON configuration."""

    folder: Path

    @classmethod
    def shipped(cls, config: str) -> "Layout":
        """The configuration of that name that travels with the package; BadInput lists those that do."""
        if config not in (known := cls.known()):
            raise BadInput(f"there is no shipped configuration {config!r}: choose from {', '.join(known)}")
        return cls(CONFIGS / config)

    @classmethod
    def known(cls, pipelines: Sequence[str] | None = None) -> list[str]:
        """The names of the configurations that travel with the package: of all pipelines, or of these."""
        names = sorted(path.parent.name for path in CONFIGS.glob("*/model_index.json"))
        return [name for name in names if pipelines is None or cls(CONFIGS / name).pipeline in pipelines]

    @property
    def index(self) -> dict[str, Any]:
        """What model_index.json says: the pipeline's class and, by name, its components."""
        return json_of(self.folder / "model_index.json")

    @property
    def pipeline(self) -> str:
        return str(self.index.get("_class_name"))

    def component(self, name: str) -> dict[str, Any]:
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        return json_of(self.folder / name / file)

    def value(self, name: str, key: str) -> Any:
        """One entry of a component's configuration; BadInput where it is not there."""
        config = self.component(name)
        if key not in config:
            raise BadInput(
                f"{self.folder / name} has a configuration without {key}: write it again with save_pretrained"
            )
        return config[key]

    def number(self, name: str, key: str) -> int:
        """One entry that has to be a whole number of at least 1; BadInput where it is not."""
        value = self.value(name, key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadInput(
                f"{self.folder / name} has a configuration with {key}={value!r}, where a whole number of at least 1 "
                "belongs: write it again with save_pretrained"
            )
        return value

    def accepted(self, model: str, pipelines: Sequence[str], part: str) -> "Layout":
        """Itself; BadInput for a pipeline of another family, and for a denoiser that wants more than noisy latents."""
        if self.pipeline not in pipelines:
            raise BadInput(
                f"model {model} is a {' or '.join(pipelines)}, but {self.folder} holds a {self.pipeline}: "
                "give a pipeline of the same family, or choose the model that fits it"
            )
        taken = made = self.number(part, "in_channels")
        if (self.folder / "vae" / "config.json").is_file() and "latent_channels" in self.component("vae"):
            made = self.number("vae", "latent_channels")
        if taken != made:
            raise BadInput(
                f"{self.folder} has a {part} of {taken} input channels, but latents of {made}: it wants more than text "
                "(a mask, an image to edit); give a text-to-image model"
            )
        return self

    def native(self, part: str) -> Resolution:
        """The size that a denoiser's configuration names."""
        side = self.shrink * self.number(part, "sample_size")
        return Resolution(side, side)

    def fingerprint(self) -> str:
        """Sixteen hex digits over the index and the configuration of every component."""
        files = [self.folder / "model_index.json", *sorted(self.folder.glob("*/*config.json"))]
        return digest({path.relative_to(self.folder).as_posix(): json_of(path) for path in files})

    @property
    def shrink(self) -> int:
        """How many pixels of a side become one latent."""
        levels = self.value("vae", "block_out_channels")
        if not isinstance(levels, list) or not levels:
            raise BadInput(
                f"{self.folder / 'vae'} has a configuration with block_out_channels={levels!r}, where a list of widths "
                "belongs: write it again with save_pretrained"
            )
        return int(2 ** (len(levels) - 1))


def check_size(model: str, resolution: Resolution, multiple: int) -> None:
    """BadInput, with the nearest sizes that work, for one whose sides are no multiples of so many pixels."""
    sides = (resolution.width, resolution.height)
    if all(side > 0 and side % multiple == 0 for side in sides):
        return
    floors = [max(side // multiple, 1) * multiple for side in sides]
    ceilings = [max(math.ceil(side / multiple), 1) * multiple for side in sides]
    nearest = dict.fromkeys(str(Resolution(*near)) for near in (floors, ceilings))
    raise BadInput(
        f"{model} cannot make {resolution} pixels: its sides are multiples of {multiple}, "
        f"the nearest that {'work are' if len(nearest) > 1 else 'works is'} {' and '.join(nearest)}"
    )
