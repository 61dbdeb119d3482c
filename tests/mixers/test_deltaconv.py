"""The ∆ConvBlock against its formula written a second time, published names and layouts, and its refusals."""

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate, layer_norm

from baselines import DepthwiseConvolution
from deltaconv import DeltaConvBlock
from deltaconv.published import load_published
from harness.seats.mixer import BadInput, Grid, Site, Unavailable

Weights = dict[str, torch.Tensor]


def released(
    weights: Weights, x_BNC: torch.Tensor, grid: Grid, scales: tuple[float, ...], sigmoid: bool
) -> torch.Tensor:
    """Steps 1 to 5 of the released code, from the facts, on (B, C, H, W) maps and einsums."""
    x = x_BNC.transpose(1, 2).unflatten(2, grid)
    u = torch.einsum("mc,bchw->bmhw", weights["conv_up.weight"], x) + weights["conv_up.bias"][:, None, None]
    half = len(u[0]) // 2
    stages = []
    for index, scale in enumerate(scales):
        f = u if scale == 1 else adaptive_avg_pool2d(u, (int(grid[0] * scale), int(grid[1] * scale)))
        kernel = weights[f"gates.{index}.conv_spatial.weight"]
        f = conv2d(
            f, kernel, weights[f"gates.{index}.conv_spatial.bias"], padding=kernel.shape[-1] // 2, groups=len(kernel)
        )
        a, b = f[:, :half], f[:, half:]
        f = a * torch.sigmoid(b) if sigmoid else a * b * math.sqrt(x.shape[1] / 4)
        stages.append(f if scale == 1 else interpolate(f, size=grid, mode="bilinear", align_corners=False))
    y = torch.einsum("cj,bjhw->bchw", weights["conv_out.weight"], torch.cat(stages, 1))
    mean = x.mean(dim=(2, 3))
    pool = mean @ weights["conv_pool.weight"].T + weights["conv_pool.bias"]
    y = y + weights["conv_out.bias"][:, None, None] + pool[:, :, None, None]
    return y.flatten(2).transpose(1, 2)


