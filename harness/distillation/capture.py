"""What goes in and out of the sites while a denoiser runs, without a copy.

Shapes: B batch, N tokens, C channels.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


def twin(denoiser: nn.Module) -> nn.Module:
    """The same modules once more over the same tensors: a student is seated in it, and the teacher stays whole."""
    tensors = [*denoiser.parameters(), *denoiser.buffers()]
    return copy.deepcopy(denoiser, {id(tensor): tensor for tensor in tensors})


@contextmanager
def attention(denoiser: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """While open, each call leaves (tokens_BNC, mixed_BNC) of every site, before the residual is added."""
    kept: dict[str, tuple[Tensor, Tensor]] = {}
    with ExitStack() as hooks:
        for path in paths:

            def keep(module: nn.Module, args: Any, kwargs: Any, output: Tensor, path: str = path) -> None:
                kept[path] = (_tokens(args, kwargs), output)

            hooks.callback(denoiser.get_submodule(path).register_forward_hook(keep, with_kwargs=True).remove)
        yield kept


@contextmanager
def outputs(denoiser: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While open, each call leaves mixed_BNC of every site."""
    kept: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for path in paths:

            def keep(module: nn.Module, args: Any, output: Tensor, path: str = path) -> None:
                kept[path] = output

            hooks.callback(denoiser.get_submodule(path).register_forward_hook(keep).remove)
        yield kept


@contextmanager
def residuals(denoiser: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While open, each call leaves the hidden states behind every site: what the next layer of its block reads."""
    kept: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for path in paths:

            def keep(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                kept[path] = _tokens(args, kwargs)

            hooks.callback(_reader(denoiser, path).register_forward_pre_hook(keep, with_kwargs=True).remove)
        yield kept


def _tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    found: Tensor = args[0] if args else kwargs["hidden_states"]
    return found


def _reader(denoiser: nn.Module, path: str) -> nn.Module:
    """The layer that reads what a site has been added to: PixArt's cross-attention has no norm before it."""
    block: Any = denoiser.get_submodule(path.rpartition(".")[0])
    reader: nn.Module = block.attn2 if block.norm_type == "ada_norm_single" else block.norm2
    return reader
