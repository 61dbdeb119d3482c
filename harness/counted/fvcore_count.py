"""A third count of a call: fvcore's, of a trace taken on the meta device, in this project's convention.

fvcore counts one per multiply-add, prices norms and interpolations, and has no handler for attention, which it takes
for free. So its result is doubled, the light operators are left out, and handlers are given for what it lacks.

torch's tracer records `_convolution` as one operator, but looks inside `convolution`: on the meta device that is a
Python function which fails under the tracer, because the sizes that it reads are tensors there. So calls of
`convolution` are replaced by calls of `_convolution`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from harness.counted.meta_results import answered

aten = torch.ops.aten


@dataclass(frozen=True)
class Analysis:
    """FLOPs, 2 per multiply-add, and the names of the operators that fvcore took for free without being told to."""

    flops: int
    unpriced: tuple[str, ...]


def analysis(module: nn.Module, *args: Any, **kwargs: Any) -> Analysis:
    """fvcore's count of one call on the meta device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore scripts its losses when it is imported
        from fvcore.nn import FlopCountAnalysis

    call = Call(module, args, kwargs)
    counter = FlopCountAnalysis(call, call.tensors).set_op_handle(**HANDLERS)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad(), RecordedConvolutions():  # type: ignore[no-untyped-call]
        multiplications = int(counter.total())
    return Analysis(2 * multiplications, tuple(sorted(counter.unsupported_ops())))


class Call(nn.Module):
    """A module with its arguments; the tensors among these are the inputs of the trace."""

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.leaves, self.shape = tree_flatten((args, kwargs))
        self.tensors = tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """All tensors of the result, so that the tracer drops nothing that led to them."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.shape)
        return [leaf for leaf in tree_flatten(self.module(*args, **kwargs))[0] if isinstance(leaf, Tensor)]


class RecordedConvolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces calls of `convolution` by calls of `_convolution`, which the tracer records."""

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is aten.convolution.default and torch._C._get_tracing_state() is not None:
            with tracer_admitted(), self:
                return aten._convolution.default(*args, False, False, True, True)
        if func is aten._convolution.default:
            return aten.convolution.default(*args[:9])
        return answered(func, args, kwargs or {})


def tracer_admitted() -> Any:
    """A context in which the tracer also sees operators that a dispatch mode calls, which it does not by default."""
    included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    tracer: Any = torch._C._parse_dispatch_key("Tracer")
    return torch._C._ForceDispatchKeyGuard(included.add(tracer), excluded.remove(tracer))


# Handlers: multiply-adds of one operator, from the sizes in the trace.


def _sizes(value: Any) -> list[int]:
    return cast(list[int], value.type().sizes())


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = (_sizes(given) for given in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _matmul(inputs: list[Any], outputs: list[Any]) -> int:
    """fvcore's own takes the batch of the first factor for that of both."""
    return prod(_sizes(outputs[0])) * _sizes(inputs[0])[-1]


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """fvcore's own counts outer products, in which nothing is added, as well."""
    terms, _, result = inputs[0].toIValue().replace(" ", "").partition("->")
    shapes = [_sizes(given) for given in inputs[1].node().inputs()]
    sides = {
        letter: side
        for term, shape in zip(terms.split(","), shapes, strict=True)
        for letter, side in zip(term, shape, strict=True)
    }
    return prod(sides.values()) if len(shapes) > 1 and set(sides) > set(result) else 0


LIGHT = """
    layer_norm group_norm batch_norm instance_norm adaptive_avg_pool2d grid_sampler upsample_nearest2d
    upsample_bilinear2d
"""
HANDLERS: Mapping[str, Any] = {
    **{f"aten::{name}": lambda inputs, outputs: 0 for name in LIGHT.split()},
    **{f"aten::{name}": _matmul for name in ("matmul", "mv", "dot")},
    "aten::scaled_dot_product_attention": _attention,
    "aten::baddbmm": lambda inputs, outputs: _matmul(inputs[1:], outputs),
    "aten::einsum": _einsum,
}
"""What fvcore lacks or sees otherwise."""
