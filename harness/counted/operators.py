"""The price of an operator: 2 per multiply-add of matrix products and convolutions, nothing for what is light.

The formulas are our own, so that torch's FlopCounterMode stays an independent second count. An operator that is neither
in PRICES nor in LIGHT is an error: public counters take what they do not know for free, self-attention included.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


class Unpriced(RuntimeError):
    """An operator that nobody priced: the sentence names it."""


def product_flops(a: Tensor, b: Tensor) -> int:
    """(..., M, K) times (..., K, N), batched or not; also matrix times vector and vector times vector."""
    columns = b.shape[-1] if b.dim() >= 2 else 1
    return 2 * a.numel() * columns


def convolution_flops(x: Tensor, weight: Tensor, output: Tensor, transposed: bool) -> int:
    """Each output (each input where transposed) meets one filter of (channels of its group, *kernel) weights."""
    return 2 * (x if transposed else output).numel() * prod(weight.shape[1:])


def attention_flops(query_BHND: Tensor, key_BHMD: Tensor, value_BHME: Tensor) -> int:
    """Two products, query with key and scores with value; the softmax between them is not counted."""
    pairs = prod(query_BHND.shape[:-1]) * key_BHMD.shape[-2]
    return 2 * pairs * (query_BHND.shape[-1] + value_BHME.shape[-1])


Price = Callable[[tuple[Any, ...], Any], int]
PRICES: Mapping[OpOverloadPacket, Price] = {
    **{op: lambda args, out: product_flops(args[0], args[1]) for op in (aten.mm, aten.bmm, aten.mv, aten.dot)},
    **{op: lambda args, out: product_flops(args[1], args[2]) for op in (aten.addmm, aten.baddbmm, aten.addmv)},
    aten.convolution: lambda args, out: convolution_flops(args[0], args[1], out, transposed=args[6]),
    **{
        op: lambda args, out: attention_flops(*args[:3])
        for op in (
            aten._scaled_dot_product_flash_attention_for_cpu,
            aten._scaled_dot_product_flash_attention,
            aten._scaled_dot_product_efficient_attention,
            aten._scaled_dot_product_cudnn_attention,
        )
    },
}

# Sums, comparisons, copies, norms and interpolations, in place or not: neither a matrix product nor a convolution.
LIGHT_NAMES = """
    empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones
    full full_like new_full scalar_tensor arange linspace eye tril triu tril_indices triu_indices rand rand_like
    randn randn_like clone copy contiguous _to_copy lift_fresh detach resolve_conj fill zero view_copy _unsafe_view
    reshape _reshape_copy alias cat stack repeat repeat_interleave roll flip index index_put index_select index_add
    index_copy gather scatter scatter_add masked_fill masked_select where select_scatter slice_scatter nonzero
    embedding one_hot constant_pad_nd reflection_pad2d replication_pad2d pad im2col col2im pixel_shuffle
    pixel_unshuffle sum mean var var_mean std prod amax amin aminmax max min argmax argmin any all norm
    linalg_vector_norm logsumexp cumsum cumprod cummax sort topk unique_consecutive bincount softmax _softmax
    _safe_softmax _log_softmax native_layer_norm native_group_norm native_batch_norm
    _native_batch_norm_legit_no_training _fused_rms_norm avg_pool2d max_pool2d_with_indices _adaptive_avg_pool2d
    adaptive_avg_pool2d upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa native_dropout gelu silu relu leaky_relu elu glu hardtanh
    _local_scalar_dense is_nonzero equal isnan isfinite floor_divide true_divide fmod
"""
LIGHT = frozenset(LIGHT_NAMES.split())


def is_light(op: OpOverload) -> bool:
    """Views, element by element, or on the list of the light ones."""
    if op.namespace not in ("aten", "prims"):
        return False
    return op.is_view or torch.Tag.pointwise in op.tags or op.overloadpacket.__name__.rstrip("_") in LIGHT


def price(op: OpOverload, args: tuple[Any, ...], output: Any) -> int:
    """FLOPs of one call of `op`; raise Unpriced for an operator on neither list."""
    formula = PRICES.get(op.overloadpacket)
    if formula is not None:
        return formula(args, output)
    if is_light(op):
        return 0
    raise Unpriced(
        f"operator {op} has no price: add a formula to PRICES in harness/counted/operators.py, "
        "or add its name to LIGHT there if it holds no matrix product and no convolution"
    )


def known(op: OpOverload) -> bool:
    """Whether `price` has an answer."""
    return op.overloadpacket in PRICES or is_light(op)


class FusedAttention(TorchFunctionMode):
    """On the meta device, scaled_dot_product_attention as one operator without the N x M scores.

    torch takes attention apart there, which no fused kernel does on a device: the scores would be most of the memory at
    high resolution. A mask of booleans becomes one of numbers first, as in torch.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _attention(func, *args, **kwargs)
        return func(*args, **kwargs)


def _attention(
    unfused: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    alike = query.shape[:2] == key.shape[:2] and query.shape[-1] == value.shape[-1]
    if not (query.is_meta and query.dim() == 4 and alike):
        return unfused(query, key, value, attn_mask, dropout_p, is_causal, **options)
    scale = options.get("scale")
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.to(query.dtype)
    fused = aten._scaled_dot_product_flash_attention_for_cpu
    output: Tensor = fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return output
