"""Any of the baselines in any diffusers script, without the harness around it."""

from pathlib import Path
from typing import Any

from harness.seats import door
from harness.seats.door import Applied, remove
from harness.seats.mixer import TokenMixer

__all__ = ["apply", "remove", "save"]


def apply(pipe: Any, mixer: type[TokenMixer], weights: str | Path | None = None, **settings: Any) -> Applied:
    """Put a mixer (`baselines.LinFusionAttention`) in the place of every self-attention of a pipeline, until `remove`.

    weights: a student's folder or file, or published weights: a local path or a hub id; None for what needs no training
    (neighborhood attention inherits the teacher's projections), or is to be trained. settings: those of `for_site`.
    """
    return door.apply(pipe, mixer, weights, settings)


def save(pipe: Any, folder: str | Path, base: str | None = None) -> Path:
    """Write what is seated as a student that `apply` loads: config.json, model.safetensors and a model card."""
    return door.save(pipe, folder, "baselines.apply(pipe, baselines.{mixer}, {folder})", base)
