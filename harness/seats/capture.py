"""What goes in and out of the sites while a denoiser runs, without a copy.

Shapes: B batch, N tokens, C channels.
"""

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar, cast

from torch import Tensor, nn

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")


def twin(denoiser: nn.Module) -> nn.Module:
    """The same modules once more over the same tensors: a student is seated in it, and the teacher stays whole."""
    tensors = [*denoiser.parameters(), *denoiser.buffers()]
    return copy.deepcopy(denoiser, {id(tensor): tensor for tensor in tensors})


def attention(denoiser: nn.Module, paths: Iterable[str]) -> AbstractContextManager[dict[str, tuple[Tensor, Tensor]]]:
    """While open, each call leaves (tokens_BNC, mixed_BNC) of every site, before the residual is added."""
    return _kept(
        {path: denoiser.get_submodule(path) for path in paths},
        lambda args, kwargs, mixed_BNC: (_tokens(args, kwargs), mixed_BNC),
    )


def outputs(denoiser: nn.Module, paths: Iterable[str]) -> AbstractContextManager[dict[str, Tensor]]:
    """While open, each call leaves mixed_BNC of every site."""
    return _kept({path: denoiser.get_submodule(path) for path in paths}, lambda args, kwargs, mixed_BNC: mixed_BNC)


def residuals(denoiser: nn.Module, paths: Iterable[str]) -> AbstractContextManager[dict[str, Tensor]]:
    """While open, each call leaves the hidden states behind every site: what the next layer of its block reads."""
    readers = {path: _reader(denoiser, path) for path in paths}
    return _kept(readers, lambda args, kwargs, output: _tokens(args, kwargs))


def inputs(layers: Iterable[nn.Module]) -> AbstractContextManager[dict[nn.Module, Tensor]]:
    """While open, each call of a layer leaves what it read."""
    return _kept({layer: layer for layer in layers}, lambda args, kwargs, output: _tokens(args, kwargs))


@contextmanager
def _kept(modules: Mapping[Key, nn.Module], what: Callable[[Any, Any, Tensor], Kept]) -> Iterator[dict[Key, Kept]]:
    """While open, each call of a module leaves, under its key, what is asked of its arguments and output."""
    kept: dict[Key, Kept] = {}
    with ExitStack() as hooks:
        for key, module in modules.items():

            def keep(module: nn.Module, args: Any, kwargs: Any, output: Tensor, key: Key = key) -> None:
                kept[key] = what(args, kwargs, output)

            hooks.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
        yield kept


def _tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return cast(Tensor, args[0] if args else kwargs["hidden_states"])


def _reader(denoiser: nn.Module, path: str) -> nn.Module:
    """The layer that reads what a site has been added to: PixArt's cross-attention has no norm before it."""
    block: Any = denoiser.get_submodule(path.rpartition(".")[0])
    return cast(nn.Module, block.attn2 if block.norm_type == "ada_norm_single" else block.norm2)
