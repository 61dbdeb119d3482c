"""What `python -m harness train=NAME` does: trains one part of the embedded world from its recipe in conf/train."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from harness.seats.sources import read_tensors
from harness.shapes.captions import Scene, scenes
from harness.shapes.world import TRAINING_SEED


class Training(Protocol):
    """Trains something on scenes, saves it in a folder, and says how good it became."""

    def run(self, folder: Path, scenes: Sequence[Scene], checkpoint: Path, device: str) -> None: ...

    def figures(self, folder: Path) -> dict[str, float]: ...


@dataclass(frozen=True)
class WorldPart:
    """A training, the number of scenes that it sees, and where its weights go (fp16 safetensors, with figures.json)."""

    training: Training
    out: str
    scenes: int = 20_000
    device: str = "cpu"

    def train(self) -> None:
        """Train, or go on from its stages' checkpoints beside the folder; print the figures as one JSON object."""
        folder = Path(self.out)
        chosen = list(islice(scenes(TRAINING_SEED), self.scenes))
        checkpoint = folder.with_name(f"{folder.name}-checkpoint.safetensors")
        self.training.run(folder, chosen, checkpoint, self.device)
        halve(folder)
        figures = self.training.figures(folder)
        if figures:
            (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        for stage in folder.parent.glob(f"{checkpoint.stem}*{checkpoint.suffix}"):
            stage.unlink()
        print(json.dumps({"folder": folder.as_posix(), **figures}))


def halve(folder: Path) -> None:
    """Rewrite every safetensors file below a folder in fp16: half the size, and no figure moves."""
    import torch
    from safetensors.torch import save_file

    for path in sorted(folder.rglob("*.safetensors")):
        tensors, header = read_tensors(path)
        small = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
        save_file(small, path, header or None)
