"""The configurations of a diffusers pipeline folder: enough to know every shape without reading a weight."""

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
        known = sorted(path.parent.name for path in CONFIGS.glob("*/model_index.json"))
        if config not in known:
            raise BadInput(f"there is no shipped configuration {config!r}: choose from {', '.join(known)}")
        return cls(CONFIGS / config)

    @property
    def pipeline(self) -> str:
        """The name of the diffusers pipeline class."""
        return str(json_of(self.folder / "model_index.json").get("_class_name"))

    def component(self, name: str) -> dict[str, Any]:
        """The configuration of one component."""
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

    def names(self, name: str) -> bool:
        """Whether the pipeline has a component of that name."""
        return name in json_of(self.folder / "model_index.json")

    def class_of(self, name: str) -> str:
        """The class that the index names for a component."""
        return str(json_of(self.folder / "model_index.json")[name][1])

    def native(self, part: str) -> Resolution:
        """The size that a denoiser's configuration names."""
        side = self.shrink * int(self.value(part, "sample_size"))
        return Resolution(side, side)

    def fingerprint(self) -> str:
        """Sixteen hex digits over the index and the configuration of every component."""
        files = [self.folder / "model_index.json", *sorted(self.folder.glob("*/*config.json"))]
        return digest({path.relative_to(self.folder).as_posix(): json_of(path) for path in files})

    @property
    def shrink(self) -> int:
        """How many pixels of a side become one latent."""
        return int(2 ** (len(self.value("vae", "block_out_channels")) - 1))
