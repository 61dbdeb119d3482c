"""Surgery: put a mixer in the place of every self-attention layer of a denoiser, and everything back afterwards.

A site is a diffusers `Attention` named `attn1`. It sees tokens only, never the height and width that they came from,
and a square root is wrong for anything but a square. So a forward pre-hook on the enclosing spatial module
(`Transformer2DModel` in a UNet, `PixArtTransformer2DModel`) notes the grid, and the seat hands it to its mixer.
The hook sits outside the blocks that gradient checkpointing runs again, so the grid still holds there.

Shapes: B batch, N = height * width tokens in row-major order, C channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.mixer import Grid, Site, TokenMixer

Factory = Callable[[Site, nn.Module], TokenMixer]
"""(site, the diffusers Attention being replaced) -> the mixer that takes its place."""

STAGES = ("down_blocks", "mid_block", "up_blocks")
"""A UNet runs its stages in this order; `named_modules` lists the middle last."""


class Room:
    """What the sites inside one spatial module share: the grid of the tokens that it is working on."""

    grid: Grid | None = None

    def __init__(self, spatial: Any) -> None:
        self.patch_size = int(spatial.config.get("patch_size") or 1)

    def note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook: the grid is the map's height and width, counted in patches."""
        map_BCHW = args[0] if args else kwargs["hidden_states"]
        height, width = map_BCHW.shape[-2:]
        self.grid = (height // self.patch_size, width // self.patch_size)


class Seat(nn.Module):
    """Stands at a site with the call signature of diffusers. `grid`: the last one that it was called with."""

    def __init__(self, site: Site, mixer: TokenMixer, room: Room) -> None:
        super().__init__()
        self.site = site
        self.mixer = mixer
        self.room = room
        self.grid: Grid | None = None

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **cross_attention_kwargs: Any,
    ) -> Tensor:
        """Mixed tokens; raises ValueError for anything that a mixer would have to ignore."""
        self._refuse(encoder_hidden_states, attention_mask, cross_attention_kwargs)
        grid = self.room.grid
        if grid is None or grid[0] * grid[1] != hidden_states.shape[1]:
            raise ValueError(
                f"the seat at {self.site.path} got {hidden_states.shape[1]} tokens for the grid {grid}: "
                "call the whole denoiser, and not this block by itself"
            )
        self.grid = grid
        mixed_BNC: Tensor = self.mixer(hidden_states, grid)
        return mixed_BNC

    def _refuse(self, states: Tensor | None, mask: Tensor | None, rest: dict[str, Any]) -> None:
        given = [
            name for name, value in (("encoder_hidden_states", states), ("attention_mask", mask)) if value is not None
        ]
        given += [name for name, value in rest.items() if value is not None]
        if given:
            raise ValueError(
                f"the seat at {self.site.path} was given {', '.join(given)}, which a mixer cannot honour: "
                "self-attention without masks, encoder states and cross_attention_kwargs is all that can be replaced"
            )


def sites(denoiser: nn.Module) -> list[Site]:
    """Every self-attention layer in execution order (a UNet: down, mid, up), also while a variant is seated."""
    from diffusers.models.attention_processor import Attention

    found: list[Site] = []
    within: tuple[str, ...] = ()
    for path, module in denoiser.named_modules():
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
    return sorted(found, key=lambda site: order.get(site.path.partition(".")[0], 0))


@contextmanager
def seated(denoiser: nn.Module, factory: Factory) -> Iterator[dict[str, Seat]]:
    """Replace every site by the factory's mixer; on the way out modules, hooks and flags are back bit for bit.

    New mixers get the device, dtype and training mode of the attention that they replace. Every forward of the denoiser
    is checked to have passed through every seat. Move the denoiser to its device before, not inside.
    """
    if any(isinstance(module, Seat) for module in denoiser.modules()):
        raise ValueError(f"a variant is seated in this {type(denoiser).__name__} already: leave its context first")
    layers = {site: denoiser.get_submodule(site.path) for site in sites(denoiser)}
    training = [(module, module.training) for module in denoiser.modules()]
    trainable = [(weight, weight.requires_grad) for weight in denoiser.parameters()]
    rooms: dict[str, Room] = {}
    hooks: list[RemovableHandle] = []
    seats: dict[str, Seat] = {}
    try:
        for site, attention in layers.items():
            room = _room(denoiser, site.path, rooms, hooks)
            seats[site.path] = Seat(site, _mixer(factory, site, attention), room).train(attention.training)
            _put(denoiser, site.path, seats[site.path])
        hooks += _proof(denoiser, seats)
        yield seats
    finally:
        for hook in hooks:
            hook.remove()
        for site, attention in layers.items():
            _put(denoiser, site.path, attention)
        for module, flag in training:
            module.training = flag
        for weight, flag in trainable:
            weight.requires_grad_(flag)


def _mixer(factory: Factory, site: Site, attention: nn.Module) -> TokenMixer:
    """The factory's mixer on the attention's device and dtype; on the meta device nothing real is ever allocated."""
    weight = next(attention.parameters())
    if weight.is_meta:
        with torch.device("meta"):
            mixer = factory(site, attention)
    else:
        mixer = factory(site, attention)
    if not isinstance(mixer, TokenMixer):
        raise TypeError(f"the factory gave a {type(mixer).__name__} for {site.path}: it must give a TokenMixer")
    return mixer.to(device=weight.device, dtype=weight.dtype)


def _room(denoiser: nn.Module, path: str, rooms: dict[str, Room], hooks: list[RemovableHandle]) -> Room:
    """The room of the spatial module around a site, hooked when it is first asked for."""
    from diffusers import PixArtTransformer2DModel, Transformer2DModel

    parts = path.split(".")
    for depth in reversed(range(len(parts))):
        outer = ".".join(parts[:depth])
        spatial = denoiser.get_submodule(outer)
        if isinstance(spatial, (Transformer2DModel, PixArtTransformer2DModel)):
            if outer not in rooms:
                rooms[outer] = Room(spatial)
                hooks.append(spatial.register_forward_pre_hook(rooms[outer].note, with_kwargs=True))
            return rooms[outer]
    raise ValueError(f"no Transformer2DModel or PixArtTransformer2DModel is around {path}: its grid cannot be known")


def _put(denoiser: nn.Module, path: str, module: nn.Module) -> None:
    """Set the module at a path; the order of its siblings, and so of the state dict, stays."""
    outer, _, name = path.rpartition(".")
    setattr(denoiser.get_submodule(outer), name, module)


def _proof(denoiser: nn.Module, seats: dict[str, Seat]) -> list[RemovableHandle]:
    """Hooks around the denoiser: a forward that leaves out a seat raises RuntimeError."""

    def forget(module: nn.Module, args: Any) -> None:
        for seat in seats.values():
            seat.grid = None

    def prove(module: nn.Module, args: Any, output: Any) -> None:
        missed = [path for path, seat in seats.items() if seat.grid is None]
        if missed:
            raise RuntimeError(
                f"{len(missed)} of {len(seats)} seats were not called, the first is {missed[0]}: "
                "the numbers would be those of a mixture"
            )

    return [denoiser.register_forward_pre_hook(forget), denoiser.register_forward_hook(prove)]
