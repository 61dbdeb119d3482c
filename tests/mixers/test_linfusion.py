"""LinFusion and ReLU linear attention as explicit N x N weights, LinFusion's published names, and its refusals."""

import pytest
import torch
from torch.nn.functional import layer_norm, leaky_relu
from variants import Teacher

from baselines import LinFusionAttention, ReLULinearAttention
from baselines.linfusion import load_published
from harness.seats.mixer import Site

Weights = dict[str, torch.Tensor]
SITE = Site("mid_block.attentions.0.transformer_blocks.0.attn1", channels=32, heads=4)


def published(channels: int, mid: int, seed: int = 0) -> Weights:
    """One site of a published checkpoint, filled with normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        **{f"{name}.weight": (channels, channels) for name in ("to_q", "to_k", "to_v", "to_out.0")},
        "to_out.0.bias": (channels,),
    }
    for name in ("to_q_", "to_k_"):
        shapes |= {f"{name}.0.weight": (mid, channels), f"{name}.0.bias": (mid,)}
        shapes |= {f"{name}.1.weight": (mid,), f"{name}.1.bias": (mid,)}
        shapes |= {f"{name}.3.weight": (channels, mid), f"{name}.3.bias": (channels,)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) / 4 for name, shape in shapes.items()}


def formula(weights: Weights, x_BNC: torch.Tensor, heads: int, identity: bool = False) -> torch.Tensor:
    """The published mathematics with the N x N weights written out."""

    def nudged(name: str) -> torch.Tensor:
        if identity:
            return 2 * x_BNC
        y = x_BNC @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"]
        y = leaky_relu(layer_norm(y, y.shape[-1:], weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]), 0.01)
        return x_BNC + y @ weights[f"{name}.3.weight"].T + weights[f"{name}.3.bias"]

    def feature(name: str) -> torch.Tensor:
        z = nudged(f"{name}_") @ weights[f"{name}.weight"].T
        return torch.where(z > 0, z + 1, z.exp()).unflatten(-1, (heads, -1))

    q, k = feature("to_q"), feature("to_k")
    v = (x_BNC @ weights["to_v.weight"].T).unflatten(-1, (heads, -1))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / x_BNC.shape[1]
    shares = scores / (scores.sum(-1, keepdim=True) + 1e-4)
    mixed = torch.einsum("bhij,bjhd->bihd", shares, v).flatten(2)
    return mixed @ weights["to_out.0.weight"].T + weights["to_out.0.bias"]


@pytest.mark.parametrize("mid", [32, 2])
@torch.no_grad()
def test_published_weights_give_the_published_formula(mid: int) -> None:
    weights = published(32, mid)
    mixer = load_published(LinFusionAttention(32, 4, mid).double(), weights)
    x_BNC = torch.randn(2, 91, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(mixer(x_BNC, (7, 13)), formula(weights, x_BNC, 4), rtol=0, atol=1e-10)


@torch.no_grad()
def test_without_perceptrons_the_queries_see_the_token_twice_as_published() -> None:
    weights = {name: value for name, value in published(32, 32).items() if not name.startswith(("to_q_", "to_k_"))}
    mixer = load_published(LinFusionAttention(32, 4, -1).double(), weights)
    x_BNC = torch.randn(2, 35, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(mixer(x_BNC, (5, 7)), formula(weights, x_BNC, 4, identity=True), rtol=0, atol=1e-10)
    assert mixer.flops((5, 7)) == 8 * 35 * 32**2 + 4 * 35 * 32 * 8 + 2 * 35 * 32


@pytest.mark.parametrize(("mid", "width"), [(None, 320), (20, 20)])
def test_the_price_is_that_of_the_facts(mid: int | None, width: int) -> None:
    tokens, channels, size = 4096, 320, 40
    with torch.device("meta"):
        mixer = LinFusionAttention(channels, 8, mid)
    linear = 8 * tokens * channels**2 + 4 * tokens * channels * size + 2 * tokens * channels
    assert mixer.flops((64, 64)) == linear + 8 * tokens * channels * width


@torch.no_grad()
def test_biases_of_the_projections_are_kept_and_zero_where_the_weights_lack_them() -> None:
    mixer = load_published(LinFusionAttention(32, 4, 2, bias=True), published(32, 2))
    assert not mixer.state_dict()["to_q.bias"].any()
    weights = published(32, 2) | {"to_q.bias": torch.ones(32)}
    assert load_published(mixer, weights).state_dict()["to_q.bias"].eq(1).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"to_q_.1.weight": None},
            r"the LinFusion weights lack to_q_.1.weight: give all of one site, without a prefix",
        ),
        ({"to_q.bias": (32,)}, r"the LinFusion weights hold to_q.bias, unknown to this mixer: check mid_channels or"),
        (
            {"to_k_.0.weight": (4, 32)},
            r"to_k_.0.weight of the LinFusion weights is \(4, 32\), not \(2, 32\): they are for",
        ),
    ],
)
def test_weights_of_another_site_are_refused_by_name_and_change_nothing(
    change: dict[str, tuple[int, ...] | None], sentence: str
) -> None:
    weights = published(32, 2)
    for name, shape in change.items():
        weights.pop(name, None)
        if shape is not None:
            weights[name] = torch.zeros(shape)
    mixer = LinFusionAttention(32, 4, 2)
    before = {name: value.clone() for name, value in mixer.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{sentence}"):
        load_published(mixer, weights)
    assert all(torch.equal(value, before[name]) for name, value in mixer.state_dict().items())


def test_the_width_may_follow_the_site_and_weights_may_start_at_random() -> None:
    teacher = Teacher(32, bias=True)
    mixer = LinFusionAttention.for_site(SITE, teacher, mid_divisor=16)
    assert mixer.mid_channels == 2
    assert torch.equal(mixer.to_q.bias, teacher.to_q.bias)
    fresh = LinFusionAttention.for_site(SITE, teacher, inherit=False)
    assert fresh.mid_channels == 32
    assert not torch.equal(fresh.to_q.weight, teacher.to_q.weight)


def test_widths_that_make_no_perceptron_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^mid_channels is 0: give a width of at least 1, null for C, or -1 for none"):
        LinFusionAttention(32, 4, 0)
    with pytest.raises(ValueError, match=r"^mid_divisor is 5 at site mid_block.* of 32 channels: give a divisor of"):
        LinFusionAttention.for_site(SITE, torch.nn.Identity(), mid_divisor=5)


def states(*sizes: tuple[int, int]) -> dict[str, Weights]:
    """A checkpoint with one site for each (channels, width of the perceptrons); a width of -1 has none."""
    return {
        str(index): {
            name: value for name, value in published(channels, abs(mid)).items() if mid > 0 or "_." not in name
        }
        for index, (channels, mid) in enumerate(sizes)
    }


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        (((32, 2), (64, 4)), {"mid_divisor": 16}),
        (((32, 32), (64, 64)), {"mid_divisor": 1}),
        (((32, 4), (64, 4)), {"mid_channels": 4}),
        (((32, 12), (32, 12)), {"mid_channels": 12}),
        (((32, 64), (32, 64)), {"mid_channels": 64}),
        (((32, -1), (64, -1)), {"mid_channels": -1}),
    ],
)
def test_the_width_of_published_weights_is_a_whole_share_or_one_number(
    sizes: tuple[tuple[int, int], ...], settings: dict[str, int]
) -> None:
    assert LinFusionAttention.settings_of(states(*sizes)) == settings


@pytest.mark.parametrize(
    ("sizes", "listed"),
    [
        (((32, 12), (64, 24)), "12 at 32 channels, 24 at 64 channels"),
        (((32, 2), (64, 5)), "2 at 32 channels, 5 at 64 channels"),
        (((32, -1), (64, 4)), "none, 4 at 64 channels"),
    ],
)
def test_widths_that_no_setting_gives_are_refused_with_the_numbers(
    sizes: tuple[tuple[int, int], ...], listed: str
) -> None:
    with pytest.raises(ValueError, match=rf"^the LinFusion weights have perceptrons of several widths \({listed}\), "):
        LinFusionAttention.settings_of(states(*sizes))


@pytest.mark.parametrize("implied", [{"mid_divisor": 16}, {"mid_channels": 2}])
def test_a_width_of_the_users_own_counts_beside_the_one_that_the_weights_imply(implied: dict[str, int]) -> None:
    for own in ({"mid_channels": 2}, {"mid_divisor": 16}):
        assert LinFusionAttention.for_site(SITE, Teacher(32), **implied | own).mid_channels == 2
    with pytest.raises(ValueError, match=r"^mid_channels is 4 and mid_divisor is 16, which makes 2 at site mid_block"):
        LinFusionAttention.for_site(SITE, Teacher(32), mid_channels=4, mid_divisor=16)


@torch.no_grad()
def test_half_precision_does_not_overflow_on_many_tokens() -> None:
    torch.manual_seed(0)
    for mixer in (LinFusionAttention(16, 2).half(), ReLULinearAttention(16, 2).half()):
        mixed = mixer(30 * torch.randn(1, 16384, 16).half(), (128, 128))
        assert mixed.isfinite().all()


@torch.no_grad()
def test_relu_attention_is_its_explicit_weights() -> None:
    torch.manual_seed(0)
    mixer = ReLULinearAttention(12, 3, bias=True).double()
    x_BNC = torch.randn(2, 35, 12, dtype=torch.float64)
    q, k, v = (project(x_BNC).unflatten(-1, (3, 4)) for project in (mixer.to_q, mixer.to_k, mixer.to_v))
    scores = torch.einsum("bihd,bjhd->bhij", q.relu(), k.relu())
    mixed = torch.einsum("bhij,bjhd->bihd", scores / (scores.sum(-1, keepdim=True) + 1e-15), v)
    torch.testing.assert_close(mixer(x_BNC, (5, 7)), mixer.to_out[0](mixed.flatten(2)), rtol=0, atol=1e-12)
