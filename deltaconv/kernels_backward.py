"""The Triton kernels of the ∆ConvBlock's pyramid, backward; layout, order of sums and words as in `kernels_forward`.

Each is the adjoint of one forward kernel, written as a gather: a program owns its outputs and adds up what reaches
them, so that nothing is added concurrently. The gradient of a depthwise map is `depthwise` with the kernel turned.
Needs Triton: import this file inside the function that uses it.
"""

# The bodies are in the language of Triton, which has no types.
# mypy: ignore-errors

import triton
import triton.language as tl

from deltaconv.kernels_forward import INTERPRETED, load_row, place, store_row

ACROSS = 32 if INTERPRETED else 4
"""Columns that `weigh` takes at a time: as many accumulators a thread; the interpreter pays by the operation."""


@triton.jit
def reach(position, fine, length, small_length):
    """Share of a small map's `position` in the bilinear resize's pixel `fine`, from exact integers."""
    source = tl.minimum(tl.maximum((2 * fine + 1) * small_length - length, 0), 2 * length * (small_length - 1))
    return tl.maximum(2 * length - tl.abs(source - 2 * length * position), 0).to(tl.float32) / (2 * length)


@triton.jit
def gate(
    grads, kept, out, height, width, small_height, small_width, channels, grads_stride, gain,
    GATE: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradient of a stage's convolution, (B, small_height, small_width, 2 channels), from that of its resized gate.

    `kept` is the convolution (a, b). TALL x WIDE pixels of the whole map hold a share of a small pixel; 1 x 1 where the
    stage has the whole size.
    """
    y, x, c, inside = place(small_width, channels, COLUMNS, CHANNELS)
    first_y = tl.maximum(2 * y - 1, 0) * height // (2 * small_height)
    first_x = tl.maximum(2 * x - 1, 0) * width // (2 * small_width)
    image = grads + tl.program_id(2).to(tl.int64) * height * width * grads_stride
    arrived = tl.zeros([COLUMNS, CHANNELS], tl.float32)
    if TALL * WIDE == 1:
        arrived += load_row(image, y, height, width * grads_stride, x * grads_stride + c, inside)
    else:
        for along in range(WIDE):
            column = first_x + along
            seen = inside & (column < width)
            summed = tl.zeros([COLUMNS, CHANNELS], tl.float32)
            for down in range(TALL):
                row = first_y + down
                grad = load_row(image, row, height, width * grads_stride, column * grads_stride + c, seen)
                summed += grad * reach(y, row, height, small_height)
            arrived += summed * reach(x, column, width, small_width)
    pixel = (tl.program_id(2).to(tl.int64) * small_height + y) * small_width + x
    a = tl.load(kept + pixel * 2 * channels + c, mask=inside, other=0).to(tl.float32)
    b = tl.load(kept + pixel * 2 * channels + channels + c, mask=inside, other=0).to(tl.float32)
    if GATE == "sigmoid":
        opening = tl.sigmoid(b)
        to_a, to_b = arrived * opening, arrived * a * opening * (1 - opening)
    else:
        to_a, to_b = arrived * b * gain, arrived * a * gain
    store_row(out, pixel, 2 * channels, c, to_a, inside, False)
    store_row(out, pixel, 2 * channels, channels + c, to_b, inside, False)


@triton.jit
def unpool(
    grads, out, height, width, small_height, small_width, channels,
    ADD: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradient of the adaptive average, written or added to (B, height, width, channels).

    A pixel lies in one window along an axis, or in two that overlap: those from floor(p n / L) on.
    """
    y, x, c, inside = place(width, channels, COLUMNS, CHANNELS)
    image = grads + tl.program_id(2).to(tl.int64) * small_height * small_width * channels
    total = tl.zeros([COLUMNS, CHANNELS], tl.float32)
    for down in tl.static_range(2):
        row = y * small_height // height + down
        top, bottom = row * height // small_height, tl.cdiv((row + 1) * height, small_height)
        for along in tl.static_range(2):
            column = x * small_width // width + along
            left, right = column * width // small_width, tl.cdiv((column + 1) * width, small_width)
            holds = tl.where(top <= y, inside & (left <= x) & (column < small_width), False)
            grad = load_row(image, row, small_height, small_width * channels, column * channels + c, holds)
            total += grad / ((bottom - top) * (right - left))
    pixel = (tl.program_id(2).to(tl.int64) * height + y) * width + x
    store_row(out, pixel, channels, c, total, inside, ADD)


@triton.jit
def weigh(
    grads, maps, out, height, width, channels, band,
    K: tl.constexpr, TAPS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradient of one row of the kernel from one band of rows of one image: out (images x bands, channels, K, K), fp32.

    Programs are (kernel row, channel block, image and band). TAPS is the power of two that holds K.
    """
    bands = tl.cdiv(height, band)
    batch, first = (tl.program_id(2) // bands).to(tl.int64), (tl.program_id(2) % bands) * band
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, None, :]
    tap = tl.arange(0, TAPS)[None, :, None]
    across = tl.arange(0, COLUMNS)[:, None, None]
    stride = width * channels
    image = batch * height * stride
    sums = tl.zeros([COLUMNS, TAPS, CHANNELS], tl.float32)
    for step in range(band):
        y = first + step
        source_y = y + tl.program_id(0) - K // 2
        for start in range(0, width, COLUMNS):
            x = start + across
            source = x + tap - K // 2
            met = (x < width) & (c < channels)
            grad = load_row(grads + image, y, height, stride, x * channels + c, met)
            seen = met & (source >= 0) & (source < width) & (tap < K)
            sums += grad * load_row(maps + image, source_y, height, stride, source * channels + c, seen)
    target = out + ((tl.program_id(2).to(tl.int64) * channels + c) * K + tl.program_id(0)) * K + tap
    tl.store(target, tl.sum(sums, axis=0)[None, :, :], mask=(tap < K) & (c < channels))
