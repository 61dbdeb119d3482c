"""Surgery: put a mixer in the place of every self-attention layer of a denoiser, and everything back afterwards.

A site is a diffusers `Attention` named `attn1`. It sees tokens only, never the height and width that they came from,
and a square root is wrong for anything but a square. So a forward pre-hook on the enclosing spatial module
(`Transformer2DModel` in a UNet, `PixArtTransformer2DModel`) notes the grid, and the seat hands it to its mixer.
The hook sits outside the blocks that gradient checkpointing runs again, so the grid still holds there.

Shapes: B batch, N = height * width tokens in row-major order, C channels.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.seats.mixer import Grid, Site, TokenMixer

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
        self.seating: Seating | None = None

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
    ordered = sorted(found, key=lambda site: order.get(site.path.partition(".")[0], 0))
    return [replace(site, among=tuple(other.path for other in ordered)) for site in ordered]


class Seating:
    """A variant in the place of every self-attention layer of a denoiser, and the way back.

    New mixers get the device, dtype and training mode of the attention that they replace. Every forward of the denoiser
    is checked to have passed through every seat.
    """

    def __init__(self, denoiser: nn.Module, factory: Factory, name: str = "") -> None:
        """Seat the factory's mixers; an exception leaves the denoiser as it was. `name`: whose mixers these are."""
        if seating_of(denoiser) is not None:
            raise ValueError(f"a variant is seated in this {type(denoiser).__name__} already: leave its context first")
        self.denoiser, self.factory, self.name = denoiser, factory, name
        weight = next(denoiser.parameters())
        self.origin = (weight.device, weight.dtype)
        self.layers = {site: denoiser.get_submodule(site.path) for site in sites(denoiser)}
        self.seats: dict[str, Seat] = {}
        self._training = [(module, module.training) for module in denoiser.modules()]
        self._trainable = [(weight, weight.requires_grad) for weight in denoiser.parameters()]
        self._hooks: list[RemovableHandle] = []
        with ExitStack() as way_back:
            way_back.callback(self.undo)
            self._seat_all()
            way_back.pop_all()

    def _seat_all(self) -> None:
        rooms: dict[str, Room] = {}
        for site, attention in self.layers.items():
            room = _room(self.denoiser, site.path, rooms, self._hooks)
            seat = Seat(site, _mixer(self.factory, site, attention), room).train(attention.training)
            seat.seating = self
            self.seats[site.path] = seat
            _put(self.denoiser, site.path, seat)
        self._hooks += _proof(self.denoiser, self.seats)

    def undo(self) -> None:
        """Modules, hooks and flags are back bit for bit; the seats go free."""
        for hook in self._hooks:
            hook.remove()
        for site, attention in self.layers.items():
            _put(self.denoiser, site.path, attention)
        for module, flag in self._training:
            module.training = flag
        for weight, flag in self._trainable:
            weight.requires_grad_(flag)
        for seat in self.seats.values():
            seat.seating = None


def seating_of(denoiser: nn.Module) -> Seating | None:
    """What is seated in a denoiser, if anything is."""
    return next((module.seating for module in denoiser.modules() if isinstance(module, Seat)), None)


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
