"""Seating and unseating: every site, the right grid, and the original back bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny_pipelines
import torch
from torch import Tensor, nn

from harness.models.dit import PixArtModel
from harness.models.unet import UNetModel
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import Seat, seated, sites
from harness.seats.teacher import TeacherAttention


class Scaling(TokenMixer):
    """Depends on its weight and on the order of height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return tokens_BNC * self.weight * (grid[0] / grid[1])


def scaling(site: Site, attention: nn.Module) -> TokenMixer:
    return Scaling(site.channels)


def unet_call(height: int = 10, width: int = 14, device: str = "cpu") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(2, 4, height, width, generator=generator).to(device),
        "timestep": torch.tensor([3, 700], device=device),
        "encoder_hidden_states": torch.randn(2, 5, 16, generator=generator).to(device),
        "return_dict": False,
    }


def dit_call(height: int = 10, width: int = 14, device: str = "cpu") -> dict[str, Any]:
    call = unet_call(height, width, device)
    call["hidden_states"] = call.pop("sample")
    return call | {"encoder_hidden_states": torch.ones(2, 5, 12, device=device)}


DENOISERS: dict[str, tuple[Callable[[], nn.Module], Callable[..., dict[str, Any]]]] = {
    "unet": (tiny_pipelines.unet, unet_call),
    "pixart": (tiny_pipelines.transformer, dit_call),
}


@pytest.fixture(params=DENOISERS)
def subject(request: pytest.FixtureRequest) -> tuple[nn.Module, Callable[..., dict[str, Any]]]:
    torch.manual_seed(0)
    make, call = DENOISERS[request.param]
    return make().eval(), call


def snapshot(denoiser: nn.Module) -> dict[str, Any]:
    """Everything that surgery could disturb."""
    modules = list(denoiser.named_modules())
    return {
        "paths": [path for path, _ in modules],
        "modules": [id(module) for _, module in modules],
        "training": [module.training for _, module in modules],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for _, m in modules],
        "keys": list(denoiser.state_dict()),
        "weights": [weight.clone() for weight in denoiser.state_dict().values()],
        "trainable": [weight.requires_grad for weight in denoiser.parameters()],
    }


def assert_unchanged(before: dict[str, Any], denoiser: nn.Module) -> None:
    after = snapshot(denoiser)
    assert all(map(torch.equal, before.pop("weights"), after.pop("weights")))
    assert before == after


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (UNetModel("sd15", config="sd15"), 16),
        (UNetModel("sdxl", config="sdxl"), 70),
        (PixArtModel("p", config="pixart"), 28),
    ],
    ids=["sd15", "sdxl", "pixart"],
)
def test_the_real_models_have_16_70_and_28_sites(model: UNetModel | PixArtModel, count: int) -> None:
    found = model.load("meta").sites()
    assert len(found) == len(set(found)) == count
    assert all(site.path.endswith(".attn1") and site.channels % site.heads == 0 for site in found)


def test_the_sites_of_a_unet_come_in_the_order_in_which_they_run() -> None:
    denoiser = tiny_pipelines.unet()
    order: list[str] = []

    class Noting(TokenMixer):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
            order.append(self.path)
            return tokens_BNC

    listed = [site.path for site in sites(denoiser)]
    with seated(denoiser, lambda site, attention: Noting(site.path)), torch.no_grad():
        denoiser(**unet_call())
    assert order == listed
    assert [path.partition(".")[0] for path in listed] == ["down_blocks"] * 2 + ["mid_block"] + ["up_blocks"] * 4


def test_the_attention_behind_the_seat_gives_the_teachers_output(subject: Any) -> None:
    denoiser, call = subject
    with torch.no_grad():
        teacher = denoiser(**call())[0]
        with seated(denoiser, lambda site, attention: TeacherAttention(attention)):
            assert torch.equal(denoiser(**call())[0], teacher)


def test_everything_is_back_bit_for_bit_after_use(subject: Any) -> None:
    denoiser, call = subject
    denoiser.get_submodule(sites(denoiser)[0].path).train()
    before = snapshot(denoiser)
    with torch.no_grad():
        teacher = denoiser(**call())[0]
        with seated(denoiser, scaling) as seats:
            student = denoiser(**call())[0]
            denoiser.train().requires_grad_(False)
            assert set(seats) == {site.path for site in sites(denoiser)}
        assert_unchanged(before, denoiser)
        assert torch.equal(denoiser(**call())[0], teacher)
    assert not torch.equal(student, teacher)


def test_everything_is_back_after_an_exception_inside(subject: Any) -> None:
    denoiser, _ = subject
    before = snapshot(denoiser)
    with pytest.raises(KeyboardInterrupt), seated(denoiser, scaling):
        raise KeyboardInterrupt
    assert_unchanged(before, denoiser)


def test_everything_is_back_after_a_factory_that_fails_halfway(subject: Any) -> None:
    denoiser, _ = subject
    before = snapshot(denoiser)
    last = sites(denoiser)[-1]

    def fragile(site: Site, attention: nn.Module) -> TokenMixer:
        if site == last:
            raise ValueError("no such mixer")
        return Scaling(site.channels)

    with pytest.raises(ValueError, match="no such mixer"), seated(denoiser, fragile):
        pass
    assert_unchanged(before, denoiser)


