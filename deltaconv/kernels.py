"""The ∆ConvBlock's pyramid as one operator of fused Triton kernels, and the rule that says when it is used.

`deltaconv::pyramid` goes from the reduced tokens to the rows that the closing map reads: each stage pools, convolves,
gates, resizes, and writes its own columns of one buffer (released form) or adds to it (paper form).
The kernels themselves are in `kernels_forward` and `kernels_backward`, what launches them in `kernels_launch`.
Shapes: B batch, N = H W tokens, m reduced width, g = m / 2, j width of the buffer: n g for n stages, g if added.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import custom_op

from deltaconv.gate import Gain
from harness.seats.mixer import BadInput, Grid, Unavailable

Backend = Literal["auto", "torch", "triton"]
Tensors = list[Tensor]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST_KERNEL = 25  # the rows of a kernel are unrolled: beyond this a program outgrows the instruction cache
CAPABILITY = (8, 0)  # arithmetic in bfloat16 begins here
TRITON = (3, 4)  # the kernels hand tuples around, which Triton has from 3.3 on, with repairs in 3.4


def check_backend(backend: str) -> None:
    """BadInput in one sentence for a backend that does not exist."""
    if backend not in get_args(Backend):
        raise BadInput(f"backend {backend!r} is unknown: choose auto, torch or triton")


def fused(backend: Backend, reduced_BNm: Tensor, kernel_size: int) -> bool:
    """Whether the kernels take this: on CUDA where they can, unless told; never on the meta device, which only prices.

    Raises Unavailable where they were asked for and cannot run.
    """
    if backend == "torch" or reduced_BNm.is_meta or (backend == "auto" and not reduced_BNm.is_cuda):
        return False
    reason = obstacle(reduced_BNm.dtype, kernel_size) or misplaced(reduced_BNm.device.type, reduced_BNm.device.index)
    if reason and backend == "triton":
        raise Unavailable(f"the ∆ConvBlock cannot run its Triton kernels: {reason}; or set backend to auto or torch")
    return not reason


def obstacle(dtype: torch.dtype, kernel_size: int) -> str:
    """What keeps such numbers from the kernels, with the remedy; empty if nothing does."""
    if dtype not in DTYPES:
        return f"they compute in fp32, fp16 and bf16, not in {str(dtype).removeprefix('torch.')}: choose one of these"
    if kernel_size > LARGEST_KERNEL:
        return f"kernel_size {kernel_size} is above {LARGEST_KERNEL}, their largest: choose a smaller one"
    return ""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def misplaced(kind: str, index: int | None) -> str:
    """What keeps the kernels from a device, with the remedy; empty if nothing does."""
    if reason := outdated():
        return f"{reason}: pip install 'triton>={TRITON[0]}.{TRITON[1]}'"
    if kind == "cpu":
        from deltaconv.kernels_forward import INTERPRETED

        return "" if INTERPRETED else "they need a CUDA device, not cpu: set device=cuda"
    if kind != "cuda":
        return f"they need a CUDA device, not {kind}: set device=cuda"
    capability = torch.cuda.get_device_capability(index)
    if capability < CAPABILITY:
        return "they need compute capability {}.{}, this device has {}.{}: use another".format(*CAPABILITY, *capability)
    return ""


def outdated() -> str:
    """What is wrong with the Triton that is installed; empty if nothing is."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    installed = str(import_module("triton").__version__)
    numbers = tuple(int(number) for number in installed.split(".")[:2])
    return "" if numbers >= TRITON else f"Triton {installed} is too old"


def rule(backend: Backend, dtype: torch.dtype, kernel_size: int) -> str:
    """What the record says of the backend, on whatever device the case runs."""
    if backend == "torch":
        return "torch operators"
    if backend == "triton":
        return "fused Triton kernels"
    if reason := obstacle(dtype, kernel_size) or outdated():
        return f"torch operators ({reason})"
    least = "{}.{}".format(*CAPABILITY)
    return f"fused Triton kernels on CUDA from compute capability {least} on, torch operators elsewhere"


def pyramid(
    reduced_BNm: Tensor, weights: Tensors, biases: Tensors, grid: Grid, sizes: list[Grid], gain: Gain, joined: bool
) -> Tensor:
    """(B, N, j): the gated stages side by side if `joined`, or their sum; differentiable once.

    Depthwise weights (m, 1, K, K), one set for each size.
    """
    flat = [side for size in (grid, *sizes) for side in size]
    learning = torch.is_grad_enabled() and any(each.requires_grad for each in (reduced_BNm, *weights, *biases))
    reduced_BNm = reduced_BNm.contiguous()
    buffer_BNj: Tensor
    if torch.compiler.is_compiling() or type(reduced_BNm) is not Tensor:
        buffer_BNj, _ = operator(reduced_BNm, weights, biases, flat, gain, joined, learning)
    elif learning:
        buffer_BNj = Pyramid.apply((flat, gain, joined), reduced_BNm, *weights, *biases)
    else:
        buffer_BNj, _ = computed(reduced_BNm, weights, biases, flat, gain, joined, keep=False)
    return buffer_BNj


