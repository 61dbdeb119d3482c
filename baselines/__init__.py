"""The mixers that the ∆ConvBlock is compared with: one file, one mixer."""

from baselines.depthwise import DepthwiseConvolution
from baselines.door import apply, remove, save
from baselines.kv_compression import KeyValueCompression
from baselines.linfusion import LinFusionAttention
from baselines.neighborhood import NeighborhoodAttention
from baselines.pooling import GlobalPooling
from baselines.relu_linear import ReLULinearAttention
from baselines.self_attention import SelfAttention
from baselines.shifted_window import ShiftedWindowAttention
from baselines.token_merging import TokenMerging

__all__ = [
    "DepthwiseConvolution",
    "GlobalPooling",
    "KeyValueCompression",
    "LinFusionAttention",
    "NeighborhoodAttention",
    "ReLULinearAttention",
    "SelfAttention",
    "ShiftedWindowAttention",
    "TokenMerging",
    "apply",
    "remove",
    "save",
]
