"""The door for plain diffusers scripts: seat a variant in a pipeline and leave it there, save it, remove it.

    apply(pipe, DeltaConvBlock, "folder")    # every self-attention is a ∆ConvBlock from here on
    pipe("a red circle")
    save(pipe, "copy")                       # config.json, model.safetensors, README.md
    remove(pipe)                             # bit for bit as before

`deltaconv` and `baselines` each have these three for their own mixers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from harness.records.case import BadInput
from harness.seats.checkpoint import Account, Checkpoint, Weighted, read
from harness.seats.factory import FORMAT
from harness.seats.mixer import TokenMixer
from harness.seats.surgery import Seating, seating_of, uncompiled

DENOISERS = ("unet", "transformer")


@dataclass(frozen=True)
class Applied:
    """What now sits in a pipeline, by site path, and what became of the weights (None where none were given)."""

    mixers: Mapping[str, TokenMixer]
    account: Account | None


def apply(pipe: Any, mixer: type[Any], weights: str | Path | None, settings: Mapping[str, Any]) -> Applied:
    """Seat the mixer at every self-attention of a diffusers pipeline, or of a denoiser, until `remove`.

    weights: a local path or a hub id of a student or of published weights; None for mixers as they are made, with the
    teacher's projections where they have such. settings: keywords of `for_site`, which go before those of the weights.
    BadInput leaves the pipeline as it was.
    """
    denoiser = denoiser_of(pipe)
    if seating_of(denoiser) is not None:
        raise BadInput(f"a variant is seated in this {type(denoiser).__name__} already: remove it first")
    if weights is None:
        factory: Any = partial(mixer.for_site, **settings)
    else:
        checkpoint = read(weights)
        made_by = partial(mixer.for_site, **{**described(checkpoint, mixer), **settings})
        factory = Weighted(made_by, checkpoint, chosen=settings)
    try:
        seating = Seating(denoiser, factory)
    except TypeError as error:
        raise BadInput(f"{mixer.__name__} cannot be made with {dict(settings)}: {error}") from error
    mixers = {path: seat.mixer for path, seat in seating.seats.items()}
    return Applied(mixers, factory.account() if isinstance(factory, Weighted) else None)


def remove(pipe: Any) -> None:
    """Put the teacher's attention back; BadInput where nothing is seated.

    Where the pipeline has been moved or cast in between, its attention follows.
    """
    denoiser = denoiser_of(pipe)
    seating = _seating(denoiser)
    seating.undo()
    weight = next(denoiser.parameters())
    for attention in seating.layers.values():
        if seating.origin != (weight.device, weight.dtype):
            attention.to(weight.device, weight.dtype)


def save(pipe: Any, folder: str | Path, call: str, base: str | None = None) -> Path:
    """Write what is seated as a student: weights, config.json, and a model card that says how to use it.

    call: how it is applied, with {folder} and {mixer} in it. base: the model that it belongs to; by default the name
    that the pipeline was loaded by.
    """
    denoiser = denoiser_of(pipe)
    seating = _seating(denoiser)
    made_by = seating.factory.factory if isinstance(seating.factory, Weighted) else seating.factory
    if not isinstance(made_by, partial):
        raise BadInput(
            "what is seated was not seated by apply, and nothing says how it was made: save what apply seats"
        )
    mixers = {path: seat.mixer for path, seat in seating.seats.items()}
    config = {
        "format": FORMAT,
        "mixer": type(next(iter(mixers.values()))).__name__,
        "settings": {name: value for name, value in made_by.keywords.items() if name != "backend"},
        "denoiser": type(denoiser).__name__,
        "base": base or getattr(getattr(pipe, "config", None), "_name_or_path", None) or None,
        "sites": len(mixers),
        "parameters": sum(weight.numel() for mixer in mixers.values() for weight in mixer.parameters()),
    }
    return _write(Path(folder).expanduser(), config, mixers, call)


def _write(folder: Path, config: dict[str, Any], mixers: Mapping[str, TokenMixer], call: str) -> Path:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{path}.{name}": value.detach().cpu().contiguous().clone()
        for path, mixer in mixers.items()
        for name, value in mixer.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(
        card(config, call.format(folder=json.dumps(folder.name), mixer=config["mixer"])), encoding="utf-8"
    )
    return folder


def card(config: Mapping[str, Any], call: str) -> str:
    """The model card of a student, in the model hub's form."""
    base, package = config["base"], call.partition(".")[0]
    head = ["---", "library_name: diffusers", "tags: [text-to-image, efficient-attention, deltabench]"]
    head += [f"base_model: {base}"] if base and base.count("/") == 1 else []
    return "\n".join(
        [
            *head,
            "---",
            f"# {config['mixer']} for {base or config['denoiser']}",
            "",
            f"Weights of {config['sites']} `{config['mixer']}` modules ({config['parameters']:,} parameters) that "
            f"stand in for every self-attention layer of the {config['denoiser']}. The rest is the base model's own.",
            "",
            "```python",
            "from diffusers import DiffusionPipeline",
            f"import {package}",
            "",
            f"pipe = DiffusionPipeline.from_pretrained({json.dumps(base or 'the base model')})",
            f"{call}  # this folder",
            'image = pipe("a prompt").images[0]',
            f"{package}.remove(pipe)  # the base model again, bit for bit",
            "```",
            "",
            "Settings of each module:",
            "",
            "```json",
            json.dumps(config["settings"], indent=2, ensure_ascii=False),
            "```",
            "",
        ]
    )


def described(checkpoint: Checkpoint, mixer: type[TokenMixer]) -> dict[str, Any]:
    """The settings that a checkpoint comes with: a student says them, published weights imply them by their shapes."""
    student = checkpoint.student()
    if student is not None:
        return student[1]
    states = checkpoint.states(mixer)
    return mixer.settings_of(states) if states else {}


def denoiser_of(pipe: Any) -> nn.Module:
    """The UNet or transformer of a pipeline, or the denoiser itself; BadInput for anything else."""
    if isinstance(pipe, nn.Module):
        return uncompiled(pipe)
    found = [uncompiled(part) for name in DENOISERS if isinstance(part := getattr(pipe, name, None), nn.Module)]
    if len(found) != 1:
        raise BadInput(
            f"{type(pipe).__name__} has no denoiser named {' or '.join(DENOISERS)}: give a diffusers pipeline of "
            "Stable Diffusion, SDXL or PixArt, or its denoiser"
        )
    return found[0]


def _seating(denoiser: nn.Module) -> Seating:
    seating = seating_of(denoiser)
    if seating is None:
        raise BadInput(f"nothing is seated in this {type(denoiser).__name__}: apply a variant first")
    return seating
