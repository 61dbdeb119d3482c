"""Several processes that train one student together, as `accelerate launch` or `torchrun` starts them.

Each computes the gradients of its share of every batch; these are averaged, so that all of them take the same step.
"""

import os
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness.records.case import BadInput


def count() -> int:
    """How many train together: one, where nobody launched several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def index() -> int:
    """Which of the processes this one is."""
    return 0 if count() == 1 else int(_state().process_index)


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return count() == 1 or bool(_state().is_main_process)


def device_of(device: str) -> str:
    """This process's own device of a kind: with several GPUs each has its own."""
    return device if count() == 1 or device != "cuda" else str(_state().device)


def share_of(batch: int) -> slice:
    """This process's rows of a batch; BadInput where they cannot be shared out evenly."""
    processes = count()
    if batch % processes:
        raise BadInput(f"a batch of {batch} cannot be shared by {processes} processes: give a multiple of {processes}")
    rows = batch // processes
    return slice(index() * rows, (index() + 1) * rows)


def averaged(parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
    """Replace the gradients by their mean over the processes, in one message; the loss's mean."""
    if count() == 1:
        return loss
    from accelerate.utils import reduce

    gradients = [value.grad for value in parameters if value.grad is not None]
    flat = torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])
    mean = reduce(flat, "mean")
    parts = mean[1:].split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return cast(Tensor, mean[0])


def agreed(seconds: float) -> float:
    """The first process's clock, so that all end at the same step."""
    if count() == 1:
        return seconds
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor(seconds, dtype=torch.float32, device=_state().device)))


def wait() -> None:
    """Go on when all are here."""
    if count() > 1:
        _state().wait_for_everyone()


def _state() -> Any:
    """Accelerate's account of the processes (on a CPU it has to be told); BadInput where it misses some of them."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
    if state.num_processes != count():
        raise BadInput(
            f"{count()} processes were launched and {state.num_processes} found each other: start them with "
            "`accelerate launch` or `torchrun`, which set RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT"
        )
    return state
