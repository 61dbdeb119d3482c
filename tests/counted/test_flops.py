"""FLOPs of a call and of an image: the published sums, what they are made of, and what the metric says."""

import itertools
import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from variants import FACTORIES

from baselines import SelfAttention
from harness.counted.components import decoder_flops, encodings, text_flops
from harness.counted.counters import Definition, count
from harness.counted.flops import CallCost, Flops, body_of, cost_of
from harness.models.dit import PixArtModel
from harness.models.layout import Layout
from harness.models.unet import UNetModel
from harness.records.case import Resolution
from harness.records.record import Reading
from harness.seats.surgery import seated

GOLDEN = Path(__file__).parents[1] / "golden" / "flops.json"


@pytest.fixture(scope="module")
def pixart() -> PixArtModel:
    model = PixArtModel("pixart_512", config="pixart_512")
    model.load("meta", "fp32")
    return model


@cache
def own_bill(model: UNetModel | PixArtModel, size: int | str) -> CallCost:
    """Of the model as it is, with its own attention."""
    return cost_of(model.denoiser, body_of(model.denoiser, model.example(Resolution.parse(size))))


def giga(flops: int) -> float:
    return round(flops / 1e9, 2)


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
        other = cost_of(pixart.denoiser, body_of(pixart.denoiser, pixart.example(Resolution.parse("512x256"))))
    assert other.body.kinds == own.body.kinds
    assert (other.sites == own.sites) == (variant == "self_attention")


def test_prices_equal_the_golden_text(sd15: UNetModel, pixart: PixArtModel) -> None:
    """Rewrite tests/golden/flops.json by hand when a price is meant to move, and say why in the commit."""
    found: dict[str, dict[str, int]] = {}
    for model, size in itertools.product((sd15, pixart), ("512", "1024x1536", "16384")):
        with seated(model.denoiser, SelfAttention.for_site):
            body = body_of(model.denoiser, model.example(Resolution.parse(size)))
        for variant, factory in FACTORIES.items():
            with seated(model.denoiser, factory):
                costs = cost_of(model.denoiser, body)
                found[f"{model.name} {variant} {size}"] = {"flops": costs.total, "flops_mixers": costs.mixers}
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("variant", FACTORIES)
def test_a_mixer_asks_what_its_definition_costs(sd15: UNetModel, variant: str) -> None:
    with seated(sd15.denoiser, FACTORIES[variant]) as seats:
        seat = seats["down_blocks.1.attentions.0.transformer_blocks.0.attn1"]
        tokens = torch.empty(1, 14 * 18, seat.site.channels, device="meta")
        assert count(Definition(seat.mixer), tokens, (14, 18)) == seat.mixer.flops((14, 18))


# What a call and an image are made of


def test_the_parts_of_a_diffusion_transformer_cost_their_closed_forms(pixart: PixArtModel) -> None:
    """28 blocks of 1152 channels on 1024 tokens and 300 of text, feed-forward four times as wide."""
    kinds = own_bill(pixart, 512).kinds
    tokens, text, wide = 1024, 300, 1152
    assert kinds["cross_attention"] == 28 * (4 * (tokens + text) * wide**2 + 4 * tokens * text * wide)
    assert kinds["feed_forward"] == 28 * 16 * tokens * wide**2
    assert kinds["convolution"] == 2 * tokens * wide * 4 * 2 * 2  # the patches of 2 x 2 latents


def test_the_parts_of_a_unet_are_those_that_torch_finds_in_its_modules(sd15: UNetModel) -> None:
    kinds = own_bill(sd15, 512).kinds
    counter = FlopCounterMode(display=False, depth=None)
    with torch.no_grad(), counter:
        sd15.denoiser(**sd15.example(Resolution(512, 512)))
    found = {path.partition(".")[2]: sum(work.values()) for path, work in counter.get_flop_counts().items()}
    for kind, name in {"self_attention": "attn1", "cross_attention": "attn2", "feed_forward": "ff"}.items():
        assert kinds[kind] == sum(flops for path, flops in found.items() if path.rpartition(".")[2] == name)
    convolutions = [path for path, module in sd15.denoiser.named_modules() if isinstance(module, nn.Conv2d)]
    assert kinds["convolution"] == sum(found[path] for path in convolutions)
    assert sum(kinds.values()) == counter.get_total_flops()


