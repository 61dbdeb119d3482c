"""The grid travels with the call: threads, checkpointing and compilers cannot mistake one call's for another's."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
import tiny_pipelines
import torch
from test_surgery import dit_call, scaling, unet_call
from torch import Tensor, nn

from baselines import TokenMerging
from deltaconv import DeltaConvBlock
from harness.seats.mixer import Site, TokenMixer
from harness.seats.surgery import Factory, seated

SIZES = ((8, 16), (16, 8))
"""As many tokens, so that the other call's grid would not be noticed."""


def delta(site: Site, attention: nn.Module) -> TokenMixer:
    torch.manual_seed(len(site.path))
    return DeltaConvBlock(site.channels, kernel_size=3)


def tome(site: Site, attention: nn.Module) -> TokenMixer:
    return TokenMerging.for_site(site, attention)


FACTORIES: dict[str, Factory] = {"scaling": scaling, "deltaconv": delta, "token_merging": tome}
DENOISERS = {"unet": (tiny_pipelines.unet, unet_call), "pixart": (tiny_pipelines.transformer, dit_call)}


@pytest.fixture(params=DENOISERS)
def subject(request: pytest.FixtureRequest) -> tuple[nn.Module, Callable[..., dict[str, Any]]]:
    torch.manual_seed(0)
    make, call = DENOISERS[request.param]
    return make().eval(), call


def test_two_threads_at_two_sizes_get_the_images_of_one_thread(subject: Any) -> None:
    denoiser, call = subject
    first = "down_blocks.0.attentions.0.norm" if hasattr(denoiser, "down_blocks") else "pos_embed"
    both_inside = threading.Barrier(2, timeout=60)
    with seated(denoiser, scaling), torch.no_grad():
        expected = [denoiser(**call(*size))[0] for size in SIZES]
        hook = denoiser.get_submodule(first).register_forward_pre_hook(lambda *given: 0 * [both_inside.wait()] or None)
        made: dict[int, Tensor] = {}

        def work(index: int) -> None:
            with torch.no_grad():
                made[index] = denoiser(**call(*SIZES[index]))[0]

        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hook.remove()
    assert [torch.equal(made[index], expected[index]) for index in range(2)] == [True, True]


@pytest.mark.parametrize("name", FACTORIES)
def test_checkpointing_at_two_aspect_ratios_gives_the_gradients_of_none(subject: Any, name: str) -> None:
    denoiser, call = subject

    def gradients() -> list[Tensor]:
        with seated(denoiser.train().requires_grad_(True), FACTORIES[name]) as seats:
            losses = [denoiser(**call(*size))[0].square().mean() for size in SIZES]
            torch.stack(losses).sum().backward()
            found = [weight.grad for seat in seats.values() for weight in seat.mixer.parameters()]
        denoiser.zero_grad()
        return [gradient for gradient in found if gradient is not None]

    plain = gradients()
    denoiser.enable_gradient_checkpointing()
    again = gradients()
    assert len(again) == len(plain) > 0
    for here, there in zip(again, plain, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-7)


def test_the_models_own_cross_attention_is_called_as_if_nothing_were_seated(
    subject: Any, caplog: pytest.LogCaptureFixture
) -> None:
    denoiser, call = subject
    logging.getLogger("diffusers").addHandler(caplog.handler)
    try:
        with seated(denoiser, scaling), torch.no_grad():
            denoiser(**call())
    finally:
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert caplog.messages == []


def test_masks_of_an_ip_adapter_pass_by_since_self_attention_ignores_them() -> None:
    denoiser = tiny_pipelines.unet()
    masks = {"ip_adapter_masks": [torch.ones(1, 1, 10, 14)]}
    with seated(denoiser, scaling), torch.no_grad():
        plain, masked = denoiser(**unet_call())[0], denoiser(**unet_call(), cross_attention_kwargs=masks)[0]
        with pytest.raises(ValueError, match="was given temb, which a mixer cannot honour"):
            denoiser(**unet_call(), cross_attention_kwargs=masks | {"temb": torch.ones(1)})
    assert torch.equal(plain, masked)


@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in place"])
@pytest.mark.parametrize("name", ["pixart", pytest.param("unet", marks=pytest.mark.slow)])
def test_a_compiled_denoiser_is_seated_and_comes_back(name: str, in_place: bool) -> None:
    make, call = DENOISERS[name]
    denoiser = make().eval()
    torch.compiler.reset()
    compiled: Any = denoiser
    if in_place:
        denoiser.compile(backend="eager")
    else:
        compiled = torch.compile(denoiser, backend="eager")
    with torch.no_grad():
        teacher = compiled(**call())[0]
        with seated(compiled, scaling) as seats:
            assert all(path.endswith(".attn1") and not path.startswith("_orig_mod") for path in seats)
            wide, tall = (compiled(**call(*size))[0] for size in SIZES)
        assert torch.equal(compiled(**call())[0], teacher)
        fresh = make()
        fresh.load_state_dict(denoiser.state_dict())
        with seated(fresh.eval(), scaling):
            torch.testing.assert_close(wide, fresh(**call(*SIZES[0]))[0])
            torch.testing.assert_close(tall, fresh(**call(*SIZES[1]))[0])
    torch.compiler.reset()
