"""Making diffusers objects: from configurations alone, with seeded random weights, or from a folder of safetensors."""

from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from harness.models import weights
from harness.models.layout import Layout
from harness.models.sampler import scheduler_of
from harness.records.case import BadInput

SEED = 0
DEVICES = ("cpu", "cuda")
EXTRAS: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    "StableDiffusionXLPipeline": {"add_watermarker": False},
}
"""What a pipeline does beside making images is switched off."""


def built(layout: Layout, part: str) -> nn.Module:
    """A denoiser or an autoencoder with fresh weights, on the default device of the moment."""
    import diffusers

    module: nn.Module = getattr(diffusers, weights.PARTS[layout.pipeline][part]).from_config(layout.component(part))
    return module


def random_pipeline(layout: Layout, part: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A pipeline whose denoiser and autoencoder have random weights, always the same; no text encoder at all."""
    import diffusers

    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(SEED)
        modules = {name: built(layout, name).to(dtype) for name in (part, "vae")}
    scheduler = scheduler_of(layout)
    encoders = {
        name: None for name in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2") if layout.names(name)
    }
    kind = getattr(diffusers, layout.pipeline)
    return kind(scheduler=scheduler, **modules, **encoders, **EXTRAS.get(layout.pipeline, {}))


def read_pipeline(layout: Layout, dtype: torch.dtype) -> Any:
    """The pipeline in a folder, from checked safetensors; BadInput names the part that cannot be loaded."""
    import diffusers

    weights.check(layout.folder)
    parts = {part: read_part(layout, part, dtype) for part in weights.PARTS[layout.pipeline]}
    extras = EXTRAS.get(layout.pipeline, {})
    try:
        return getattr(diffusers, layout.pipeline).from_pretrained(
            layout.folder, local_files_only=True, **parts, **extras
        )
    except (OSError, ValueError) as error:
        raise BadInput(_unloadable(layout.folder, str(error))) from error


def read_part(layout: Layout, part: str, dtype: torch.dtype) -> nn.Module:
    """One module with all its weights from the file; nothing is left to chance where the file lacks some."""
    import diffusers
    import transformers

    name = weights.PARTS[layout.pipeline][part]
    kind = getattr(transformers if part.startswith("text_encoder") else diffusers, name)
    folder = layout.folder / part
    try:
        module, report = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BadInput(_unloadable(folder, str(error))) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise BadInput(
            _unloadable(folder, f"tensors missing from its files: {len(missing)}, the first is {missing[0]}")
        )
    loaded: nn.Module = module
    return loaded


def compare(denoiser: nn.Module, layout: Layout, part: str, source: str) -> None:
    """BadInput where a fetched denoiser is not as the shipped configuration has it: its costs would be another's."""
    with torch.device("meta"):
        said = {name: tensor.shape for name, tensor in built(layout, part).state_dict().items()}
    if said != {name: tensor.shape for name, tensor in denoiser.state_dict().items()}:
        raise BadInput(
            f"{source} has a {part} of other shapes than the configuration {layout.folder.name}: "
            "download it and give its local folder, whose own configuration is then in force"
        )


def _unloadable(folder: Path, why: str) -> str:
    return f"{folder} cannot be loaded ({shorten(why, 160)}): fetch it or write it again with save_pretrained"


def device_of(name: str) -> torch.device:
    """A device that this machine has; BadInput otherwise."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"device {name!r} is not known: give cpu, cuda or cuda:0") from error
    if device.type not in DEVICES:
        raise BadInput(f"device {name!r} is none that is measured here: give {' or '.join(DEVICES)}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device {name} is not there: this machine shows {torch.cuda.device_count()} CUDA devices; give device=cpu"
        )
    return device


def require(device: torch.device, dtype: torch.dtype) -> None:
    """BadInput for a dtype that the device cannot compute in, or can only emulate."""
    if device.type == "cuda":
        able = dtype != torch.bfloat16 or torch.cuda.is_bf16_supported(including_emulation=False)
        lack = "" if able else "its tensor cores have none"
    else:
        lack = _lack(device, dtype)
    if lack:
        name = str(dtype).removeprefix("torch.")
        raise BadInput(
            f"{device} cannot compute in {name} ({shorten(lack, 120)}): give another dtype, fp32 always works"
        )


def _lack(device: torch.device, dtype: torch.dtype) -> str:
    """What torch says where an operator of a denoiser does not exist in that dtype; empty if all do."""
    from torch.nn import functional

    tokens_BNC = torch.ones(1, 4, 8, device=device, dtype=dtype)
    map_BCHW = torch.ones(1, 8, 2, 2, device=device, dtype=dtype)
    try:
        functional.layer_norm(functional.gelu(tokens_BNC @ tokens_BNC.mT), (4,))
        functional.scaled_dot_product_attention(tokens_BNC, tokens_BNC, tokens_BNC)
        functional.silu(functional.group_norm(functional.conv2d(map_BCHW, map_BCHW.new_ones(8, 8, 1, 1)), 2))
    except RuntimeError as error:
        return str(error)
    return ""
