"""FLOPs: closed forms, the published sums of SD1.5, and that nothing is free by mistake."""

import itertools
import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from baselines import LinFusionAttention, NeighborhoodAttention, SelfAttention
from deltaconv import DeltaConvBlock
from harness.case import BadInput, Resolution
from harness.metrics.flops import Bill, Body, Disagreement, Flops, bill, body_of, count
from harness.metrics.layer_flops import LayerFlops, paper_self_attention, token_grid
from harness.metrics.operators import PRICES, Unpriced, aten
from harness.mixer import Grid, TokenMixer
from harness.models.dit import PixArtModel
from harness.models.unet import UNetModel
from harness.surgery import Factory, seated

GOLDEN = Path(__file__).parent / "golden" / "flops.json"
FACTORIES: dict[str, Factory] = {
    "self_attention": SelfAttention.for_site,
    "neighborhood": NeighborhoodAttention.for_site,
    "linfusion": LinFusionAttention.for_site,
    "deltaconv": DeltaConvBlock.for_site,
}


@pytest.fixture(scope="module")
def sd15() -> UNetModel:
    model = UNetModel("sd15", config="sd15")
    model.load("meta", "fp32")
    return model


@pytest.fixture(scope="module")
def pixart() -> PixArtModel:
    model = PixArtModel("pixart_512", config="pixart_512")
    model.load("meta", "fp32")
    return model


def own_bill(model: UNetModel | PixArtModel, size: int | str) -> Bill:
    """Of the model as it is, with its own attention or with what is seated."""
    return bill(model.denoiser, body_of(model.denoiser, model.example(Resolution.parse(size))))


def giga(flops: int) -> float:
    return round(flops / 1e9, 2)


# Closed forms


def test_a_linear_map_costs_two_a_multiply_add() -> None:
    assert count(nn.Linear(7, 5, device="meta"), torch.empty(2, 11, 7, device="meta")) == 2 * 2 * 11 * 7 * 5


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_costs_its_window_at_every_output(groups: int, bias: bool) -> None:
    layer = nn.Conv2d(12, 24, (3, 5), stride=2, padding=1, groups=groups, bias=bias, device="meta")
    output = layer(torch.empty(2, 12, 13, 7, device="meta"))
    assert count(layer, torch.empty(2, 12, 13, 7, device="meta")) == 2 * output.numel() * 12 // groups * 15


def test_a_transposed_convolution_costs_its_window_at_every_input() -> None:
    layer = nn.ConvTranspose2d(6, 4, 3, stride=2, device="meta")
    assert count(layer, torch.empty(1, 6, 5, 9, device="meta")) == 2 * 6 * 5 * 9 * 4 * 9


