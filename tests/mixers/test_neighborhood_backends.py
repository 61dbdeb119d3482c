"""The backends of Neighborhood Attention: FlexAttention's blocks, natten by a stand-in, and the rule that chooses."""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from baselines import NeighborhoodAttention, neighborhood_flex, neighborhood_natten, neighborhood_tiled
from baselines.neighborhood import dilated, neighbours
from harness.seats.mixer import Grid, Unavailable

WINDOWS = [
    ((7, 13), (3, 3)),
    ((17, 17), (13, 13)),
    ((8, 8), (8, 8)),
    ((1, 19), (1, 13)),
    ((20, 26), (6, 4)),
    ((33, 40), (13, 13)),
    ((9, 70), (5, 2)),
]


def maps(grid: Grid, heads: int = 2, size: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, *grid, heads, size, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)
    ]


@pytest.mark.parametrize("rows", [2, 3, 100])
def test_any_number_of_rows_of_tiles_at_a_time_gives_the_same(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = maps((33, 21))
    wanted = neighborhood_tiled.attend(*inputs, (13, 5))
    monkeypatch.setattr(neighborhood_tiled, "rows_at_a_time", lambda q, rows_, columns: rows)
    made = neighborhood_tiled.attend(*inputs, (13, 5))
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
    slope = torch.linspace(-1, 1, wanted.numel(), dtype=torch.float64).view_as(wanted)
    ours, theirs = (torch.autograd.grad((output * slope).sum(), inputs) for output in (made, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("device", "side", "rows"), [("cpu", 64, 1), ("cuda", 64, 4), ("cuda", 256, 1)])
def test_a_gpu_gets_as_many_rows_of_tiles_as_the_bytes_allow(device: str, side: int, rows: int) -> None:
    """A row of a 64 x 64 map copies 8 tiles of 20 x 20 keys and values, of 2 x 1152 numbers in half precision."""
    with FakeTensorMode():
        q = torch.empty(2, side, side, 16, 72, device=device, dtype=torch.float16)
        axis = neighborhood_tiled.Axis.of(side, min(13, side), q.device)
        assert neighborhood_tiled.rows_at_a_time(q, axis, axis) == rows


def listed(count_T: Tensor, order_TT: Tensor) -> Tensor:
    """(T, T): which blocks a table of FlexAttention lists for each row."""
    rank = torch.arange(order_TT.shape[-1])
    return torch.zeros(order_TT.shape, dtype=torch.bool).scatter(-1, order_TT.long(), rank < count_T[..., None])[0, 0]


def by_blocks(q: Tensor, k: Tensor, v: Tensor, block_mask: Any) -> Tensor:
    """FlexAttention as it is defined: the pairs of the blocks that are listed, where the mask lets them."""
    block = neighborhood_flex.BLOCK
    places = torch.arange(q.shape[-2])
    seen = listed(block_mask.kv_num_blocks, block_mask.kv_indices)[places[:, None] // block, places // block]
    seen &= block_mask.mask_mod(torch.tensor(0), torch.tensor(0), places[:, None], places)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)


@pytest.mark.parametrize(("grid", "kernel"), WINDOWS)
def test_blocks_give_what_tiles_give_forward_and_backward(grid: Grid, kernel: Grid) -> None:
    inputs = maps(grid)
    made, wanted = neighborhood_flex.blockwise(*inputs, kernel, by_blocks), neighborhood_tiled.attend(*inputs, kernel)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
    slope = torch.linspace(-1, 1, wanted.numel(), dtype=torch.float64).view_as(wanted)
    ours, theirs = (torch.autograd.grad((output * slope).sum(), inputs) for output in (made, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("grid", "kernel"), WINDOWS)
def test_the_backward_table_is_the_forward_table_turned_over(grid: Grid, kernel: Grid) -> None:
    mask = neighborhood_flex.block_mask(grid, kernel, torch.device("cpu"))
    forward, backward = listed(mask.kv_num_blocks, mask.kv_indices), listed(mask.q_num_blocks, mask.q_indices)
    assert torch.equal(backward, forward.T)


def test_a_tile_of_a_large_grid_sees_nine_blocks_of_many() -> None:
    mask = neighborhood_flex.block_mask((64, 64), (13, 13), torch.device("cpu"))
    assert mask.kv_indices.shape[-1] == 32
    assert mask.kv_num_blocks.max() == 9


def test_a_table_made_in_inference_serves_training_and_few_are_kept() -> None:
    neighborhood_flex.block_mask.cache_clear()
    inputs = [source.float() for source in maps((7, 13))]
    with torch.inference_mode():
        neighborhood_flex.blockwise(*inputs, (3, 3), by_blocks)
    mask = neighborhood_flex.block_mask((7, 13), (3, 3), torch.device("cpu"))
    assert neighborhood_flex.block_mask.cache_info().hits == 1
    assert not any(part.is_inference() for part in mask.as_tuple() if isinstance(part, Tensor))
    for side in range(8, 16):
        neighborhood_flex.block_mask((side, side), (3, 3), torch.device("cpu"))
    assert neighborhood_flex.block_mask.cache_info().currsize == 4  # the levels of a U-Net


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@torch.no_grad()
def test_torchs_own_flex_attention_gives_what_tiles_give() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    for grid, kernel in WINDOWS[:2]:
        inputs = [source.float() for source in maps(grid)]
        made = neighborhood_flex.blockwise(*inputs, kernel, flex_attention)
        torch.testing.assert_close(made, neighborhood_tiled.attend(*inputs, kernel), rtol=0, atol=1e-5)


@pytest.mark.gpu
# What torch's own compiler warns of while it is imported (torch 2.11) and while it looks at tensors.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_blocks_keep_to_the_definition_on_a_gpu(dtype: torch.dtype) -> None:
    for grid in ((7, 13), (40, 64)):
        mixer = NeighborhoodAttention(144, 2, 13, backend="flex").to("cuda", dtype)
        x_BNC = torch.randn(2, grid[0] * grid[1], 144, device="cuda", dtype=dtype, requires_grad=True)
        made, wanted = mixer(x_BNC, grid), mixer.definition(x_BNC, grid)
        tolerance = 5e-3 if dtype == torch.float32 else 5e-2  # TF32 and bfloat16 products
        torch.testing.assert_close(made, wanted, rtol=0, atol=tolerance)
        ours, theirs = (torch.autograd.grad(output.sum(), x_BNC)[0] for output in (made, wanted))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))


class Natten(ModuleType):
    """Stands in for the package: keeps what it is called with and answers by natten's rule, written out."""

    def __init__(self, kernels: bool = True) -> None:
        super().__init__("natten")
        self.HAS_LIBNATTEN = kernels
        self.calls: list[dict[str, Any]] = []
        self.functional = ModuleType("natten.functional")
        self.functional.na2d = self.na2d  # type: ignore[attr-defined]

    def na2d(self, query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        self.calls.append({"shape": tuple(query.shape), **settings})
        if query.shape[-1] % 2:
            raise NotImplementedError("no backend for head_dim 5")
        (rows, columns), (down, right) = settings["kernel_size"], settings["dilation"]
        keys_Hk = neighbours(query.shape[1], rows, down, query.device)
        keys_Wk = neighbours(query.shape[2], columns, right, query.device)
        near_k, near_v = (source[:, keys_Hk][:, :, :, keys_Wk] for source in (key, value))  # B H k W k h d
        scores = torch.einsum("bywhd,byiwjhd->bywhij", query, near_k) * query.shape[-1] ** -0.5
        weights = scores.flatten(-2).softmax(-1).view_as(scores)
        return torch.einsum("bywhij,byiwjhd->bywhd", weights, near_v)


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    neighborhood_natten.has_kernels.cache_clear()
    yield
    neighborhood_natten.has_kernels.cache_clear()


@pytest.fixture
def natten(monkeypatch: pytest.MonkeyPatch) -> Natten:
    package = Natten()
    monkeypatch.setitem(sys.modules, "natten", package)
    monkeypatch.setitem(sys.modules, "natten.functional", package.functional)
    return package


@pytest.fixture
def no_natten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "natten", None)
    monkeypatch.setitem(sys.modules, "natten.functional", None)


@pytest.mark.parametrize(
    ("grid", "kernel", "dilation", "window", "step"),
    [((7, 13), 4, 1, (4, 4), (1, 1)), ((12, 15), 3, 2, (3, 3), (2, 2)), ((8, 8), 13, 1, (8, 8), (1, 1))],
)
def test_natten_is_called_with_its_layout_and_the_clamped_window(
    natten: Natten, grid: Grid, kernel: int, dilation: int, window: Grid, step: Grid
) -> None:
    torch.manual_seed(0)
    mixer = NeighborhoodAttention(16, 2, kernel, dilation, backend="natten").double()
    x_BNC = torch.randn(2, grid[0] * grid[1], 16, dtype=torch.float64)
    torch.testing.assert_close(mixer(x_BNC, grid), mixer.definition(x_BNC, grid), rtol=0, atol=1e-12)
    assert natten.calls == [{"shape": (2, *grid, 2, 8), "kernel_size": window, "dilation": step}]


def test_what_natten_cannot_do_is_unavailable_with_the_remedy(natten: Natten) -> None:
    odd = NeighborhoodAttention(10, 2, 3, backend="natten")
    with pytest.raises(Unavailable, match=r"^natten cannot do this \(no backend for head_dim 5\): take backend=tiled$"):
        odd(torch.randn(1, 35, 10), (5, 7))
    with pytest.raises(Unavailable, match=r"^natten wants windows of at least 2 x 2 keys, not 1 x 3: take"):
        NeighborhoodAttention(16, 2, 3, backend="natten")(torch.randn(1, 9, 16), (1, 9))


@pytest.mark.usefixtures("no_natten")
def test_a_missing_natten_is_unavailable_with_the_remedy() -> None:
    mixer = NeighborhoodAttention(16, 2, 3, backend="natten")
    with pytest.raises(Unavailable, match=r"^backend natten needs the package natten, .* or take backend=tiled$"):
        mixer(torch.randn(1, 35, 16), (5, 7))


def test_flex_off_cuda_is_unavailable_with_the_remedy() -> None:
    mixer = NeighborhoodAttention(16, 2, 3, backend="flex")
    with pytest.raises(
        Unavailable, match=r"^backend flex is fused on CUDA .* not on cpu in float32, .* backend=tiled$"
    ):
        mixer(torch.randn(1, 35, 16), (5, 7))
    with pytest.raises(Unavailable, match="not on cuda in float64"):
        mixer.backend_on("cuda", torch.float64, (3, 3))
    assert mixer.backend_on("cuda", torch.bfloat16, (3, 3)) == "flex"
    assert mixer.note((5, 7)) == "backend flex"


@pytest.mark.parametrize("backend", ["auto", "flex", "natten"])
@pytest.mark.usefixtures("no_natten")
def test_costs_are_counted_on_shapes_whatever_the_backend(backend: str) -> None:
    mixer = NeighborhoodAttention(16, 2, 3, backend=backend).to("meta")
    assert mixer(torch.empty(1, 35, 16, device="meta"), (5, 7)).shape == (1, 35, 16)


def test_the_rule_takes_natten_on_cuda_where_its_kernels_can(natten: Natten) -> None:
    mixer, odd = NeighborhoodAttention(16, 2, 13).bfloat16(), NeighborhoodAttention(10, 2, 13).bfloat16()
    assert mixer.backend_on("cuda", torch.bfloat16, (13, 13)) == "natten"
    assert mixer.note((16, 16)) == "backend natten on cuda, tiled elsewhere"
    assert mixer.backend_on("cpu", torch.bfloat16, (13, 13)) == "tiled"
    assert mixer.backend_on("cuda", torch.float64, (13, 13)) == "tiled"
    assert mixer.backend_on("cuda", torch.bfloat16, (1, 13)) == "tiled"
    assert odd.backend_on("cuda", torch.bfloat16, (13, 13)) == "tiled"
    assert odd.note((16, 16)) == "backend tiled"
    natten.HAS_LIBNATTEN = False
    neighborhood_natten.has_kernels.cache_clear()
    assert mixer.backend_on("cuda", torch.bfloat16, (13, 13)) == "tiled"


def test_dilation_is_dense_attention_in_every_residue_class_of_blocks_too() -> None:
    inputs = maps((12, 15))

    def blocks(q: Tensor, k: Tensor, v: Tensor, kernel: Grid) -> Tensor:
        return neighborhood_flex.blockwise(q, k, v, kernel, by_blocks)

    made, wanted = (dilated(attend, *inputs, (3, 3), (2, 3)) for attend in (blocks, neighborhood_tiled.attend))
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