def random_weights(channels: int, kernel: int, stages: int, seed: int = 0) -> Weights:
    """A published dict of one site, depthwise weights as (C, 1, K, K), filled with normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    half = channels // 2
    shapes = {
        "conv_up": (half, channels),
        "conv_out": (channels, half // 2 * stages),
        "conv_pool": (channels, channels),
    }
    shapes |= {f"gates.{index}.conv_spatial": (half, 1, kernel, kernel) for index in range(stages)}
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator, dtype=torch.float64) / 5
        weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator, dtype=torch.float64) / 5
    return weights


@pytest.mark.parametrize("grid", [(7, 13), (17, 17), (8, 8), (9, 4)])
@pytest.mark.parametrize("gate", ["scaled", "sigmoid"])
@pytest.mark.parametrize(
    ("kernel", "scales"), [(7, (1.0, 0.5)), (13, (1.0, 0.5)), (5, (1.0, 1 / 2, 1 / 3)), (3, (0.5,))]
)
@torch.no_grad()
def test_published_weights_give_the_published_formula(
    grid: Grid, gate: str, kernel: int, scales: tuple[float, ...]
) -> None:
    weights = random_weights(16, kernel, len(scales))
    block = load_published(DeltaConvBlock(16, kernel, scales, gate).double(), weights)  # type: ignore[arg-type]
    x_BNC = torch.randn(2, grid[0] * grid[1], 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = released(weights, x_BNC, grid, scales, gate == "sigmoid")
    torch.testing.assert_close(block(x_BNC, grid), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(block.definition(x_BNC, grid), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scales", [(0.5, 0.25), (1.0, 0.5), (0.5,)])
@torch.no_grad()
def test_the_paper_form_is_the_papers_formula(scales: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    grid, channels = (9, 14), 24
    block = DeltaConvBlock(channels, 5, scales, form="paper").double()
    x_BNC = torch.randn(2, grid[0] * grid[1], channels, dtype=torch.float64)
    weights = block.state_dict()
    z_BNC = layer_norm(x_BNC, (channels,), weights["norm.weight"], weights["norm.bias"])
    z_in = (z_BNC @ weights["conv_up.weight"].T + weights["conv_up.bias"]).transpose(1, 2).unflatten(2, grid)
    width = channels // (2 * len(scales))
    assert z_in.shape[1] == width
    total = torch.zeros(2, width // 2, *grid, dtype=torch.float64)
    for index, scale in enumerate(scales):
        size = (int(grid[0] * scale), int(grid[1] * scale))
        kernel = weights[f"gates.{index}.conv_spatial.weight"]
        f = conv2d(adaptive_avg_pool2d(z_in, size), kernel, padding=2, groups=width)
        f = f[:, : width // 2] * f[:, width // 2 :] / math.sqrt(width)
        total += interpolate(f, size=grid, mode="bilinear", align_corners=False)
    expected = total.flatten(2).transpose(1, 2) @ weights["conv_out.weight"].T + weights["conv_out.bias"]
    expected += (z_BNC.mean(dim=1) @ weights["conv_pool.weight"].T + weights["conv_pool.bias"])[:, None]
    torch.testing.assert_close(block(x_BNC, grid), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(block.definition(x_BNC, grid), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("channels", "kernel", "parameters"),
    [(320, 7, 221_600), (640, 9, 873_280), (1280, 3, 3_292_800), (1280, 9, 3_384_960), (1152, 13, 2_852_928)],
)
def test_parameter_counts_are_those_of_the_released_configuration(channels: int, kernel: int, parameters: int) -> None:
    with torch.device("meta"):
        block = DeltaConvBlock(channels, kernel)
    assert sum(parameter.numel() for parameter in block.parameters()) == parameters


@pytest.mark.parametrize(("channels", "kernel", "side"), [(320, 7, 64), (640, 13, 64), (1152, 13, 32)])
def test_the_price_is_the_closed_form_on_even_grids(channels: int, kernel: int, side: int) -> None:
    with torch.device("meta"):
        block = DeltaConvBlock(channels, kernel)
    tokens = side * side
    expected = 2 * tokens * channels**2 + 5 * tokens * channels * kernel**2 // 4 + 2 * channels**2
    assert block.flops((side, side)) == expected


def test_the_price_floors_odd_sides_as_the_map_does() -> None:
    block = DeltaConvBlock(16, 3)
    assert block.flops((7, 13)) == 2 * 91 * 16 * (8 + 8) + 2 * (7 * 13 + 3 * 6) * 8 * 9 + 2 * 16 * 16


@torch.no_grad()
def test_the_triton_layout_and_one_by_one_convolutions_load_alike() -> None:
    weights = random_weights(16, 5, 2)
    other = {
        name: value.squeeze(1).permute(1, 2, 0) if "spatial.weight" in name else value
        for name, value in weights.items()
    }
    other |= {name: other[name][:, :, None, None] for name in ("conv_up.weight", "conv_out.weight", "conv_pool.weight")}
    assert other["gates.0.conv_spatial.weight"].shape == (5, 5, 8)
    first, second = (load_published(DeltaConvBlock(16, 5), each).state_dict() for each in (weights, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


@torch.no_grad()
def test_biases_that_a_release_lacks_are_zero() -> None:
    weights = {name: value for name, value in random_weights(16, 5, 2).items() if "spatial.bias" not in name}
    block = load_published(DeltaConvBlock(16, 5), weights)
    assert all(not block.state_dict()[f"gates.{index}.conv_spatial.bias"].any() for index in range(2))
    assert block.state_dict()["conv_up.bias"].any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"conv_pool.weight": None}, r"the ∆ConvBlock weights lack conv_pool.weight: give all of one site"),
        (
            {"gates.2.conv_spatial.weight": (8, 1, 5, 5)},
            r"the ∆ConvBlock weights hold gates.2.conv_spatial.weight, unk",
        ),
        ({"gates.1.conv_spatial.weight": (8, 1, 7, 7)}, r"gates.1.conv_spatial.weight of .* is \(8, 1, 7, 7\), not"),
        (
            {"gates.1.conv_spatial.weight": (7, 7, 8)},
            r"gates.1.conv_spatial.weight of .* is \(8, 1, 7, 7\), not \(8, 1, 5, 5\): they are for another",
        ),
        ({"conv_out.bias": (8,)}, r"conv_out.bias of the ∆ConvBlock weights is \(8,\), not \(16,\): they are for"),
    ],
)
def test_weights_of_another_block_are_refused_by_name_and_change_nothing(
    change: dict[str, tuple[int, ...] | None], sentence: str
) -> None:
    weights = random_weights(16, 5, 2)
    for name, shape in change.items():
        weights.pop(name, None)
        if shape is not None:
            weights[name] = torch.zeros(shape)
    block = DeltaConvBlock(16, 5)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{sentence}"):
        load_published(block, weights)
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_published_weights_are_refused_by_the_paper_form() -> None:
    with pytest.raises(ValueError, match=r"^published weights are of the released form, not of the paper form"):
        load_published(DeltaConvBlock(16, 5, form="paper"), random_weights(16, 5, 2))


@torch.no_grad()
def test_ablations_keep_what_they_name() -> None:
    torch.manual_seed(0)
    grid, x_BNC = (6, 7), torch.randn(2, 42, 16, dtype=torch.float64)
    whole = DeltaConvBlock(16, 3).double()
    pool, pyramid = DeltaConvBlock(16, 3, scales=()).double(), DeltaConvBlock(16, 3, pooling=False).double()
    for part in (pool, pyramid):
        names = part.state_dict().keys()
        part.load_state_dict({name: value for name, value in whole.state_dict().items() if name in names})
        torch.testing.assert_close(part(x_BNC, grid), part.definition(x_BNC, grid), rtol=0, atol=1e-12)
    assert pool.flops(grid) + pyramid.flops(grid) == whole.flops(grid)
    torch.testing.assert_close(pool(x_BNC, grid) + pyramid(x_BNC, grid), whole(x_BNC, grid), rtol=0, atol=1e-12)


def test_kernels_may_differ_by_level() -> None:
    site = Site("down_blocks.0.attentions.1.transformer_blocks.0.attn1", 16, 2)
    block = DeltaConvBlock.for_site(site, torch.nn.Linear(1, 1), kernel_size={"down_blocks.0": 7, "*": 9})
    assert block.kernel_size == 7


def test_what_the_record_says_names_the_form_and_the_padding() -> None:
    assert DeltaConvBlock(16, 7).note((16, 16)) == "released form"
    said = "paper form; kernel 7 larger than the map (6x8), the rest is zero padding"
    assert DeltaConvBlock(16, 7, (0.5,), form="paper").note((12, 16)) == said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kernel_size": 4}, "kernel_size is 4, but the kernel needs a centre: give an odd number such as 7 or 13"),
        ({"kernel_size": -1}, "kernel_size is -1, but the kernel needs a centre"),
        ({"scales": (1.0, 0.0)}, "scale 0 is not a reduction: give numbers above 0 and at most 1"),
        ({"scales": (2.0,)}, "scale 2 is not a reduction"),
        ({"gate": "relu"}, "gate 'relu' is unknown: choose scaled or sigmoid"),
        ({"form": "mine"}, "form 'mine' is unknown: choose released or paper"),
        ({"channels": 18}, "a released ∆ConvBlock of 2 scales cannot have 18 channels: give a multiple of 4"),
        (
            {"channels": 12, "form": "paper"},
            "a paper ∆ConvBlock of 2 scales cannot have 12 channels: give a multiple of 8",
        ),
        ({"scales": (), "pooling": False}, "no scales and no pooling leave nothing of a ∆ConvBlock"),
    ],
)
def test_what_makes_no_block_is_refused_in_a_sentence(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        DeltaConvBlock(**({"channels": 16} | settings))  # type: ignore[arg-type]


def test_a_scale_that_leaves_an_empty_map_is_refused_when_run_and_when_priced() -> None:
    block = DeltaConvBlock(16, 3)
    for call in (lambda: block(torch.zeros(1, 9, 16), (1, 9)), lambda: block.flops((1, 9))):
        with pytest.raises(Unavailable, match=r"^scale 0.5 empties a map of 1 x 9 tokens: choose larger scales"):
            call()


@pytest.mark.parametrize(
    ("gate", "form", "last"),
    [("scaled", "released", 85.0), ("scaled", "paper", 910.0), ("sigmoid", "released", 65504.0)],
)
@torch.no_grad()
def test_the_range_of_each_gate_in_half_precision_ends_where_the_docstring_says(
    gate: str, form: str, last: float
) -> None:
    stage = DeltaConvBlock(320, 3, (1.0,), gate, form).gates[0]  # type: ignore[arg-type]

    def gated(value: float, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        made: torch.Tensor = stage.gate(torch.full((1, 160, 1, 1), value, dtype=dtype), stage.gain)
        return made

    assert gated(last).isfinite().all()
    assert gate == "sigmoid" or gated(last * 1.01).isinf().all()
    assert gated(1e9, torch.bfloat16).isfinite().all()


@pytest.mark.parametrize(("form", "loud"), [("released", 500), ("paper", 200)])
@pytest.mark.parametrize("scales", [(1.0, 0.5), (1.0,), (1.0, 0.5, 0.25)])
@torch.no_grad()
def test_the_block_keeps_half_precision_where_the_formula_overflows(
    form: str, loud: float, scales: tuple[float, ...]
) -> None:
    torch.manual_seed(0)
    grid, x_BNC = (12, 10), loud * torch.randn(1, 120, 96)
    block = DeltaConvBlock(96, 3, scales, form=form, pooling=False)  # type: ignore[arg-type]
    if block.norm is not None:
        block.norm.weight.mul_(loud)
    for name, weight in block.named_parameters():
        weight.copy_((weight * (2e-4 if name == "conv_out.weight" else 1)).half())
    exact = block.double().definition(x_BNC.half().double(), grid)
    half = block.half()(x_BNC.half(), grid)
    assert block.definition(x_BNC.half(), grid).isfinite().all() == (form == "paper")
    # Products of up to 1e6, rounded to 11 bits a few times over.
    assert (half.double() - exact).norm() < 0.01 * exact.norm()


def test_a_scale_may_be_a_fraction_in_words() -> None:
    torch.manual_seed(0)
    block = DeltaConvBlock(16, 3, ("1", "1/2", "1/3"))
    assert block.scales == (1.0, 1 / 2, 1 / 3)
    x_BNC = torch.randn(1, 9 * 6, 16)
    torch.testing.assert_close(block(x_BNC, (9, 6)), block.definition(x_BNC, (9, 6)))
    with pytest.raises(BadInput, match=r"^scale 'half' is no number: give numbers such as 1.0, 0.5 or 1/3"):
        DeltaConvBlock(16, 3, ("half",))


@pytest.mark.parametrize("mixer", [DeltaConvBlock, DepthwiseConvolution])
def test_a_kernel_far_beyond_the_map_is_said_with_what_of_it_can_matter(mixer: Any) -> None:
    with torch.device("meta"):
        said = mixer(16, 999).note((8, 8))
    assert "kernel 999 larger than the map (8x8" in said
    assert "225 of its 998001 weights meet a token on the largest of them, the others never do" in said
