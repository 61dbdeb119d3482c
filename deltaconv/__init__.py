"""The ∆ConvBlock, the method under study, and its door for plain diffusers scripts: apply, save, remove, locality."""

from deltaconv.block import DeltaConvBlock
from deltaconv.door import apply, locality, remove, save

__all__ = ["DeltaConvBlock", "apply", "locality", "remove", "save"]
