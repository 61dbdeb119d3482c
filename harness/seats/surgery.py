"""Surgery: put a mixer in the place of every self-attention layer of a denoiser, and everything back afterwards.

A site is a diffusers `Attention` named `attn1`. A seat stands there with the same call signature, and hands its mixer
the tokens and their grid, which travels with the call (harness/seats/call_grid.py).

Shapes: B batch, N = height * width tokens in row-major order, C channels.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.records.case import BadInput
from harness.seats.call_grid import CALLED, begin_list, grid_hooks, spatial_around
from harness.seats.mixer import Grid, Site, TokenMixer

Factory = Callable[[Site, nn.Module], TokenMixer]
"""(site, the diffusers Attention being replaced) -> the mixer that takes its place."""

STAGES = ("down_blocks", "mid_block", "up_blocks")
"""A UNet runs its stages in this order; `named_modules` lists the middle last."""
IGNORED = ("ip_adapter_masks", "ip_hidden_states")
"""What diffusers hands to every attention for the sake of its cross-attention, and self-attention ignores."""
SEATING, SAVE = "deltabench_seating", "save_pretrained"
"""Attributes of a seated denoiser: its Seating, and in the place of the method of that name one that refuses."""


class Seat(nn.Module):
    """Stands at a site with the call signature of diffusers. grid: that of the latest call, for who asks later."""

    def __init__(self, site: Site, mixer: TokenMixer) -> None:
        super().__init__()
        self.site = site
        self.mixer = mixer
        self.grid: Grid | None = None

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_grid: Grid | None = None,
        called_seats: list[str] | None = None,
        **cross_attention_kwargs: Any,
    ) -> Tensor:
        """Mixed tokens; raises ValueError for anything that a mixer would have to ignore and attention would not."""
        self._refuse(encoder_hidden_states, attention_mask, cross_attention_kwargs)
        if token_grid is None or token_grid[0] * token_grid[1] != hidden_states.shape[1]:
            raise ValueError(
                f"the seat at {self.site.path} got {hidden_states.shape[1]} tokens for the grid {token_grid}: "
                "call the whole denoiser, and not this block by itself"
            )
        self.grid = token_grid
        if called_seats is not None:
            called_seats.append(self.site.path)
        mixed_BNC: Tensor = self.mixer(hidden_states, token_grid)
        return mixed_BNC

    def _refuse(self, states: Tensor | None, mask: Tensor | None, rest: dict[str, Any]) -> None:
        values = {"encoder_hidden_states": states, "attention_mask": mask, **rest}
        given = [name for name, value in values.items() if value is not None and name not in IGNORED]
        if given:
            raise ValueError(
                f"the seat at {self.site.path} was given {', '.join(given)}, which a mixer cannot honour: "
                "self-attention without masks, encoder states and cross_attention_kwargs is all that can be replaced"
            )


def uncompiled(denoiser: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, whose paths are the model's own; any other module as it is."""
    return cast(nn.Module, getattr(denoiser, "_orig_mod", denoiser))


def sites(denoiser: nn.Module) -> list[Site]:
    """Every self-attention layer in execution order (a UNet: down, mid, up), also while a variant is seated."""
    from diffusers.models.attention_processor import Attention

    found: list[Site] = []
    within: tuple[str, ...] = ()
    for path, module in uncompiled(denoiser).named_modules():
        if within and path.startswith(within):
            continue
        if isinstance(module, Seat):
            found.append(module.site)
            within += (path + ".",)
        elif isinstance(module, Attention) and path.rpartition(".")[2] == "attn1":
            if module.is_cross_attention:
                raise ValueError(
                    f"{path} is a cross-attention: {type(denoiser).__name__} is not a denoiser that can be operated on"
                )
            found.append(Site(path, module.query_dim, module.heads))
    if not found:
        raise ValueError(
            f"{type(denoiser).__name__} has no self-attention layer named attn1: give a UNet or a PixArt transformer"
        )
    order = {stage: index for index, stage in enumerate(STAGES)}
    ordered = sorted(found, key=lambda site: order.get(site.path.partition(".")[0], 0))
    return [replace(site, among=tuple(other.path for other in ordered)) for site in ordered]


