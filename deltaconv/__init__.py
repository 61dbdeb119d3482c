"""The ∆ConvBlock, the method under study, and the door for its published weights."""

from deltaconv.block import DeltaConvBlock

__all__ = ["DeltaConvBlock"]