def test_a_text_encoder_costs_its_closed_form(sd15: UNetModel) -> None:
    """CLIP-L: 12 layers of 768 channels on 77 tokens, four maps, an MLP four times as wide, and attention."""
    assert text_flops(sd15) == 12 * (24 * 77 * 768**2 + 4 * 77**2 * 768)


def test_a_decoder_is_linear_in_its_pixels_but_for_one_attention_of_512_channels(sd15: UNetModel) -> None:
    one, two = (decoder_flops(sd15, Resolution.parse(size)) for size in ("256", "512x256"))
    assert two - 2 * one == 4 * 512 * (2048**2 - 2 * 1024**2)


def test_unconditional_text_is_encoded_unless_zeros_stand_for_it() -> None:
    assert [encodings(Layout.shipped("sd15"), guidance) for guidance in (1.0, 7.5)] == [1, 2]
    assert [encodings(Layout.shipped("sdxl"), guidance) for guidance in (1.0, 7.5)] == [1, 1]


# The metrics


def trial_of(model: UNetModel | PixArtModel, variant: str, size: str, guidance: float = 4.0) -> SimpleNamespace:
    resolution = Resolution.parse(size)

    @contextmanager
    def meta_denoiser():  # type: ignore[no-untyped-def]
        with seated(model.denoiser, FACTORIES[variant]):
            yield model.denoiser, model.example(resolution)

    case = SimpleNamespace(resolution=resolution, variant=variant, dtype="fp32", steps=20, guidance=guidance)
    return SimpleNamespace(model=model, case=case, factory=FACTORIES[variant], meta_denoiser=meta_denoiser)


def taken(metric: Flops, *trial: object) -> dict[str, Reading]:
    return {reading.name: reading for reading in metric(trial_of(*trial))}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def metric() -> Flops:
    return Flops()


def test_the_metric_reads_calls_and_parameters_and_follows_a_body_once(sd15: UNetModel, metric: Flops) -> None:
    first = taken(metric, sd15, "self_attention", "512")
    second = taken(metric, sd15, "deltaconv", "512")
    assert len(metric.bodies) == 1
    assert first["parameters"].value == 859_520_964
    assert first["parameters_mixers"].value == 49_574_080
    assert first["flops"].value == first["flops"].details["body"] + first["flops_mixers"].value
    assert second["flops"].details["body"] == first["flops"].details["body"]
    assert len(second["flops_mixers"].details["sites"]) == 16
    assert isinstance(second["flops"].value, int)
    assert first["flops"].details["counters"] == ["prices", "torch", "fvcore at 512"]
    assert first["flops"].details["macs"] * 2 == first["flops"].value == sum(first["flops"].details["kinds"].values())


def test_an_image_is_its_calls_its_texts_and_one_decoding(sd15: UNetModel, metric: Flops) -> None:
    guided = taken(metric, sd15, "self_attention", "512", 4.0)
    plain = taken(metric, sd15, "self_attention", "512", 1.0)
    call, text, pixels = guided["flops"].value, text_flops(sd15), decoder_flops(sd15, Resolution(512, 512))
    assert call is not None
    assert guided["flops_image"].value == 40 * call + 2 * text + pixels
    assert plain["flops_image"].value == 20 * call + text + pixels
    assert guided["flops_image"].protocol != plain["flops_image"].protocol  # so no report lays them on one line
    details = guided["flops_image"].details
    assert (details["calls"], details["kinds"]["text_encoder"], details["kinds"]["vae"]) == (40, 2 * text, pixels)
    assert details["macs"] * 2 == guided["flops_image"].value
