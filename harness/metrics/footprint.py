"""What a call keeps alive at once: the bytes of live storages, followed operator by operator on the meta device.

Every operator's new storages are added when they appear and taken off when the last tensor that looks at them dies, so
views cost nothing, what the Python code holds on to counts for as long, and in-place operators reuse. Workspace
inside an operator (im2col, reordered weights, the unfused scores of attention) is not counted.

The body is followed once for a model and a size, each mixer alone on tokens like those that it would meet; above what
lived when it was called, that gives the peak of the whole. A mixer's output is taken to be dense.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.metrics.operators import FusedAttention
from harness.metrics.visits import Visit, left_open, residents


@dataclass(frozen=True)
class Peak:
    """The most bytes that lived at once, and the operator at which they did."""

    size: int
    operator: str


@dataclass(frozen=True)
class Body:
    """All of one call but what happens inside its sites, and the visits to these."""

    peak: Peak
    visits: tuple[Visit, ...]


@dataclass(frozen=True)
class Footprint:
    """Bytes: weights and buffers, the most that lived beside them and at which operator, the most that a mixer adds."""

    weights: int
    activations: int
    operator: str
    mixer: int

    @property
    def peak(self) -> int:
        """Both together."""
        return self.weights + self.activations


class Census(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live storages; `residents` were there before and stay."""

    def __init__(self, residents: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = set(residents)
        self.live = 0
        self.peak = 0
        self.operator = "the arguments"

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.admit(output)
            self.raise_to(self.live, str(func))
        return output

    def admit(self, tree: Any) -> None:
        """Add the storages of the tensors in `tree` that are not counted yet."""
        for leaf in (tree,) if isinstance(tree, Tensor) else tree_leaves(tree):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                identity = storage._cdata
                if identity not in self.counted:
                    self.counted.add(identity)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._bury, identity, storage.nbytes())

    def _bury(self, identity: int, size: int) -> None:
        self.counted.discard(identity)
        self.live -= size

    def raise_to(self, live: int, operator: str) -> None:
        """So much lived at this operator."""
        if live > self.peak:
            self.peak, self.operator = live, operator


def storages(module: nn.Module) -> dict[int, int]:
    """Bytes of the module's weights and buffers, by storage: shared ones appear once."""
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}


def body_of(denoiser: nn.Module, arguments: Mapping[str, Any]) -> Body:
    """Follow one call on the meta device with the sites left open; the arguments count, they live throughout."""
    census = Census(set(storages(denoiser)))
    census.admit(dict(arguments))
    census.raise_to(census.live, "the arguments")
    with left_open(denoiser, live=lambda: census.live) as visits, torch.no_grad(), FusedAttention(), census:
        denoiser(**arguments)
    return Body(Peak(census.peak, census.operator), tuple(visits))


def rise_of(module: nn.Module, *args: Any) -> Peak:
    """What one call of a module needs above its weights and arguments, on the meta device."""
    known = set(storages(module)) | {
        leaf.untyped_storage()._cdata for leaf in tree_leaves(args) if isinstance(leaf, Tensor)
    }
    census = Census(known)
    with torch.no_grad(), FusedAttention(), census:
        module(*args)
    return Peak(census.peak, census.operator)


def footprint(denoiser: nn.Module, body: Body) -> Footprint:
    """The peak of the whole: the body's own, or that of a mixer above what lived when it was called."""
    at_home = residents(denoiser)
    rises: dict[object, Peak] = {}
    highest, mixer = body.peak, 0
    for visit in body.visits:
        resident = at_home[visit.path]
        key = (description(resident), visit.shape, visit.dtype, visit.grid)
        if key not in rises:
            rises[key] = rise_of(resident, *visit.arguments())
        rise = rises[key]
        mixer = max(mixer, rise.size)
        if visit.live + rise.size > highest.size:
            highest = Peak(visit.live + rise.size, f"{rise.operator} at {visit.path}")
    return Footprint(sum(storages(denoiser).values()), highest.size, highest.operator, mixer)


def description(mixer: nn.Module) -> object:
    """All that tells one mixer from another of the same work: types, settings and shapes of it and of its parts."""
    parts = []
    for name, part in mixer.named_modules():
        settings = sorted((key, repr(value)) for key, value in vars(part).items() if not key.startswith("_"))
        shapes = [(key, tuple(weight.shape)) for key, weight in part.named_parameters(recurse=False)]
        parts.append((name, type(part), tuple(settings), tuple(shapes)))
    return tuple(parts)
