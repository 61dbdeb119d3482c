"""Projected memory: what lives at once, counted by hand on toys, and the peak of a call made of body and mixers."""

from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from baselines import SelfAttention
from deltaconv import DeltaConvBlock
from harness.counted.live_bytes import body_memory, footprint, rise_of, storages
from harness.counted.meta_results import answered
from harness.counted.projected_memory import ProjectedMemory
from harness.measured import peak_memory
from harness.models.dit import PixArtModel
from harness.records.case import Resolution
from harness.seats.mixer import Grid, TokenMixer
from harness.seats.surgery import Factory, seated

MIB = 2**20


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


class Toy(nn.Module):
    """Any function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def rise(function: Callable[..., Tensor], *tensors: Tensor) -> int:
    return rise_of(Toy(function), *tensors).size


class Outputs(TorchDispatchMode):
    """What norms return."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = answered(func, args, kwargs or {})
        self.found += made if "norm" in str(func) else ()
        return made


@pytest.fixture(scope="module")
def tiny() -> PixArtModel:
    model = PixArtModel("pixart_512", config="pixart_512")
    model.load("meta", "fp16")
    return model


# What lives at once


def test_an_output_counts_in_its_dtype() -> None:
    assert rise(lambda x: x + 1, empty(1000)) == 4000
    assert rise(lambda x: x + 1, empty(1000, dtype=torch.float16)) == 2000


def test_a_chain_needs_two_links_at_once() -> None:
    assert rise(lambda x: ((x + 1) * 2 - 3).exp(), empty(1000)) == 8000


def test_what_a_name_holds_on_to_keeps_counting() -> None:
    def held(x: Tensor) -> Tensor:
        first = x + 1
        second = first * 2
        third = second * 2
        return first + second + third

    assert rise(held, empty(1000)) == 5 * 4000


def test_views_and_work_in_place_are_free() -> None:
    assert rise(lambda x: x.view(10, 100).t()[3:], empty(1000)) == 0
    assert rise(lambda x: (x + 1).mul_(2).relu_(), empty(1000)) == 4000


def test_a_broadcast_is_its_one_row() -> None:
    assert rise(lambda x: x.mean(0, keepdim=True).expand(1000, 5), empty(1000, 5)) == 20


def test_fused_attention_holds_no_scores() -> None:
    tokens = empty(1, 2, 1000, 8)
    output, sums = 4 * 2 * 1000 * 8, 4 * 2 * 1000
    assert rise(lambda q: scaled_dot_product_attention(q, q, q), tokens) == output + sums


def test_a_mask_of_booleans_becomes_one_of_numbers() -> None:
    tokens, mask = empty(1, 2, 100, 8), empty(100, 100, dtype=torch.bool)
    plain = rise(lambda q: scaled_dot_product_attention(q, q, q), tokens)
    assert rise(lambda q, m: scaled_dot_product_attention(q, q, q, attn_mask=m), tokens, mask) == plain + 4 * 100 * 100


def test_a_convolution_holds_the_larger_of_its_copies_and_its_weights_while_it_runs() -> None:
    """Input 4 x 900 floats, output 8 x 900."""
    layer = nn.Conv2d(4, 8, 3, padding=1, bias=False, device="meta")
    peak = rise_of(layer, empty(1, 4, 30, 30))
    assert peak.workspace == 4 * (8 * 900 + 8 * 4 * 9)
    assert peak.size == 4 * 8 * 900 + peak.workspace
    assert rise_of(nn.Conv2d(4, 8, 1, device="meta"), empty(1, 4, 30, 30)).workspace == 0


@pytest.mark.parametrize("norm", [nn.GroupNorm(4, 8), nn.LayerNorm([8, 6, 5]), nn.LayerNorm(5)], ids=str)
def test_norms_answered_at_once_are_those_of_the_kernels(norm: nn.Module) -> None:
    """On a map, on a view of one whose sides are swapped, and on one whose channels come last."""
    maps = torch.ones(2, 8, 6, 5), torch.ones(2, 8, 5, 6).transpose(2, 3), torch.ones(2, 6, 5, 8).permute(0, 3, 1, 2)
    for x in maps:
        seen = []
        for device in ("cpu", "meta"):
            with torch.no_grad(), Outputs() as outputs:
                norm.to_empty(device=device)(x.to(device))
            seen.append([(out.shape, out.stride(), out.dtype) for out in outputs.found])
        assert seen[0] == seen[1]


def test_unfused_attention_holds_its_scores() -> None:
    tokens = empty(1, 2, 1000, 8)
    assert rise(lambda q: torch.softmax(q @ q.transpose(-2, -1), -1) @ q, tokens) == 2 * 4 * 2 * 1000 * 1000


