"""The one training loop: AdamW and Muon, warm-up, cosine decay, moving average of the weights, checkpoint and resume.

A step's data is a function of the step's number, so a run that was stopped and resumed sees what an unbroken one sees.
Checkpoints are safetensors like everything else that is loaded here.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.distillation.muon import Muon, matrices

Loss = Callable[[int], Tensor]
"""The loss of one step, drawn from the step's number alone."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `average` is the decay of the moving average, `precision` fp32 or bf16 (autocast).

    AdamW trains at `learning_rate`. Where `matrix_rate` is given, Muon trains the matrices, at that rate. Rates decay
    over `steps`; a run that is good enough before ends at step `until`.
    """

    steps: int
    learning_rate: float
    matrix_rate: float | None = None
    until: int | None = None
    warmup: int = 100
    weight_decay: float = 0.01
    average: float = 0.998
    clip: float = 1.0
    precision: str = "bf16"
    save_every: int = field(default=200, repr=False)

    @property
    def last(self) -> int:
        """How many steps are taken."""
        return self.steps if self.until is None else min(self.until, self.steps)

    def share(self, step: int) -> float:
        """Share of the learning rates at a step: linear warm-up, then half a cosine down to a fiftieth."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """AdamW for all that is trained, or Muon for the matrices and AdamW for the rest."""
        inner = matrices(module) if self.matrix_rate is not None else {}
        rest = [value for key, value in module.named_parameters() if value.requires_grad and key not in inner]
        found: list[torch.optim.Optimizer] = []
        if rest:
            found.append(torch.optim.AdamW(rest, self.learning_rate, weight_decay=self.weight_decay))
        if inner and self.matrix_rate is not None:
            found.append(Muon(inner.values(), self.matrix_rate, self.weight_decay))
        return found


class Progress:
    """One line on stderr that is rewritten in a terminal and printed every so often in a log."""

    def __init__(self, name: str, total: int, every: int = 100) -> None:
        self.name, self.total, self.every = name, total, every

    def show(self, step: int, loss: float | Tensor, elapsed_s: float, done_before: int) -> None:
        """Print step, loss and the time left; a loss that is not shown is not waited for on a GPU."""
        last, terminal = step == self.total, sys.stderr.isatty()
        if not (terminal or last or step % self.every == 0):
            return
        left_s = elapsed_s / max(1, step - done_before) * (self.total - step)
        line = f"{self.name}: step {step}/{self.total}, loss {float(loss):.4f}, {left_s / 60:.1f} min left"
        if terminal:
            print(f"\r{line}\x1b[K", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def train(module: nn.Module, loss: Loss, schedule: Schedule, name: str, checkpoint: Path | None = None) -> float:
    """Train the parameters of `module` that require gradients; leave their moving average in it. Returns the last loss.

    With a checkpoint path the state is kept there, and a run that finds one goes on from it: a finished one takes no
    step again. Who gave the path removes the file, once nothing comes after that could be stopped.
    """
    parameters = {key: value for key, value in module.named_parameters() if value.requires_grad}
    optimizers = schedule.optimizers(module)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    average = {key: value.detach().clone() for key, value in parameters.items()}
    smooth: Tensor | float
    first, smooth = _restore(checkpoint, parameters, average, optimizers)
    progress, begun = Progress(name, schedule.last), time.monotonic()
    device = next(iter(parameters.values())).device.type
    for step in range(first, schedule.last):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule.share(step)
        with _precision(device, schedule.precision):
            value = loss(step)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(parameters.values(), schedule.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        _follow(average, parameters, min(schedule.average, (step + 1) / (step + 10)))
        smooth = _smoothed(smooth, value.detach().double())
        progress.show(step + 1, smooth, time.monotonic() - begun, first)
        if checkpoint is not None and ((step + 1) % schedule.save_every == 0 or step + 1 == schedule.last):
            _save(checkpoint, step + 1, float(smooth), parameters, average, optimizers)
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(average[key])
    return float(smooth)


def _smoothed(before: Tensor | float, value: Tensor) -> Tensor:
    """The loss as it is shown; it stays on the device, for reading it at every step would make a GPU wait."""
    return value if not isinstance(before, Tensor) and math.isnan(before) else 0.98 * before + 0.02 * value


@contextmanager
def _precision(device: str, precision: str) -> Iterator[None]:
    with ExitStack() as stack:
        if precision == "bf16":
            stack.enter_context(torch.autocast(device, torch.bfloat16))
            if device == "cpu":
                stack.enter_context(_Fp32Attention())
        yield


class _Fp32Attention(TorchFunctionMode):
    """Attention in fp32 under CPU autocast: torch's bf16 backward of it is three times slower than the fp32 one."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not nn.functional.scaled_dot_product_attention:
            return function(*args, **kwargs)
        query, key, value = args[:3]
        with torch.autocast("cpu", enabled=False):
            return function(query.float(), key.float(), value.float(), *args[3:], **kwargs).to(query.dtype)


@torch.no_grad()
def _follow(average: dict[str, Tensor], parameters: dict[str, nn.Parameter], decay: float) -> None:
    torch._foreach_lerp_(list(average.values()), list(parameters.values()), 1 - decay)


def _save(
    path: Path,
    step: int,
    loss: float,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    from safetensors.torch import save_file

    tensors = {f"average/{key}": value for key, value in average.items()}
    tensors |= {f"value/{key}": value.detach() for key, value in parameters.items()}
    for key, value in parameters.items():
        state = _state(value, optimizers)
        tensors |= {f"{name}/{key}": state[name] for name in state if name != "step"}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    save_file(
        {key: value.contiguous() for key, value in tensors.items()}, fresh, {"step": str(step), "loss": repr(loss)}
    )
    os.replace(fresh, path)


def _state(value: nn.Parameter, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """What whichever optimizer trains the parameter remembers of it."""
    return next((optimizer.state[value] for optimizer in optimizers if value in optimizer.state), {})


def _restore(
    path: Path | None,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> tuple[int, float]:
    """Load a checkpoint where there is one; returns the number of steps done and the smoothed loss, nan for none."""
    from safetensors import safe_open

    if path is None or not path.exists():
        return 0, math.nan
    with safe_open(path, framework="pt") as file, torch.no_grad():
        step, loss = int(file.metadata()["step"]), float(file.metadata()["loss"])
        for key, value in parameters.items():
            value.copy_(file.get_tensor(f"value/{key}"))
            average[key].copy_(file.get_tensor(f"average/{key}"))
        names = {id(value): key for key, value in parameters.items()}
        for optimizer in optimizers:
            kinds = ("momentum",) if isinstance(optimizer, Muon) else ("exp_avg", "exp_avg_sq")
            for value in optimizer.param_groups[0]["params"]:
                state = {kind: file.get_tensor(f"{kind}/{names[id(value)]}").to(value) for kind in kinds}
                optimizer.state[value] = {"step": torch.tensor(float(step))} | state
    return step, loss