SETTINGS = "SymInt[] sizes, float? gain, bool joined"


def computed(
    reduced_BNm: Tensor, weights: Tensors, biases: Tensors, sizes: list[int], gain: Gain, joined: bool, keep: bool
) -> tuple[Tensor, Tensors]:
    """The buffer and, where kept for backward, what each convolution gave; `sizes` is flat, the whole grid first."""
    from deltaconv.kernels_launch import forward

    buffer_BNj, kept = empty_outputs(reduced_BNm, weights, biases, sizes, gain, joined, keep)
    with torch.cuda.device_of(reduced_BNm):  # type: ignore[no-untyped-call]
        forward(reduced_BNm, weights, biases, sizes, gain, joined, buffer_BNj, kept)
    return buffer_BNj, kept


operator = custom_op(
    "deltaconv::pyramid",
    computed,
    mutates_args=(),
    schema=f"(Tensor reduced, Tensor[] weights, Tensor[] biases, {SETTINGS}, bool keep) -> (Tensor, Tensor[])",
)


@operator.register_fake
def empty_outputs(
    reduced_BNm: Tensor, weights: Tensors, biases: Tensors, sizes: list[int], gain: Gain, joined: bool, keep: bool
) -> tuple[Tensor, Tensors]:
    """What the operator returns, not yet filled."""
    batch, tokens, width = reduced_BNm.shape
    buffer_BNj = reduced_BNm.new_empty(batch, tokens, width // 2 * (len(weights) if joined else 1))
    pairs = zip(sizes[2::2], sizes[3::2], strict=True)
    return buffer_BNj, [reduced_BNm.new_empty(batch, tall * wide, width) for tall, wide in pairs] if keep else []


def differentiated(
    grad_BNj: Tensor, reduced_BNm: Tensor, weights: Tensors, kept: Tensors, sizes: list[int], gain: Gain, joined: bool
) -> tuple[Tensor, Tensors, Tensors]:
    """Gradients of the reduced tokens, the depthwise weights and the biases."""
    from deltaconv.kernels_launch import backward

    with torch.cuda.device_of(grad_BNj):  # type: ignore[no-untyped-call]
        return backward(grad_BNj.contiguous(), reduced_BNm, weights, kept, sizes, gain, joined)


backward_operator = custom_op(
    "deltaconv::pyramid_backward",
    differentiated,
    mutates_args=(),
    schema=f"(Tensor grad, Tensor reduced, Tensor[] weights, Tensor[] kept, {SETTINGS}) "
    "-> (Tensor, Tensor[], Tensor[])",
)


@backward_operator.register_fake
def _empty_gradients(
    grad_BNj: Tensor, reduced_BNm: Tensor, weights: Tensors, kept: Tensors, sizes: list[int], gain: Gain, joined: bool
) -> tuple[Tensor, Tensors, Tensors]:
    return (
        torch.empty_like(reduced_BNm),
        [weight.new_empty(weight.shape) for weight in weights],
        [weight.new_empty(len(weight)) for weight in weights],
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensors]) -> None:
    reduced_BNm, weights, _, *settings, _ = inputs
    ctx.settings, ctx.stages = settings, len(weights)
    ctx.save_for_backward(reduced_BNm, *weights, *output[1])


def _differentiate(ctx: Any, grad_BNj: Tensor, _: Tensors) -> tuple[Any, ...]:
    reduced_BNm, *rest = ctx.saved_tensors
    weights, kept = rest[: ctx.stages], rest[ctx.stages :]
    return (*torch.ops.deltaconv.pyramid_backward(grad_BNj, reduced_BNm, weights, kept, *ctx.settings), *[None] * 4)


operator.register_autograd(_differentiate, setup_context=_save)


class Pyramid(torch.autograd.Function):
    """The same outside of torch.compile, where an operator costs the processor more than a small map costs the GPU."""

    @staticmethod
    def forward(ctx: Any, settings: tuple[list[int], Gain, bool], reduced_BNm: Tensor, *both: Tensor) -> Tensor:
        """`both`: the weights, then the biases."""
        half = len(both) // 2
        buffer_BNj, kept = computed(reduced_BNm, [*both[:half]], [*both[half:]], *settings, keep=True)
        ctx.settings, ctx.stages = settings, half
        ctx.save_for_backward(reduced_BNm, *both[:half], *kept)
        return buffer_BNj

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BNj: Tensor) -> tuple[Tensor | None, ...]:
        reduced_BNm, *rest = ctx.saved_tensors
        weights, kept = rest[: ctx.stages], rest[ctx.stages :]
        to_reduced, to_weights, to_biases = differentiated(grad_BNj, reduced_BNm, weights, kept, *ctx.settings)
        return None, to_reduced, *to_weights, *to_biases
