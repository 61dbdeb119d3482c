"""The ∆ConvBlock in any diffusers script, and what attention looks at there, without the harness around it."""

from pathlib import Path
from typing import Any

from deltaconv.block import DeltaConvBlock
from harness.locality.door import locality
from harness.seats import door
from harness.seats.door import Applied, remove

__all__ = ["apply", "locality", "remove", "save"]


def apply(pipe: Any, weights: str | Path | None = None, **settings: Any) -> Applied:
    """Put ∆ConvBlocks in the place of every self-attention of a diffusers pipeline, until `remove(pipe)`.

    weights: a student's folder or file, or the published weights: a local path or a hub id; None for fresh blocks, to
    be trained. settings: those of `DeltaConvBlock.for_site`, where the weights' own are not wanted.
    """
    return door.apply(pipe, DeltaConvBlock, weights, settings)


def save(pipe: Any, folder: str | Path, base: str | None = None) -> Path:
    """Write the seated blocks as a student that `apply` loads: config.json, model.safetensors and a model card."""
    return door.save(pipe, folder, "deltaconv.apply(pipe, {folder})", base)
