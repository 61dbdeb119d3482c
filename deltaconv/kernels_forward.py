"""The Triton kernels of the ∆ConvBlock's pyramid, forward: pool, convolve and gate, upsample.

Maps are tokens, (B, height, width, channels) in memory: the channels of a pixel lie side by side, and nothing is ever
permuted. Every sum is in fp32 and in a fixed order (no atomics), so that the same input gives the same bits.

The depthwise convolution takes most of the time. A program holds some rows of outputs and walks down one column of the
kernel at a time: one load of the map serves all those rows, and so does one load of a weight. Both halves of the
channels are its own, so the gate costs no second pass.
Needs Triton: import this file inside the function that uses it.
"""

# The bodies are in the language of Triton, which has no types.
# mypy: ignore-errors
# ruff: noqa: RUF005 (the language of Triton adds tuples, it does not unpack them)

import triton
import triton.language as tl

TILE = {"ROWS": 8, "COLUMNS": 8, "CHANNELS": 32, "num_warps": 2}
"""Tile of the depthwise kernel: with more than 32 sums a thread for each half of the channels K = 13 spills out of the
registers. Of 26 tiles it was within 7 % of the fastest on an H200 at all shapes tried, so nothing is tuned at run time.
"""


@triton.jit
def place(columns, channels, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr):
    """Row of tiles, columns (X, 1), channels (1, C) and who is inside, of a program (tile, channel block, image)."""
    across = tl.cdiv(columns, COLUMNS)
    x = (tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS)[:, None]
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return tl.program_id(0) // across, x, c, (x < columns) & (c < channels)


@triton.jit
def load_row(image, row, height, stride, offset, inside):
    """One row of a map in fp32, zero outside."""
    inside = tl.where((row >= 0) & (row < height), inside, False)
    return tl.load(image + row.to(tl.int64) * stride + offset, mask=inside, other=0).to(tl.float32)


@triton.jit
def store_row(out, pixel, stride, c, value, inside, ADD: tl.constexpr):
    """Write, or add to what is there."""
    target = out + pixel * stride + c
    if ADD:
        value += tl.load(target, mask=inside, other=0).to(tl.float32)
    tl.store(target, value.to(out.dtype.element_ty), mask=inside)


INTERPRETED = not isinstance(place, triton.JITFunction)
"""Whether Triton was imported with TRITON_INTERPRET=1: kernels then run in numpy, on CPU tensors."""


