"""What a stopped training needs to go on: weights, their moving average, the optimizers' memory, and how far it was.

Safetensors like everything else that is loaded here, written beside the old one and put in its place at once, so that a
process that is killed at any moment leaves a whole file.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.distillation.muon import Muon
from harness.records.case import BadInput
from harness.seats.sources import read_tensors


@dataclass
class Progress:
    """Steps done, the smoothed loss (nan for none), seconds of training, also of the runs before; its curve."""

    step: int = 0
    loss: float = math.nan
    elapsed_s: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """What a training changes, by the parameters' names."""

    parameters: Mapping[str, nn.Parameter]
    average: Mapping[str, Tensor]
    optimizers: Sequence[torch.optim.Optimizer]

    def save(self, path: Path, progress: Progress, made_by: str) -> None:
        """Write all of it. BadInput where the disk is full or may not be written; what lay there before stays."""
        from safetensors.torch import save_file

        header = {"step": str(progress.step), "loss": repr(progress.loss), "elapsed_s": repr(progress.elapsed_s)}
        header["curve"] = json.dumps(progress.curve)
        fresh = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(self._tensors(), fresh, header | {"made_by": made_by})
            os.replace(fresh, path)
        except Exception as error:
            with suppress(OSError):
                fresh.unlink()
            if not _is_disk(error):
                raise
            raise BadInput(
                f"the checkpoint {path} cannot be written ({error}): free space there, or set DELTABENCH_CACHE to a "
                "folder that has room; the last one that was written stays"
            ) from error

    def restore(self, path: Path, made_by: str, progress: Progress) -> None:
        """Load a checkpoint where there is one. BadInput where another recipe wrote it, or nothing can read it."""
        from safetensors import SafetensorError

        if not path.exists():
            return
        try:
            tensors, header = read_tensors(path)
        except (OSError, SafetensorError) as error:
            raise BadInput(f"the checkpoint {path} cannot be read ({error}): remove it to begin again") from error
        if header.get("made_by") != made_by:
            raise BadInput(f"the checkpoint {path} is of another recipe: remove it to begin again, or give its recipe")
        self._load(tensors, int(header["step"]))
        progress.step, progress.loss = int(header["step"]), float(header["loss"])
        progress.elapsed_s, progress.curve = float(header["elapsed_s"]), json.loads(header.get("curve", "[]"))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While open, the parameters are their moving average."""
        own = {key: value.detach().clone() for key, value in self.parameters.items()}
        self._set(self.average)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for key, value in self.parameters.items():
            value.copy_(values[key])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"average/{key}": value for key, value in self.average.items()}
        tensors |= {f"value/{key}": value.detach() for key, value in self.parameters.items()}
        for key, value in self.parameters.items():
            state: Mapping[str, Tensor] = next((one.state[value] for one in self.optimizers if value in one.state), {})
            tensors |= {f"{name}/{key}": state[name] for name in state if name != "step"}
        return {key: value.contiguous() for key, value in tensors.items()}

    @torch.no_grad()
    def _load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        for key, value in self.parameters.items():
            value.copy_(tensors[f"value/{key}"])
            self.average[key].copy_(tensors[f"average/{key}"])
        names = {id(value): key for key, value in self.parameters.items()}
        for optimizer in self.optimizers:
            kinds = ("momentum",) if isinstance(optimizer, Muon) else ("exp_avg", "exp_avg_sq")
            for value in optimizer.param_groups[0]["params"]:
                state = {kind: tensors[f"{kind}/{names[id(value)]}"].to(value) for kind in kinds}
                optimizer.state[value] = {"step": torch.tensor(float(step))} | state


def _is_disk(error: Exception) -> bool:
    from safetensors import SafetensorError

    return isinstance(error, OSError) or (isinstance(error, SafetensorError) and "os error" in str(error).lower())
