"""One stage of the ∆ConvBlock's pyramid: a depthwise convolution, half of whose channels gates the other half.

In fp16, which ends at 65504, the product of two halves can overflow. With |a| = |b| = x on m channels

    paper      a b / sqrt(m)      overflows once x passes 256 m^(1/4), 910 at C = 320
    released   a b sqrt(m / 2)    overflows once x passes 256 (m/2)^(-1/4), 85 at C = 320
    sigmoid    a sigmoid(b)       never: it is at most x

So in fp16 `forward` returns the paper's product for both forms, in bf16 and fp32 the bare product a b, and the closing
map multiplies its sums by what is missing from the factor.
Shapes: B batch, m channels, g = m / 2 of them gated, H x W map.
"""

import torch
from torch import Tensor, nn

from harness.seats.mixer import depthwise

Gain = float | None  # multiplies the product of the halves; None gates with a sigmoid instead


class GatedConvolution(nn.Module):
    """One stage of the pyramid: a depthwise convolution whose one half of the channels gates the other."""

    def __init__(self, channels: int, kernel_size: int, gain: Gain) -> None:
        super().__init__()
        self.gain = gain
        self.conv_spatial = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        bound = (6 / (kernel_size * channels)) ** 0.5
        nn.init.uniform_(self.conv_spatial.weight, -bound, bound)
        nn.init.zeros_(self.conv_spatial.bias)  # type: ignore[arg-type]

    def forward(self, map_BmHW: Tensor) -> Tensor:
        """Half the channels of a channels-last map, channels-last again."""
        return depthwise(self.conv_spatial, map_BmHW, self.gated)

    def gated(self, convolved_BmHW: Tensor) -> Tensor:
        """The gate after the convolution, on a map in either layout; channels-last."""
        kept = self.gate(convolved_BmHW, self.kept_gain(convolved_BmHW.dtype))
        return kept.contiguous(memory_format=torch.channels_last)

    def gate(self, map_BmHW: Tensor, gain: Gain) -> Tensor:
        a, b = map_BmHW.chunk(2, dim=1)
        if gain is None:
            return a * torch.sigmoid(b)
        return a * b if gain == 1 else a * (b * gain)

    def kept_gain(self, dtype: torch.dtype) -> Gain:
        """The factor that `forward` applies itself: the paper's in fp16, else 1; None for a sigmoid, which has none."""
        if self.gain is None:
            return None
        return float(self.conv_spatial.in_channels**-0.5) if dtype == torch.float16 else 1.0

    def open_gain(self, dtype: torch.dtype) -> float:
        """The factor that is still missing, which the closing map applies."""
        kept = self.kept_gain(dtype)
        return 1.0 if self.gain is None or kept is None else self.gain / kept
