"""Making diffusers objects: from configurations alone, with seeded random weights, or from a folder of safetensors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from harness.models import weights
from harness.models.finite import check_weights
from harness.models.layout import Layout
from harness.models.sampler import scheduler_of
from harness.records.case import BadInput

SEED = 0
DEVICES = ("cpu", "cuda")
WRONG_SETTINGS = (TypeError, ValueError, AttributeError, KeyError, IndexError, ArithmeticError)
"""What constructors of diffusers and transformers raise for a wrong configuration, such as text for a width."""
EXTRAS: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    "StableDiffusionXLPipeline": {"add_watermarker": False},
}
"""What a pipeline does beside making images is switched off."""


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """While open, what cannot be made of a folder's configuration and files is BadInput that names the folder."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError, StrictDataclassError, *WRONG_SETTINGS) as error:
        raise BadInput(_unloadable(folder, str(error))) from error


def built(layout: Layout, part: str) -> nn.Module:
    """A part with fresh weights as its configuration describes it, on the default device of the moment."""
    kind, config = _class_of(layout, part), layout.component(part)
    of_text = part.startswith("text_encoder")
    with loading(layout.folder / part):
        module: nn.Module = kind(kind.config_class(**config)) if of_text else kind.from_config(config)
    return module


def _class_of(layout: Layout, part: str) -> Any:
    import diffusers
    import transformers

    return getattr(transformers if part.startswith("text_encoder") else diffusers, weights.PARTS[layout.pipeline][part])


def random_pipeline(layout: Layout, part: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A pipeline whose denoiser and autoencoder have random weights, always the same; no text encoder at all."""
    import diffusers

    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(SEED)
        modules = {name: built(layout, name).to(dtype) for name in (part, "vae")}
    scheduler, index = scheduler_of(layout), layout.index
    encoders = {name: None for name in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2") if name in index}
    kind = getattr(diffusers, layout.pipeline)
    return kind(scheduler=scheduler, **modules, **encoders, **EXTRAS.get(layout.pipeline, {}))


def read_pipeline(layout: Layout, dtype: torch.dtype, at_hand: Mapping[str, nn.Module] | None = None) -> Any:
    """The pipeline in a folder, from checked safetensors but for the parts at hand; BadInput names what is wrong."""
    import diffusers

    weights.check(layout.folder)
    parts = dict(at_hand or {})
    for part in weights.PARTS[layout.pipeline]:
        parts[part] = parts.get(part) or read_part(layout, part, dtype)
    with loading(layout.folder):
        return getattr(diffusers, layout.pipeline).from_pretrained(
            layout.folder, local_files_only=True, **parts, **EXTRAS.get(layout.pipeline, {})
        )


def read_part(layout: Layout, part: str, dtype: torch.dtype) -> nn.Module:
    """One module with all its weights from the file; BadInput for what is missing, of another shape, or no number."""
    folder = layout.folder / part
    with loading(folder):
        module, report = _class_of(layout, part).from_pretrained(
            folder,
            dtype=dtype,
            variant=weights.variant_of(folder),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=part.startswith("text_encoder"),  # else it is said in a table and not in its error
        )
    for fault, key in (("missing from its files", "missing_keys"), ("of another shape", "mismatched_keys")):
        names = sorted(name if isinstance(name, str) else name[0] for name in report[key])
        if names:
            raise BadInput(_unloadable(folder, f"tensors {fault}: {len(names)}, the first is {names[0]}"))
    loaded: nn.Module = module
    check_weights(loaded, folder, dtype)
    return loaded


def read_denoiser(layout: Layout, expected: Layout, part: str, dtype: torch.dtype) -> nn.Module:
    """The denoiser of a folder. expected: the configuration by which its costs are counted.

    BadInput where a fetched one has other shapes than that: its costs would be another's.
    """
    weights.check(layout.folder)
    denoiser = read_part(layout, part, dtype)
    if layout != expected:
        with torch.device("meta"):
            said = {name: tensor.shape for name, tensor in built(expected, part).state_dict().items()}
        if said != {name: tensor.shape for name, tensor in denoiser.state_dict().items()}:
            raise BadInput(
                f"{layout.folder} has a {part} of other shapes than the configuration {expected.folder.name}: "
                "download it and give its local folder, whose own configuration is then in force"
            )
    return denoiser


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