def test_shared_weights_count_once() -> None:
    layer = nn.Linear(10, 10, bias=False, device="meta")
    other = nn.Linear(10, 10, bias=False, device="meta")
    other.weight = layer.weight
    assert sum(storages(nn.Sequential(layer, other)).values()) == 400


def test_a_toy_grows_with_its_tokens_and_nothing_else() -> None:
    layer = nn.Sequential(nn.Linear(16, 64, device="meta"), nn.GELU(), nn.Linear(64, 16, device="meta"))
    small, large = (rise_of(layer, empty(1, tokens, 16)).size for tokens in (100, 100_000))
    assert large == 1000 * small == 1000 * 2 * 100 * 64 * 4


# The denoiser


def test_a_call_at_16k_is_projected_without_allocating(tiny: PixArtModel) -> None:
    before = peak_memory.resident("VmRSS")
    seen = footprint(tiny.denoiser, body_memory(tiny.denoiser, arguments(tiny, 16384)))
    assert seen.activations > 20 * 2**30
    assert peak_memory.resident("VmRSS") - before < 200 * MIB


def arguments(model: PixArtModel, size: int | str) -> dict[str, object]:
    """The arguments of a call, their noise not drawn."""
    small = model.example(Resolution(512, 512))
    resolution = Resolution.parse(size)
    return small | {"hidden_states": empty(1, 4, resolution.height // 8, resolution.width // 8, dtype=torch.float16)}


def test_activations_are_affine_in_the_tokens(tiny: PixArtModel) -> None:
    one, two, four = (
        body_memory(tiny.denoiser, arguments(tiny, size)).peak.size for size in ("1024", "1024x2048", "2048")
    )
    assert four - two == 2 * (two - one)


@pytest.mark.parametrize("factory", [SelfAttention.for_site, DeltaConvBlock.for_site])
def test_a_body_and_its_mixers_make_the_peak_of_the_whole_call(tiny: PixArtModel, factory: Factory) -> None:
    """Followed apart, as the metric does, and in one piece, as it runs."""
    with seated(tiny.denoiser, factory):
        given = arguments(tiny, 512)
        seen = footprint(tiny.denoiser, body_memory(tiny.denoiser, given))
        whole = rise_of(Call(tiny.denoiser, given)).size
    inputs = {leaf.untyped_storage()._cdata: leaf.untyped_storage().nbytes() for leaf in tensors(given)}
    assert seen.activations + seen.workspace == whole + sum(inputs.values())


class Call(nn.Module):
    """A denoiser with its arguments."""

    def __init__(self, denoiser: nn.Module, given: dict[str, object]) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.given = given
        for index, tensor in enumerate(tensors(given)):
            self.register_buffer(f"argument_{index}", tensor)

    def forward(self) -> object:
        return self.denoiser(**self.given)


def tensors(given: dict[str, object]) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(given) if isinstance(leaf, Tensor)]


class Greedy(TokenMixer):
    """A mixer that holds `times` copies of its tokens."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return torch.stack([tokens_BNC] * self.times).sum(0)

    def flops(self, grid: Grid) -> int:
        return 0


def test_a_greedy_mixer_is_the_peak_and_is_named(tiny: PixArtModel) -> None:
    sizes = []
    for times in (100, 200):
        with seated(tiny.denoiser, lambda site, attention, times=times: Greedy(times)):  # type: ignore[misc]
            seen = footprint(tiny.denoiser, body_memory(tiny.denoiser, arguments(tiny, 512)))
        sizes.append(seen)
        assert "attn1" in seen.operator
        assert seen.mixer == (times + 1) * 1024 * 1152 * 2
    assert sizes[1].activations - sizes[0].activations == 100 * 1024 * 1152 * 2


def test_the_metric_says_weights_and_activations(tiny: PixArtModel) -> None:
    @contextmanager
    def meta_denoiser():  # type: ignore[no-untyped-def]
        with seated(tiny.denoiser, SelfAttention.for_site):
            yield tiny.denoiser, arguments(tiny, 512)

    case = SimpleNamespace(resolution=Resolution(512, 512), dtype="fp16")
    metric = ProjectedMemory()
    (reading,) = metric(SimpleNamespace(model=tiny, case=case, meta_denoiser=meta_denoiser))  # type: ignore[arg-type]
    assert reading.value == sum(reading.details[part] for part in ("weights", "activations", "workspace"))
    assert reading.details["weights"] >= 2 * 610_856_096
    assert isinstance(reading.value, int)
