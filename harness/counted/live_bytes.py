"""What a call keeps alive at once: the bytes of live storages, followed operator by operator on the meta device.

Every operator's new storages are added when they appear and taken off when the last tensor that looks at them dies, so
views cost nothing, what the Python code holds on to counts for as long, and in-place operators reuse. What an operator
holds only while it runs is added at that operator (harness/counted/workspace.py) and told apart.

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

from harness.counted.meta_results import answered
from harness.counted.operators import FusedAttention
from harness.counted.site_calls import SiteCall, description, left_open, residents
from harness.counted.workspace import workspace


@dataclass(frozen=True)
class Peak:
    """The most bytes that lived at once, the operator at which they did, and how many of them were its workspace."""

    size: int
    operator: str
    workspace: int = 0


@dataclass(frozen=True)
class Lived:
    """What lived during one call outside of its sites, and the calls of these."""

    peak: Peak
    site_calls: tuple[SiteCall, ...]


@dataclass(frozen=True)
class Footprint:
    """Bytes at the peak: weights and buffers, tensors beside them, workspace of the operator; the most a mixer adds."""

    weights: int
    activations: int
    workspace: int
    operator: str
    mixer: int

    @property
    def peak(self) -> int:
        """All together."""
        return self.weights + self.activations + self.workspace


class Census(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live storages; `residents` were there before and stay."""

    def __init__(self, residents: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = set(residents)
        self.live = 0
        self.peak = Peak(0, "the arguments")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = answered(func, args, kwargs or {})
        if not func.is_view:
            self.admit(output)
            self.raise_to(str(func), workspace(func, args, output))
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

    def raise_to(self, operator: str, extra: int = 0) -> None:
        """Note what lives at this operator, which holds `extra` for itself."""
        if self.live + extra > self.peak.size:
            self.peak = Peak(self.live + extra, operator, extra)


def storages(module: nn.Module) -> dict[int, int]:
    """Bytes of the module's weights and buffers, by storage: shared ones appear once."""
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}


def lived_of(denoiser: nn.Module, arguments: Mapping[str, Any]) -> Lived:
    """Follow one call on the meta device with the sites left open; the arguments count, they live throughout."""
    census = Census(set(storages(denoiser)))
    census.admit(dict(arguments))
    census.raise_to("the arguments")
    with left_open(denoiser, live=lambda: census.live) as site_calls, torch.no_grad(), FusedAttention(), census:
        denoiser(**arguments)
    return Lived(census.peak, tuple(site_calls))


def rise_of(module: nn.Module, *args: Any) -> Peak:
    """What one call of a module needs above its weights and arguments, on the meta device."""
    known = set(storages(module)) | {
        leaf.untyped_storage()._cdata for leaf in tree_leaves(args) if isinstance(leaf, Tensor)
    }
    census = Census(known)
    with torch.no_grad(), FusedAttention(), census:
        module(*args)
    return census.peak


def footprint(denoiser: nn.Module, lived: Lived) -> Footprint:
    """The peak of the whole: the body's own, or that of a mixer above what lived when it was called."""
    at_home = residents(denoiser)
    rises: dict[object, Peak] = {}
    highest, mixer = lived.peak, 0
    for site_call in lived.site_calls:
        resident = at_home[site_call.path]
        key = (description(resident), site_call.shape, site_call.dtype, site_call.grid)
        if key not in rises:
            rises[key] = rise_of(resident, *site_call.arguments())
        rise = rises[key]
        mixer = max(mixer, rise.size)
        if site_call.live + rise.size > highest.size:
            highest = Peak(site_call.live + rise.size, f"{rise.operator} at {site_call.path}", rise.workspace)
    weights, tensors = sum(storages(denoiser).values()), highest.size - highest.workspace
    return Footprint(weights, tensors, highest.workspace, highest.operator, mixer)