class Seating:
    """A variant in the place of every self-attention layer of a denoiser, and the way back.

    New mixers get the device, dtype and training mode of the attention that they replace. Every forward of the denoiser
    is checked to have passed through every seat. A copy of the denoiser carries a copy of its seating.
    """

    def __init__(self, denoiser: nn.Module, factory: Factory, name: str = "") -> None:
        """Seat the factory's mixers; an exception leaves the denoiser as it was. `name`: whose mixers these are."""
        if seating_of(denoiser) is not None:
            raise ValueError(f"a variant is seated in this {type(denoiser).__name__} already: leave its context first")
        self.denoiser, self.factory, self.name = uncompiled(denoiser), factory, name
        weight = next(self.denoiser.parameters())
        self.origin = (weight.device, weight.dtype)
        self.layers = {site: self.denoiser.get_submodule(site.path) for site in sites(self.denoiser)}
        for site, attention in self.layers.items():
            _refuse_adapters(site, attention)
        self.seats: dict[str, Seat] = {}
        self._training = [(module, module.training) for module in self.denoiser.modules()]
        self._trainable = [(weight, weight.requires_grad) for weight in self.denoiser.parameters()]
        self._hooks: list[RemovableHandle] = []
        with ExitStack() as way_back:
            way_back.callback(self.undo)
            self._seat_all()
            way_back.pop_all()

    def _seat_all(self) -> None:
        spatial_modules = dict.fromkeys(spatial_around(self.denoiser, site.path) for site in self.layers)
        for site, attention in self.layers.items():
            seat = Seat(site, _mixer(self.factory, site, attention)).train(attention.training)
            self.seats[site.path] = seat
            _put(self.denoiser, site.path, seat)
        for path in spatial_modules:
            self._hooks += grid_hooks(self.denoiser.get_submodule(path))
        self._hooks.append(self.denoiser.register_forward_pre_hook(begin_list, with_kwargs=True))
        self._hooks.append(self.denoiser.register_forward_hook(self._check_list, with_kwargs=True))
        self.denoiser.__dict__[SEATING] = self
        if hasattr(self.denoiser, SAVE):
            self.denoiser.__dict__[SAVE] = self._refuse_to_save

    def undo(self) -> None:
        """Modules, hooks and flags are back bit for bit."""
        for hook in self._hooks:
            hook.remove()
        for site, attention in self.layers.items():
            _put(self.denoiser, site.path, attention)
        for module, flag in self._training:
            module.training = flag
        for weight, flag in self._trainable:
            weight.requires_grad_(flag)
        for name in (SEATING, SAVE):
            self.denoiser.__dict__.pop(name, None)

    def _check_list(self, denoiser: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook: a call that left out a seat raises RuntimeError."""
        called = kwargs["cross_attention_kwargs"][CALLED]
        missed = [path for path in self.seats if path not in called]
        if missed:
            raise RuntimeError(
                f"{len(missed)} of {len(self.seats)} seats were not called, the first is {missed[0]}: "
                "the numbers would be those of a mixture"
            )

    def _refuse_to_save(self, *args: Any, **kwargs: Any) -> None:
        """In the place of `save_pretrained`, whose files would lack the teacher's attention."""
        raise BadInput(
            f"a variant is seated in this {type(self.denoiser).__name__}, and its files would lack the model's own "
            "attention: write the variant with save(pipe, folder), and the model after remove(pipe)"
        )


def seating_of(denoiser: nn.Module) -> Seating | None:
    """What is seated in a denoiser, if anything is."""
    return uncompiled(denoiser).__dict__.get(SEATING)


@contextmanager
def seated(denoiser: nn.Module, factory: Factory) -> Iterator[dict[str, Seat]]:
    """Replace every site by the factory's mixer while the context is open, also past an exception.

    Move the denoiser to its device before, not inside.
    """
    seating = Seating(denoiser, factory)
    try:
        yield seating.seats
    finally:
        seating.undo()


def _mixer(factory: Factory, site: Site, attention: nn.Module) -> TokenMixer:
    """The factory's mixer on the attention's device and dtype; on the meta device nothing real is ever allocated."""
    weight = next(attention.parameters())
    with torch.device("meta") if weight.is_meta else nullcontext():
        mixer = factory(site, attention)
    if not isinstance(mixer, TokenMixer):
        raise TypeError(f"the factory gave a {type(mixer).__name__} for {site.path}: it must give a TokenMixer")
    return mixer.to(device=weight.device, dtype=weight.dtype)


def _refuse_adapters(site: Site, attention: nn.Module) -> None:
    """BadInput for an attention with a LoRA or another adapter of peft, which wraps a `base_layer`."""
    wrapped = [name for name, module in attention.named_modules() if hasattr(module, "base_layer")]
    if wrapped:
        raise BadInput(
            f"a LoRA or another adapter sits on {wrapped[0]} of {site.path} and would be lost with the attention: call "
            "pipe.fuse_lora() and then pipe.unload_lora_weights() to keep what it does, or the latter alone to drop it"
        )


def _put(denoiser: nn.Module, path: str, module: nn.Module) -> None:
    """Set the module at a path; the order of its siblings, and so of the state dict, stays."""
    outer, _, name = path.rpartition(".")
    setattr(denoiser.get_submodule(outer), name, module)
