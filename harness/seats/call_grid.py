"""What travels with a call of a seated denoiser: the grid of the tokens, and a list of the seats that were called.

A site sees tokens, and not the height and width of the map that they were flattened from. Hooks on the module that
flattens them (`Transformer2DModel` in a UNet, `PixArtTransformer2DModel`) add the grid to its `cross_attention_kwargs`,
which reach every attention inside. Nothing is kept on a module, so that calls in other threads or of other sizes change
nothing, and gradient checkpointing, which repeats the call of a block, has the same grid again.
"""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

GRID, CALLED = "token_grid", "called_seats"
"""The names among the `cross_attention_kwargs`: the grid, and the list that fills with the seats' paths."""
Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments of a forward


def spatial_around(denoiser: nn.Module, path: str) -> str:
    """Path of the innermost module around a site that flattens a map into tokens."""
    from diffusers import PixArtTransformer2DModel, Transformer2DModel

    parts = path.split(".")
    for depth in reversed(range(len(parts))):
        outer = ".".join(parts[:depth])
        if isinstance(denoiser.get_submodule(outer), (Transformer2DModel, PixArtTransformer2DModel)):
            return outer
    raise ValueError(f"no Transformer2DModel or PixArtTransformer2DModel is around {path}: its grid cannot be known")


def grid_hooks(spatial: Any) -> list[RemovableHandle]:
    """Hooks by which the seats inside a spatial module learn their grid, and its other attention does not."""
    from diffusers.models.attention_processor import Attention

    add = partial(_add_grid, int(spatial.config.get("patch_size") or 1))
    others = [module for module in spatial.modules() if isinstance(module, Attention)]
    return [
        spatial.register_forward_pre_hook(add, with_kwargs=True),
        *(module.register_forward_pre_hook(_drop_ours, with_kwargs=True) for module in others),
    ]


def _add_grid(patch_size: int, spatial: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Forward pre-hook: hand on the map's height and width, counted in patches."""
    map_BCHW = args[0] if args else kwargs["hidden_states"]
    height, width = map_BCHW.shape[-2:]
    return args, _handing_on(kwargs, GRID, (height // patch_size, width // patch_size))


def begin_list(denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Forward pre-hook: hand on an empty list for the paths of the seats that are called."""
    return args, _handing_on(kwargs, CALLED, [])


def _handing_on(kwargs: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    given = kwargs.get("cross_attention_kwargs") or {}
    return {**kwargs, "cross_attention_kwargs": {**given, name: value}}


def _drop_ours(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Forward pre-hook: diffusers' own attention is called as if nothing were seated."""
    return args, {name: value for name, value in kwargs.items() if name not in (GRID, CALLED)}
