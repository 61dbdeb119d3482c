"""The three counters: closed forms, and that what one of them forgets or counts twice is an error with its name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from variants import SITE, VARIANTS, build

from baselines import SelfAttention
from harness.counted import fvcore_count
from harness.counted.counters import Disagreement, audit, count
from harness.counted.flops import Body, body_of, check_body, cost_of
from harness.counted.operators import PRICES, Unpriced, aten
from harness.models.unet import UNetModel
from harness.records.case import Resolution
from harness.seats.mixer import Grid, TokenMixer
from harness.seats.surgery import seated


def own_bill(model: UNetModel, size: int) -> object:
    return cost_of(model.denoiser, body_of(model.denoiser, model.example(Resolution(size, size))))


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


def test_an_outer_product_is_no_matrix_product() -> None:
    class Outer(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.einsum("i,j->ij", x, y) + torch.outer(x, y)

    assert count(Outer(), torch.empty(5, device="meta"), torch.empty(7, device="meta")) == 0


def test_a_factor_without_a_batch_is_multiplied_into_every_matrix_of_the_other() -> None:
    class Shared(nn.Module):
        def forward(self, weight: Tensor, x: Tensor) -> Tensor:
            return weight @ x + torch.einsum("mk,bkn->bmn", weight, x)

    shapes = torch.empty(4, 5, device="meta"), torch.empty(3, 5, 7, device="meta")
    assert count(Shared(), *shapes) == 2 * (2 * 3 * 4 * 5 * 7)


def test_attention_at_16k_tokens_squared_is_counted_without_overflow() -> None:
    tokens = torch.empty(1, 8, 2048 * 2048, 40, device="meta")
    assert count(Attend(), tokens, tokens) == 4 * (2048 * 2048) ** 2 * 320


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
    monkeypatch.setattr("harness.counted.operators.PRICES", doubled)
    with pytest.raises(Disagreement, match="one of them is wrong"):
        own_bill(sd15, 512)


def test_a_site_that_the_call_never_visits_is_an_error(sd15: UNetModel) -> None:
    with pytest.raises(Disagreement, match=r"the body never called down_blocks\S+attn1: its work would not be counted"):
        cost_of(sd15.denoiser, Body({}, ()))


def test_fvcore_finds_the_same_body_in_a_trace(sd15: UNetModel) -> None:
    arguments = sd15.example(Resolution(512, 256))
    check_body(sd15.denoiser, arguments, body_of(sd15.denoiser, arguments))


def replaced(monkeypatch: pytest.MonkeyPatch, handlers: dict[str, object]) -> None:
    monkeypatch.setattr(fvcore_count, "HANDLERS", {**fvcore_count.HANDLERS, **handlers})


def test_fvcore_without_our_handler_takes_attention_for_free_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {name: handler for name, handler in fvcore_count.HANDLERS.items() if "attention" not in name}
    monkeypatch.setattr(fvcore_count, "HANDLERS", lacking)
    tokens = torch.empty(1, 2, 6, 4, device="meta")
    told = "find 1152 FLOPs, fvcore 0: one of them is wrong; it knows no aten::scaled_dot_product_attention"
    with pytest.raises(Disagreement, match=told):
        count(Attend(), tokens, tokens)


def test_a_double_count_of_the_third_counter_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    once = fvcore_count.HANDLERS["aten::matmul"]
    replaced(monkeypatch, {"aten::matmul": lambda inputs, outputs: 2 * once(inputs, outputs)})

    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x

    with pytest.raises(Disagreement, match="our counter and torch's find 250 FLOPs, fvcore 500: one of them is wrong"):
        count(Product(), torch.empty(5, 5, device="meta"))


def test_a_mixer_that_counts_itself_twice_is_caught(sd15: UNetModel) -> None:
    class Doubled(SelfAttention):
        def flops(self, grid: Grid) -> int:
            return 2 * super().flops(grid)

    honest, doubled = (kind(32, 2).to("meta") for kind in (SelfAttention, Doubled))
    audit(honest, 32, torch.float32)
    price = honest.flops((14, 18))
    told = f"Doubled asks {2 * price} FLOPs for a grid of 14 x 18, its definition costs {price}: correct its flops"
    with pytest.raises(Disagreement, match=told):
        audit(doubled, 32, torch.float32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_three_counters_find_the_price_of_every_variant(variant: str) -> None:
    audit(build(variant).to("meta"), SITE.channels, torch.float64)


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