@triton.jit
def sweep(
    sums, image, taps, first, column, height, stride, offset, inside, c, channels, taps_stride,
    K: tl.constexpr, FLIP: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Add one column of the kernel to ROWS rows of sums, walking down the map from row `first`.

    A row of the map is loaded once, and so is a weight: it stays until the last of the ROWS rows has passed it.
    """
    weights = ()
    for down in tl.static_range(K + ROWS - 1):
        y = first + down
        seen = tl.where((y >= 0) & (y < height), inside, False)
        row = tl.load(image + y.to(tl.int64) * stride + offset, mask=seen, other=0).to(tl.float32)
        if down < K:
            tap = K * K - 1 - (down * K + column) if FLIP else down * K + column
            weight = tl.load(taps + tap * taps_stride + c, mask=c < channels, other=0).to(tl.float32)
            weights = weights + (tl.broadcast_to(weight, row.shape),)
        added = ()
        for each in tl.static_range(ROWS):
            if down >= each and down - each < K:
                added = added + (tl.fma(row, weights[down - each], sums[each]),)
            else:
                added = added + (sums[each],)
        sums = added
    return sums


@triton.jit(do_not_specialize=["height", "width"])
def depthwise(
    maps, taps, bias, kept, out, height, width, channels, out_stride, gain,
    K: tl.constexpr, GATE: tl.constexpr, KEEP: tl.constexpr, ADD: tl.constexpr, FLIP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Depthwise K x K of maps (B, H, W, channels or, where gated, twice that) with taps (K K, same).

    GATE: "scaled" a b gain, "sigmoid" a sigmoid(b), "plain" the convolution alone, without bias. KEEP writes the
    convolution itself, which backward needs, to `kept`; FLIP turns the kernel by half a turn; pixels of `out` lie
    `out_stride` apart.
    """
    band, x, c, inside = place(width, channels, COLUMNS, CHANNELS)
    width_in = channels if GATE == "plain" else 2 * channels
    first_pixel = tl.program_id(2).to(tl.int64) * height * width
    image = maps + first_pixel * width_in
    top, stride = band * ROWS - K // 2, width * width_in
    zero = tl.zeros([COLUMNS, CHANNELS], tl.float32)
    a = ()
    for _ in tl.static_range(ROWS):
        a = a + (zero,)
    b = a
    for column in range(K):
        source = x + column - K // 2
        seen = inside & (source >= 0) & (source < width)
        offset = source * width_in + c
        a = sweep(a, image, taps, top, column, height, stride, offset, seen, c, channels, width_in, K, FLIP, ROWS)
        if GATE != "plain":
            b = sweep(
                b, image + channels, taps + channels, top, column, height, stride, offset, seen, c, channels, width_in,
                K, FLIP, ROWS,
            )  # fmt: skip
    for row in tl.static_range(ROWS):
        y = band * ROWS + row
        pixel = first_pixel + y * width + x
        written = tl.where(y < height, inside, False)
        value = a[row]
        if GATE != "plain":
            value += tl.load(bias + c, mask=c < channels, other=0).to(tl.float32)
            gate = b[row] + tl.load(bias + channels + c, mask=c < channels, other=0).to(tl.float32)
            if KEEP:
                store_row(kept, pixel, width_in, c, value, written, False)
                store_row(kept, pixel, width_in, channels + c, gate, written, False)
            value *= tl.sigmoid(gate) if GATE == "sigmoid" else gate * gain
        store_row(out, pixel, out_stride, c, value, written, ADD)


@triton.jit
def pool(
    maps, out, height, width, small_height, small_width, channels,
    TALL: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Adaptive average: output i of n over L inputs is the mean of floor(i L / n) to ceil((i + 1) L / n).

    TALL x WIDE holds the largest window.
    """
    y, x, c, inside = place(small_width, channels, COLUMNS, CHANNELS)
    top, bottom = y * height // small_height, tl.cdiv((y + 1) * height, small_height)
    left, right = x * width // small_width, tl.cdiv((x + 1) * width, small_width)
    image = maps + tl.program_id(2).to(tl.int64) * height * width * channels
    total = tl.zeros([COLUMNS, CHANNELS], tl.float32)
    for down in range(TALL):
        for along in range(WIDE):
            offset = (left + along) * channels + c
            total += load_row(image, top + down, bottom, width * channels, offset, inside & (left + along < right))
    pixel = (tl.program_id(2).to(tl.int64) * small_height + y) * small_width + x
    store_row(out, pixel, channels, c, total / ((bottom - top) * (right - left)), inside, False)


@triton.jit
def between(position, length, small_length):
    """Bilinear source of a position along an axis, in exact integers: lower neighbour, upper one, share of the upper.

    The source is (position + 1/2) small / length - 1/2, not below zero (align_corners=False).
    """
    doubled = tl.maximum((2 * position + 1) * small_length - length, 0)
    lower = doubled // (2 * length)
    share = (doubled - lower * 2 * length).to(tl.float32) / (2 * length)
    return lower, tl.minimum(lower + 1, small_length - 1), share


@triton.jit
def upsample(
    small, out, height, width, small_height, small_width, channels, out_stride,
    ADD: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Bilinear resize of (B, small_height, small_width, channels), written or added to pixels `out_stride` apart."""
    y, x, c, inside = place(width, channels, COLUMNS, CHANNELS)
    above, below, down = between(y, height, small_height)
    left, right, along = between(x, width, small_width)
    image = small + tl.program_id(2).to(tl.int64) * small_height * small_width * channels
    stride = small_width * channels
    top_left = load_row(image, above, small_height, stride, left * channels + c, inside)
    top_right = load_row(image, above, small_height, stride, right * channels + c, inside)
    low_left = load_row(image, below, small_height, stride, left * channels + c, inside)
    low_right = load_row(image, below, small_height, stride, right * channels + c, inside)
    top = top_left * (1 - along) + top_right * along
    low = low_left * (1 - along) + low_right * along
    pixel = (tl.program_id(2).to(tl.int64) * height + y) * width + x
    store_row(out, pixel, out_stride, c, top * (1 - down) + low * down, inside, ADD)