@pytest.mark.parametrize(("height", "width"), [(20, 27), (27, 20), (8, 8), (3, 1)])
def test_a_unet_hands_over_iterated_ceil_halves_also_for_odd_sides(height: int, width: int) -> None:
    denoiser = tiny_pipelines.unet()
    with seated(denoiser, scaling) as seats, torch.no_grad():
        denoiser(**unet_call(height, width))
        grids = {path.partition(".attentions")[0]: seat.grid for path, seat in seats.items()}
    half = ((height + 1) // 2, (width + 1) // 2)
    assert grids["down_blocks.0"] == grids["up_blocks.1"] == (height, width)
    assert grids["down_blocks.1"] == grids["mid_block"] == grids["up_blocks.0"] == half


def test_a_transformer_hands_over_its_grid_in_patches() -> None:
    denoiser = tiny_pipelines.transformer()
    with seated(denoiser, scaling) as seats, torch.no_grad():
        denoiser(**dit_call(12, 18))
        denoiser(**dit_call(20, 26))
        assert {seat.grid for seat in seats.values()} == {(10, 13)}


def test_height_and_width_are_not_mistaken_for_each_other() -> None:
    denoiser = tiny_pipelines.unet()
    call = unet_call(8, 16)
    with seated(denoiser, scaling), torch.no_grad():
        wide = denoiser(**call)[0]
        tall = denoiser(**call | {"sample": call["sample"].transpose(2, 3)})[0].transpose(2, 3)
    assert (wide - tall).abs().max() > 1e-3


def test_nothing_real_is_made_on_the_meta_device() -> None:
    with torch.device("meta"):
        denoiser = tiny_pipelines.unet()
    with seated(denoiser, scaling) as seats, torch.no_grad():
        output = denoiser(**unet_call(20, 27, "meta"))[0]
        assert all(weight.is_meta for seat in seats.values() for weight in seat.mixer.parameters())
    assert output.is_meta
    assert output.shape == (2, 4, 20, 27)


def test_a_mixer_takes_the_dtype_and_mode_of_what_it_replaces() -> None:
    denoiser = tiny_pipelines.unet().to(torch.bfloat16).eval()
    with seated(denoiser, scaling) as seats:
        assert {weight.dtype for seat in seats.values() for weight in seat.mixer.parameters()} == {torch.bfloat16}
        assert not any(module.training for seat in seats.values() for module in seat.modules())


def test_gradients_reach_every_mixer_also_with_checkpointing() -> None:
    denoiser = tiny_pipelines.unet().train()
    denoiser.enable_gradient_checkpointing()
    with seated(denoiser, scaling) as seats:
        denoiser(**unet_call(5, 7))[0].square().sum().backward()
        assert all(seat.mixer.weight.grad.abs().sum() > 0 for seat in seats.values())


def test_a_seat_refuses_what_a_mixer_would_ignore(subject: Any) -> None:
    denoiser, call = subject
    with seated(denoiser, scaling) as seats, torch.no_grad():
        path, seat = next(iter(seats.items()))
        denoiser(**call())
        height, width = seat.grid or (0, 0)
        tokens = torch.zeros(2, height * width, seat.site.channels)
        assert seat(tokens, token_grid=(height, width)).shape == tokens.shape
        for name in ("attention_mask", "encoder_hidden_states", "temb"):
            with pytest.raises(ValueError, match=f"{path} was given {name}, which a mixer cannot honour"):
                seat(tokens, token_grid=(height, width), **{name: tokens})
        with pytest.raises(ValueError, match="got 3 tokens for the grid"):
            seat(tokens[:, :3], token_grid=(height, width))
        with pytest.raises(ValueError, match="for the grid None: call the whole denoiser, and not this block"):
            seat(tokens)


def test_a_mask_given_to_the_whole_denoiser_is_refused_as_well() -> None:
    denoiser = tiny_pipelines.unet()
    with seated(denoiser, scaling), pytest.raises(ValueError, match="attention_mask"):
        denoiser(**unet_call(4, 4), attention_mask=torch.ones(2, 16))


def test_a_forward_that_leaves_out_a_seat_is_an_error() -> None:
    denoiser = tiny_pipelines.transformer()
    with seated(denoiser, scaling), torch.no_grad():
        denoiser(**dit_call())
        denoiser.transformer_blocks[1].forward = lambda hidden_states, **rest: hidden_states
        with pytest.raises(RuntimeError, match="1 of 3 seats were not called, the first is trans"):
            denoiser(**dit_call())


def test_a_second_variant_cannot_be_seated_on_top_of_the_first(subject: Any) -> None:
    denoiser, _ = subject
    with seated(denoiser, scaling):
        with pytest.raises(ValueError, match=r"a variant is seated in this .* already"), seated(denoiser, scaling):
            pass
        assert all(isinstance(denoiser.get_submodule(site.path), Seat) for site in sites(denoiser))


def test_a_factory_that_gives_no_mixer_is_named() -> None:
    denoiser = tiny_pipelines.unet()
    with (
        pytest.raises(TypeError, match=r"gave a Linear for down_blocks\.0.*: it must give a TokenMixer"),
        seated(denoiser, lambda site, attention: nn.Linear(2, 2)),  # type: ignore[arg-type, return-value]
    ):
        pass


def test_a_module_without_self_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no self-attention layer named attn1: give a UNet or a PixArt"):
        sites(nn.Linear(2, 2))
