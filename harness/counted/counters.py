"""Three counters of the same call: our prices, torch's FlopCounterMode, and fvcore's analysis of a trace.

They share neither formulas nor the level at which they see an operator, so that what one of them forgets or counts
twice shows as a difference, and a difference is an error.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from harness.counted import fvcore_count
from harness.counted.meta_results import answered
from harness.counted.operators import FusedAttention, aten, known, price
from harness.counted.parts import CONVOLUTION, OTHER
from harness.seats.mixer import Grid, TokenMixer

AUDIT_GRID = (14, 18)  # where a mixer's own price is compared: small, not square, and larger than a 13 x 13 window


class Disagreement(RuntimeError):
    """Two counts of the same work differ: the sentence holds both."""


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the prices of all operators by kind; raises Unpriced for one without a price."""

    def __init__(self, inside: Sequence[str] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside = inside
        self.kinds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not known(func):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = answered(func, args, kwargs)
        if flops := price(func, args, output):
            elsewhere = CONVOLUTION if func.overloadpacket is aten.convolution else OTHER
            self.kinds[self.inside[-1] if self.inside else elsewhere] += flops
        return output


def tally(module: nn.Module, *args: Any, inside: Sequence[str] = (), **kwargs: Any) -> dict[str, int]:
    """FLOPs of one call on the meta device by kind, by two counters. inside: the parts of the model that are at work.

    Raises Unpriced for an operator that nobody priced, and Disagreement where torch's counter finds another sum.
    """
    from torch.utils.flop_counter import FlopCounterMode

    formulas = {aten._scaled_dot_product_flash_attention_for_cpu: _torch_attention_formula}
    counter, ledger = FlopCounterMode(display=False, custom_mapping=formulas), Ledger(inside)
    with torch.no_grad(), FusedAttention(), counter, ledger:
        module(*args, **kwargs)
    second = int(counter.get_total_flops())
    if second != ledger.kinds.total():
        raise Disagreement(f"our counter finds {ledger.kinds.total()} FLOPs, torch's {second}: one of them is wrong")
    return dict(ledger.kinds)


def count(module: nn.Module, *args: Any, **kwargs: Any) -> int:
    """FLOPs of one call on the meta device, by all three counters; raises Unpriced and Disagreement."""
    flops = sum(tally(module, *args, **kwargs).values())
    agree(flops, fvcore_count.analysis(module, *args, **kwargs))
    return flops


def agree(flops: int, third: fvcore_count.Analysis) -> None:
    """Raise Disagreement, naming what fvcore has no handler for, where it finds another number than the other two."""
    if flops != third.flops:
        blind = f"; it knows no {', '.join(third.unpriced)}" if third.unpriced else ""
        raise Disagreement(
            f"our counter and torch's find {flops} FLOPs, fvcore {third.flops}: one of them is wrong{blind}"
        )


class Definition(nn.Module):
    """A mixer by its formula, which is what its price counts: a fast path may do less (∆Conv) or more (tiles)."""

    def __init__(self, mixer: TokenMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return self.mixer.definition(tokens_BNC, grid)


def audit(mixer: TokenMixer, channels: int, dtype: torch.dtype) -> None:
    """Raise Disagreement where a mixer asks another price than its definition costs, at one small grid."""
    height, width = AUDIT_GRID
    counted = count(Definition(mixer), torch.empty(1, height * width, channels, dtype=dtype, device="meta"), AUDIT_GRID)
    if counted != (asked := mixer.flops(AUDIT_GRID)):
        raise Disagreement(
            f"{type(mixer).__name__} asks {asked} FLOPs for a grid of {height} x {width}, its definition costs "
            f"{counted}: correct its flops"
        )


def _torch_attention_formula(query: Any, key: Any, value: Any, *ignored: Any, **options: Any) -> int:
    """torch registers this formula from 2.14 on only."""
    from torch.utils.flop_counter import sdpa_flop_count

    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]