class Attend(nn.Module):
    """Attention alone, 7 queries on 11 keys."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return scaled_dot_product_attention(query, key, key)


def test_attention_costs_two_products_and_is_never_free() -> None:
    shapes = torch.empty(2, 3, 7, 5, device="meta"), torch.empty(2, 3, 11, 5, device="meta")
    assert count(Attend(), *shapes) == 4 * 2 * 3 * 7 * 11 * 5


def test_attention_at_16k_tokens_squared_is_counted_without_overflow() -> None:
    tokens = torch.empty(1, 8, 2048 * 2048, 40, device="meta")
    assert count(Attend(), tokens, tokens) == 4 * (2048 * 2048) ** 2 * 320


# The published sums


def test_sd15_costs_what_the_facts_say_at_512_and_1024(sd15: UNetModel) -> None:
    small, large = own_bill(sd15, 512), own_bill(sd15, 1024)
    assert (giga(small.total), giga(small.mixers), len(small.sites)) == (803.27, 173.67, 16)
    assert (round(large.total / 1e9, 1), round(large.mixers / 1e9, 1)) == (4674.0, 2164.6)


def test_pixart_self_attention_costs_what_the_facts_say(pixart: PixArtModel) -> None:
    assert giga(own_bill(pixart, 512).mixers) == 439.70
    assert giga(own_bill(pixart, 1024).mixers) == 3382.29


@pytest.mark.parametrize("size", ["512", "768x512"])
def test_sites_and_body_add_up_to_the_whole_that_torch_counts(sd15: UNetModel, pixart: PixArtModel, size: str) -> None:
    model = sd15 if size == "512" else pixart
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.denoiser(**model.example(Resolution.parse(size)))
    assert own_bill(model, size).total == counter.get_total_flops()


@pytest.mark.parametrize("variant", ["self_attention", "deltaconv"])
def test_the_body_is_the_same_whatever_is_seated(pixart: PixArtModel, variant: str) -> None:
    """Self-attention also costs the same in a seat as where diffusers has it."""
    own = own_bill(pixart, "512x256")
    with seated(pixart.denoiser, FACTORIES[variant]):
        other = own_bill(pixart, "512x256")
    assert other.body == own.body
    assert (other == own) == (variant == "self_attention")


def test_prices_equal_the_golden_text(sd15: UNetModel, pixart: PixArtModel) -> None:
    """Rewrite tests/golden/flops.json by hand when a price is meant to move, and say why in the commit."""
    found: dict[str, dict[str, int]] = {}
    for model, size in itertools.product((sd15, pixart), ("512", "1024x1536", "16384")):
        with seated(model.denoiser, SelfAttention.for_site):
            body = body_of(model.denoiser, model.example(Resolution.parse(size)))
        for variant, factory in FACTORIES.items():
            with seated(model.denoiser, factory):
                costs = bill(model.denoiser, body)
                found[f"{model.name} {variant} {size}"] = {"flops": costs.total, "flops_mixers": costs.mixers}
    assert found == json.loads(GOLDEN.read_text())


class Definition(nn.Module):
    """A mixer by its formula: what its price counts, while a fast path may do less (∆Conv) or more (tiles)."""

    def __init__(self, mixer: TokenMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return self.mixer.definition(tokens_BNC, grid)


@pytest.mark.parametrize("variant", FACTORIES)
def test_a_mixer_asks_what_its_definition_costs(sd15: UNetModel, variant: str) -> None:
    with seated(sd15.denoiser, FACTORIES[variant]) as seats:
        seat = seats["down_blocks.1.attentions.0.transformer_blocks.0.attn1"]
        tokens = torch.empty(1, 14 * 18, seat.site.channels, device="meta")
        assert count(Definition(seat.mixer), tokens, (14, 18)) == seat.mixer.flops((14, 18))


# What must be caught


class Fourier(nn.Module):
    """Heavy, and neither a matrix product nor on the list of light operators."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x)


def test_an_operator_that_nobody_priced_is_an_error_with_its_name() -> None:
    with pytest.raises(Unpriced, match=r"aten\._fft_r2c\S* has no price: add a formula to PRICES"):
        count(Fourier(), torch.empty(4, 8, device="meta"))


