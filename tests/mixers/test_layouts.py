"""Is the ∆ConvBlock as fast as the better of the two layouts of its maps, on this machine? Prints a table.

    pytest --slow -s tests/mixers/test_layouts.py

Kernels 7 to 13 at shapes of SD1.5 (C = 320, 64 x 64) and PixArt (C = 1152, 32 x 32), fp32 and bf16, against the same
block in plain torch kept channels-last, and with planar copies everywhere. Calls alternate in the order ABCCBA, so that
what else the machine does meets all three. A cell fails where the whole 95 % interval of the ratio to the better
layout, taken between calls side by side, lies above 1.05. The choice is made at the first call, which warms up.
"""

import statistics
import time
from collections.abc import Callable

import pytest
import torch

from deltaconv import DeltaConvBlock
from harness.measured.alternation import ratio_of
from harness.seats import processor

ROUNDS = 20
ALLOWED = 1.05
SHAPES = {"C=320 64x64": (320, (64, 64)), "C=1152 32x32": (1152, (32, 32))}
CELLS = [
    (shape, dtype, kernel) for shape in SHAPES for dtype in (torch.float32, torch.bfloat16) for kernel in (7, 9, 11, 13)
]


class Always(dict[object, bool]):
    """One layout for every map."""

    def __init__(self, planar: bool) -> None:
        super().__init__()
        self.planar = planar

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: object) -> bool:
        return self.planar


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype", "kernel"), CELLS, ids=[f"{shape} {str(dtype)[6:]} k={kernel}" for shape, dtype, kernel in CELLS]
)
@torch.no_grad()
def test_the_block_is_never_slower_than_105_percent_of_the_better_layout(
    shape: str, dtype: torch.dtype, kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels, grid = SHAPES[shape]
    block = DeltaConvBlock(channels, kernel).to(dtype).eval()
    tokens_BNC = torch.randn(1, grid[0] * grid[1], channels, dtype=dtype)
    found: dict[processor.Convolution, bool] = {}
    choices: dict[str, object] = {"chosen": found, "channels-last": Always(False), "planar": Always(True)}

    def call(choice: str) -> float:
        monkeypatch.setattr(processor, "_planar_is_faster", choices[choice])
        begun = time.perf_counter()
        block(tokens_BNC, grid)
        return (time.perf_counter() - begun) * 1e3

    taken_ms = alternate(call, list(choices))
    median_ms = {choice: statistics.median(times) for choice, times in taken_ms.items()}
    better = min(("channels-last", "planar"), key=median_ms.__getitem__)
    ratio = ratio_of(list(zip(taken_ms["chosen"], taken_ms[better], strict=True)))
    assert ratio.low is not None
    print(
        f"\n{shape}  {str(dtype)[6:]:8}  k={kernel:2}  "
        + "  ".join(f"{choice} {value:7.2f} ms" for choice, value in median_ms.items())
        + f"  over {better} {ratio.value:.3f} from {ratio.low:.3f}; "
        + ", ".join(f"{'planar' if planar else 'as it is'} at {key.size[0]}" for key, planar in found.items())
    )
    assert ratio.low <= ALLOWED


def alternate(call: Callable[[str], float], names: list[str]) -> dict[str, list[float]]:
    """Milliseconds of each, in turns that run forwards and backwards, after one call that warms up."""
    for name in names:
        call(name)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS):
        for name in names if turn % 2 == 0 else reversed(names):
            taken[name].append(call(name))
    return taken
