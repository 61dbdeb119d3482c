"""Mixers that take over a teacher's projections, against diffusers' own attention."""

import pytest
import torch
from torch import nn

from baselines import NeighborhoodAttention, SelfAttention
from harness.seats.mixer import Site

SITE = Site("transformer_blocks.3.attn1", channels=24, heads=3)


def attention(bias: bool = False, **settings: object) -> nn.Module:
    """A diffusers self-attention: of Stable Diffusion without biases on q, k, v, of PixArt with them."""
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    layer: nn.Module = Attention(query_dim=24, heads=3, dim_head=8, bias=bias, **settings).double()
    return layer


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_self_attention_and_a_window_over_the_grid_are_the_teacher(bias: bool) -> None:
    teacher = attention(bias)
    x_BNC = torch.randn(2, 35, 24, dtype=torch.float64)
    for mixer in (SelfAttention.for_site(SITE, teacher), NeighborhoodAttention.for_site(SITE, teacher, kernel_size=7)):
        mixer.double().load_state_dict(teacher.state_dict())  # names and shapes are diffusers' own
        assert (mixer.to_q.bias is not None) == bias
    mixer = SelfAttention.for_site(SITE, teacher).double()
    torch.testing.assert_close(mixer(x_BNC, (5, 7)), teacher(x_BNC), rtol=0, atol=1e-6)
    whole = NeighborhoodAttention.for_site(SITE, teacher, kernel_size=7).double()
    torch.testing.assert_close(whole(x_BNC[:, :25], (5, 5)), teacher(x_BNC[:, :25]), rtol=0, atol=1e-6)


def test_a_windows_projections_may_start_at_random_with_the_biases_that_the_teacher_has() -> None:
    teacher = attention(bias=True)
    fresh = NeighborhoodAttention.for_site(SITE, teacher, kernel_size=7, inherit=False)
    assert fresh.to_q.bias is not None
    assert not torch.equal(fresh.to_q.weight.double(), teacher.to_q.weight)


def test_the_copy_is_the_mixers_own() -> None:
    teacher = attention().requires_grad_(False)
    before = teacher.to_q.weight.clone()
    mixer = SelfAttention.for_site(SITE, teacher)
    assert mixer.to_q.weight.requires_grad
    with torch.no_grad():
        mixer.to_q.weight.zero_()
    assert torch.equal(teacher.to_q.weight, before)


def test_a_bias_that_the_teacher_lacks_is_zero() -> None:
    mixer = SelfAttention.for_site(SITE, attention(out_bias=False))
    assert not mixer.to_out[0].bias.any()


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.Identity(), "site transformer_blocks.3.attn1: Identity has no linear to_q, which is needed to take over"),
        (
            attention(qk_norm="layer_norm"),
            "site transformer_blocks.3.attn1: the attention has norm_q, norm_k, which would",
        ),
        (
            attention(cross_attention_dim=16),
            "site transformer_blocks.3.attn1: to_k of the attention is 24 x 16, not 24 x 24",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_refused_in_a_sentence(layer: nn.Module, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        SelfAttention.for_site(SITE, layer)