def test_a_custom_operator_is_never_free() -> None:
    with torch.library._scoped_library("deltabench_test", "DEF") as library:
        library.define("fast_attention(Tensor x) -> Tensor")
        library.impl("fast_attention", lambda x: torch.empty_like(x), "Meta")
        operator = torch.ops.deltabench_test.fast_attention

        class Planted(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return operator(x)

        with pytest.raises(Unpriced, match=r"deltabench_test\.fast_attention"):
            count(Planted(), torch.empty(4, 8, device="meta"))


def test_an_operator_that_only_one_counter_prices_is_an_error() -> None:
    class Vectors(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.mv(x, x[0])

    with pytest.raises(Disagreement, match="our counter finds 128 FLOPs, torch's 0: one of them is wrong"):
        count(Vectors(), torch.empty(8, 8, device="meta"))


def test_a_double_count_is_caught_by_the_second_counter(sd15: UNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(price: Callable[..., int]) -> Callable[..., int]:
        return lambda args, out: 2 * price(args, out)

    doubled = {**PRICES, aten.convolution: twice(PRICES[aten.convolution])}
    monkeypatch.setattr("harness.metrics.operators.PRICES", doubled)
    with pytest.raises(Disagreement, match="one of them is wrong"):
        own_bill(sd15, 512)


def test_a_site_that_the_call_never_visits_is_an_error(sd15: UNetModel) -> None:
    with pytest.raises(
        Disagreement, match=r"the body never visited down_blocks\S+attn1: its work would not be counted"
    ):
        bill(sd15.denoiser, Body(1, ()))


class Priceless(TokenMixer):
    """A mixer whose author forgot its price."""

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return tokens_BNC


def test_a_mixer_without_a_price_is_an_error(sd15: UNetModel) -> None:
    with (
        seated(sd15.denoiser, lambda site, attention: Priceless()),
        pytest.raises(NotImplementedError, match="Priceless has no price"),
    ):
        own_bill(sd15, 512)


def test_counting_leaves_the_denoiser_as_it_was(sd15: UNetModel) -> None:
    before = {name: dict(vars(module)) for name, module in sd15.denoiser.named_modules()}
    own_bill(sd15, 512)
    assert all(vars(module).keys() == before[name].keys() for name, module in sd15.denoiser.named_modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in sd15.denoiser.modules())


# The metrics


def trial_of(model: UNetModel | PixArtModel, variant: str, size: str, metric: str = "flops") -> SimpleNamespace:
    resolution = Resolution.parse(size)

    @contextmanager
    def meta_denoiser():  # type: ignore[no-untyped-def]
        with seated(model.denoiser, FACTORIES[variant]):
            yield model.denoiser, model.example(resolution)

    case = SimpleNamespace(resolution=resolution, variant=variant, dtype="fp32")
    return SimpleNamespace(model=model, case=case, factory=FACTORIES[variant], meta_denoiser=meta_denoiser)


def test_the_metric_reads_calls_and_parameters_and_follows_a_body_once(sd15: UNetModel) -> None:
    metric = Flops()
    first = {reading.name: reading for reading in metric(trial_of(sd15, "self_attention", "512"))}  # type: ignore[arg-type]
    second = {reading.name: reading for reading in metric(trial_of(sd15, "deltaconv", "512"))}  # type: ignore[arg-type]
    assert len(metric.bodies) == 1
    assert first["parameters"].value == 859_520_964
    assert first["parameters_mixers"].value == 49_574_080
    assert first["flops"].value == first["flops"].details["body"] + first["flops_mixers"].value
    assert second["flops"].details["body"] == first["flops"].details["body"]
    assert len(second["flops_mixers"].details["sites"]) == 16
    assert isinstance(second["flops"].value, int)


@pytest.mark.parametrize(("size", "printed"), [("512", 49.67), ("1024", 714.08)])
def test_table_1_of_the_paper_is_reproduced_to_the_printed_digits(sd15: UNetModel, size: str, printed: float) -> None:
    (reading,) = LayerFlops()(trial_of(sd15, "self_attention", size))  # type: ignore[arg-type]
    assert isinstance(reading.value, int)
    assert giga(reading.value) == printed
    assert "paper" in reading.protocol


def test_table_1_holds_at_any_width_and_height() -> None:
    assert token_grid(Resolution.parse("512x1024")) == (128, 64)
    assert paper_self_attention((128, 64)) == paper_self_attention((64, 128))
    tokens = 128 * 64
    assert paper_self_attention((128, 64)) == 4 * tokens * 640**2 + 4 * tokens**2 * 640 + 4 * tokens * 640


def test_our_count_of_self_attention_is_the_papers_but_for_scaling_and_softmax(sd15: UNetModel) -> None:
    """What makes our reading of the table's C = 640 (the top layer of SD1.5 at guidance batch 2) the coherent one."""
    (reading,) = LayerFlops(teacher="nobody")(trial_of(sd15, "self_attention", "512"))  # type: ignore[arg-type]
    assert reading.value == paper_self_attention((64, 64)) - 4 * 4096 * 640
    assert "ours" in reading.protocol


def test_every_other_variant_has_our_count_of_the_same_layer(sd15: UNetModel) -> None:
    (linfusion,) = LayerFlops()(trial_of(sd15, "linfusion", "512"))  # type: ignore[arg-type]
    assert isinstance(linfusion.value, int)
    assert giga(linfusion.value) == 13.85  # facts: C = 320, mid = C, guidance batch 2; the paper prints 17.03
    (block,) = LayerFlops()(trial_of(sd15, "deltaconv", "512"))  # type: ignore[arg-type]
    assert block.value == 2 * (2 * 4096 * 320**2 + 5 * 4096 * 320 * 13**2 // 4 + 2 * 320**2)


def test_a_layer_of_half_a_token_is_refused_in_one_sentence() -> None:
    with pytest.raises(
        BadInput, match="resolution 516x512 has no whole number of tokens: give sides in multiples of 8"
    ):
        token_grid(Resolution.parse("516x512"))
