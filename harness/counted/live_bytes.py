"""Peak bytes of a call: live storages, followed operator by operator on the meta device.

A storage counts from the operator that makes it until its last tensor is gone, so views and in-place operators cost
nothing. What an operator needs only while it runs is added (harness/counted/workspace.py).

The body of a denoiser is followed once for a model and a size, with nothing done at its sites; each mixer is followed
alone, on tokens of the same shape. The peak is the body's own, or what lived when some mixer was called plus what that
mixer needs, whose output is taken to be dense.
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
from harness.counted.site_calls import SiteCall, description, left_open, site_modules
from harness.counted.workspace import workspace


@dataclass(frozen=True)
class Peak:
    """The most bytes that lived at once, the operator at which they did, and how many of them were its workspace."""

    size: int
    operator: str
    workspace: int = 0


@dataclass(frozen=True)
class BodyMemory:
    """The peak of one call with nothing done at its sites, and the calls of the sites with what lived at each."""

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
        return self.weights + self.activations + self.workspace


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live storages, but not of `known` ones, which were there before and stay."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = set(known)
        self.live = 0
        self.peak = Peak(0, "the arguments")

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = answered(func, args, kwargs or {})
        if not func.is_view:
            self.add(output)
            self.note_peak(str(func), workspace(func, args, output))
        return output

    def add(self, tree: Any) -> None:
        """Add the storages of the tensors in `tree` that are not counted yet."""
        for leaf in (tree,) if isinstance(tree, Tensor) else tree_leaves(tree):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                identity = storage._cdata
                if identity not in self.counted:
                    self.counted.add(identity)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._remove, identity, storage.nbytes())

    def _remove(self, identity: int, size: int) -> None:
        self.counted.discard(identity)
        self.live -= size

    def note_peak(self, operator: str, extra: int = 0) -> None:
        """Note what lives at this operator, which holds `extra` for itself."""
        if self.live + extra > self.peak.size:
            self.peak = Peak(self.live + extra, operator, extra)


def storages(module: nn.Module) -> dict[int, int]:
    """Bytes of the module's weights and buffers, by storage: shared ones appear once."""
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}


def body_memory(denoiser: nn.Module, arguments: Mapping[str, Any]) -> BodyMemory:
    """Follow one call on the meta device with the sites left open; the arguments count, they live throughout."""
    live_bytes = LiveBytes(set(storages(denoiser)))
    live_bytes.add(dict(arguments))
    live_bytes.note_peak("the arguments")
    with left_open(denoiser, live=lambda: live_bytes.live) as site_calls, torch.no_grad(), FusedAttention(), live_bytes:
        denoiser(**arguments)
    return BodyMemory(live_bytes.peak, tuple(site_calls))


def rise_of(module: nn.Module, *args: Any) -> Peak:
    """What one call of a module needs above its weights and arguments, on the meta device."""
    given = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
    live_bytes = LiveBytes({*storages(module), *(leaf.untyped_storage()._cdata for leaf in given)})
    with torch.no_grad(), FusedAttention(), live_bytes:
        module(*args)
    return live_bytes.peak


def footprint(denoiser: nn.Module, lived: BodyMemory) -> Footprint:
    """The peak of the whole: the body's own, or that of a mixer above what lived when it was called."""
    at_sites = site_modules(denoiser)
    peaks: dict[object, Peak] = {}
    highest, mixer = lived.peak, 0
    for site_call in lived.site_calls:
        module = at_sites[site_call.path]
        key = (description(module), site_call.shape, site_call.dtype, site_call.grid)
        if key not in peaks:
            peaks[key] = rise_of(module, *site_call.arguments())
        rise = peaks[key]
        mixer = max(mixer, rise.size)
        if site_call.live + rise.size > highest.size:
            highest = Peak(site_call.live + rise.size, f"{rise.operator} at {site_call.path}", rise.workspace)
    weights, tensors = sum(storages(denoiser).values()), highest.size - highest.workspace
    return Footprint(weights, tensors, highest.workspace, highest.operator, mixer)
