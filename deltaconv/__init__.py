"""The ∆ConvBlock, the method under study, and its door for plain diffusers scripts: apply, save, remove."""

from deltaconv.block import DeltaConvBlock
from deltaconv.door import apply, remove, save

__all__ = ["DeltaConvBlock", "apply", "remove", "save"]
