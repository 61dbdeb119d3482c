"""The fused kernels against the definition, on CPU tensors, in Triton's interpreter.

Triton decides when it is imported whether it interprets, so this file has a process of its own: `test_kernels` runs it
with TRITON_INTERPRET=1. An operation costs the interpreter about 0.1 ms, whatever its size: grids are few and small.
Gaps are relative to the largest entry. Shapes: B batch, N tokens, C channels.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from deltaconv import DeltaConvBlock, kernels
from deltaconv.kernels_forward import INTERPRETED
from harness.seats.mixer import Grid

if not INTERPRETED:
    pytest.skip("test_kernels runs this file, with TRITON_INTERPRET=1", allow_module_level=True)

FP32 = 1e-5  # a few hundred additions
ROUNDINGS = 4  # of u, the gate, the resize, the closing map; the interpreter cuts bfloat16 off, a whole eps each
BOTH = (1.0, 0.5)


def block_of(channels: int, kernel: int, scales: tuple[float, ...], gate: str, form: str) -> DeltaConvBlock:
    """Weights of order one everywhere, biases too."""
    torch.manual_seed(0)
    block = DeltaConvBlock(channels, kernel, scales, gate, form, backend="triton")  # type: ignore[arg-type]
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block


def tokens(grid: Grid, batch: int, channels: int) -> Tensor:
    return torch.randn(batch, grid[0] * grid[1], channels, generator=torch.Generator().manual_seed(1))


def gap(given: Tensor, expected: Tensor) -> float:
    return float(((given.double() - expected).abs().max() / expected.abs().max()).detach())


def gaps(block: DeltaConvBlock, x_BNC: Tensor, grid: Grid, dtype: torch.dtype, learning: bool) -> list[float]:
    """Of the output and, where learning, of every gradient; the definition computes in fp64 on the same numbers."""
    block, x_BNC = block.to(dtype), x_BNC.to(dtype).requires_grad_(learning)
    weights = torch.linspace(-1, 1, x_BNC.numel()).view_as(x_BNC)
    given = block(x_BNC, grid)
    inputs = (x_BNC, *block.parameters())
    gradients = torch.autograd.grad((given * weights.to(dtype)).sum(), inputs) if learning else ()
    block, x_BNC = block.double(), x_BNC.detach().double().requires_grad_(learning)
    expected = block.definition(x_BNC, grid)
    inputs = (x_BNC, *block.parameters())
    wanted = torch.autograd.grad((expected * weights.to(dtype).double()).sum(), inputs) if learning else ()
    return [gap(*pair) for pair in zip((given, *gradients), (expected, *wanted), strict=True)]


@pytest.mark.parametrize(
    ("grid", "kernel", "scales", "gate"),
    [
        ((17, 17), 3, (1.0, 1 / 3), "sigmoid"),
        ((7, 13), 13, (0.5,), "scaled"),
        ((3, 5), 11, (1.0,), "sigmoid"),
        ((4, 6), 9, (1.0,), "scaled"),
        ((1, 19), 7, (1.0,), "scaled"),
    ],
)
@torch.no_grad()
def test_forward_is_the_definition(grid: Grid, kernel: int, scales: tuple[float, ...], gate: str) -> None:
    block = block_of(16, kernel, scales, gate, "released")
    assert max(gaps(block, tokens(grid, 1, 16), grid, torch.float32, learning=False)) < FP32


@pytest.mark.parametrize(
    ("grid", "kernel", "scales", "gate", "form", "batch"),
    [
        ((7, 13), 3, BOTH, "scaled", "released", 2),
        ((5, 7), 5, (1 / 3, 0.5, 1.0), "sigmoid", "released", 1),
        ((6, 5), 3, (0.5, 1 / 3), "scaled", "paper", 1),
    ],
)
def test_forward_and_gradients_are_those_of_the_definition(
    grid: Grid, kernel: int, scales: tuple[float, ...], gate: str, form: str, batch: int
) -> None:
    block = block_of(16, kernel, scales, gate, form)
    assert max(gaps(block, tokens(grid, batch, 16), grid, torch.float32, learning=True)) < FP32


def test_channels_may_outnumber_a_tile_and_fill_no_power_of_two() -> None:
    # 37 gated channels: two blocks of the convolution's 32, the second hardly filled.
    block = block_of(148, 3, (1.0,), "scaled", "released")
    assert max(gaps(block, tokens((3, 4), 1, 148), (3, 4), torch.float32, learning=True)) < FP32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_what_it_stores_and_nothing_else(dtype: torch.dtype) -> None:
    block = block_of(16, 3, BOTH, "scaled", "released")
    forward, *backward = gaps(block, tokens((4, 7), 1, 16), (4, 7), dtype, learning=True)
    assert forward < ROUNDINGS * torch.finfo(dtype).eps
    assert max(backward) < 2 * ROUNDINGS * torch.finfo(dtype).eps


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_weights_keep_nothing_for_backward(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    computed, returned = kernels.computed, []

    def spy(*arguments: Any, **settings: Any) -> tuple[Tensor, list[Tensor]]:
        returned.append(computed(*arguments, **settings))
        return returned[-1]

    monkeypatch.setattr(kernels, "computed", spy)
    block_of(8, 3, BOTH, "scaled", "released").requires_grad_(not frozen)(tokens((2, 3), 1, 8), (2, 3))
    assert [kept.shape for kept in returned[0][1]] == ([] if frozen else [(1, 6, 4), (1, 1, 4)])


def test_the_operator_and_the_plain_call_give_the_same_bits_forward_and_backward() -> None:
    """torch.compile takes the operator, eager code the plain call, which costs the processor less."""
    generator = torch.Generator().manual_seed(0)
    reduced, *both = (
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((1, 6, 8), *[(8, 1, 1, 1)] * 2, *[(8,)] * 2)
    )
    weights, biases = both[:2], both[2:]
    plain = kernels.pyramid(reduced, weights, biases, (2, 3), [(2, 3), (1, 1)], 1.0, True)
    made, _ = kernels.operator(reduced, weights, biases, [2, 3, 2, 3, 1, 1], 1.0, True, True)
    assert torch.equal(plain, made)
    ours, theirs = (torch.autograd.grad(each.square().sum(), (reduced, *both)) for each in (plain, made))
    assert all(map(torch.equal, ours, theirs))


def test_what_only_follows_shapes_meets_the_operator() -> None:
    """A fake tensor says that it is on CUDA, and holds nothing that a kernel could read."""
    with FakeTensorMode():
        reduced, weights, biases = torch.empty(1, 6, 8, device="cuda"), [torch.empty(8, 1, 1, 1)], [torch.empty(8)]
        assert kernels.pyramid(reduced, weights, biases, (2, 3), [(2, 3)], 1.0, True).shape == (1, 6, 4)


def test_the_operator_keeps_torchs_contract() -> None:
    reduced = torch.randn(1, 6, 8, requires_grad=True)
    weights = [torch.randn(8, 1, 1, 1, requires_grad=True) for _ in BOTH]
    biases = [torch.randn(8, requires_grad=True) for _ in BOTH]
    arguments = (reduced, weights, biases, [2, 3, 2, 3, 1, 1], None, True, True)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(kernels.operator, arguments, test_utils=tests)


def test_torch_compile_takes_the_operator_without_a_break() -> None:
    grid = (2, 3)
    block, x_BNC = block_of(8, 1, BOTH, "scaled", "released"), tokens(grid, 1, 8)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    eager, traced = (
        torch.autograd.grad(each(x_BNC, grid).square().sum(), [*block.parameters()]) for each in (block, compiled)
    )
    for ours, theirs in zip(traced, eager, strict=True):
        torch.testing.assert_close(ours, theirs)
