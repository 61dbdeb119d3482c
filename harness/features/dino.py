"""DINO features and class logits through timm: what the Fréchet distance (FDD) and the Inception-Score form (DS) read.

Encoder, resize and normalisation differ between users of FDD, so they stand in the protocol, with a hash of the
weights. Shapes: N images, D features, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.features.pixels import Pixels, Triple
from harness.features.positions import Rule, fit, known
from harness.features.source import fingerprint, fingerprint_of, folder_of, hub_file, local_file, readable
from harness.records.case import BadInput
from harness.records.spelled import Inert


class Dino(Protocol):
    """What FDD and DS need from a world."""

    @property
    def protocol(self) -> str: ...

    @property
    def logits_protocol(self) -> str: ...

    @property
    def reads(self) -> int:
        """The side of the square that its features are taken of."""

    def features(self, images_N3HW: Tensor) -> Tensor: ...

    def logits(self, images_N3HW: Tensor) -> Tensor: ...

    def leave(self) -> None: ...


@dataclass(frozen=True)
class DinoExtractor(Inert):
    """A vision transformer of timm; inert until it is asked for the first image.

    source: a folder with config.json and model.safetensors (timm's hub format), or a timm name with its pretrained tag.
    side: image side in pixels (default: the configuration's). pixels: steps of resizing (default: squash, bicubic).
    normalize: by the `config`'s mean and std, or `none`. positions: `harness.features.positions`. head: a linear
    classifier over class token and mean patch token, from a safetensors file, a folder or hub repository with
    model.safetensors (keys `classifier.weight`, `classifier.bias`); without it the model's own head.
    """

    source: str | Path
    side: int | None = None
    pixels: tuple[str, ...] | None = None
    normalize: Literal["config", "none"] = "config"
    head: str | Path | None = None
    positions: Rule = "timm"
    batch: int = 64
    device: str = "cpu"

    def fingerprints(self) -> dict[str, str]:
        return {"source": fingerprint_of(self.source)} | ({"head": fingerprint_of(self.head)} if self.head else {})

    @cached_property
    def protocol(self) -> str:
        """How features are taken: encoder, hash of its weights, pixels, which token, precision."""
        return f"{self._encoder} features=cls dtype=fp32"

    @cached_property
    def logits_protocol(self) -> str:
        head = "own" if self._linear is None else f"linear(cls,mean)@{fingerprint(nn.Identity(), *self._linear)}"
        return f"{self._encoder} head={head} dtype=fp32"

    @property
    def reads(self) -> int:
        return self.side or int(cast(Any, self._model).patch_embed.img_size[0])

    def features(self, images_N3HW: Tensor) -> Tensor:
        """(N, D) float32 normalised class tokens on the CPU."""
        return self._each(images_N3HW, self._features)

    def logits(self, images_N3HW: Tensor) -> Tensor:
        """(N, K) float32 class logits on the CPU; raises BadInput for an encoder without a head."""
        if self._linear is None and not getattr(self._model, "num_classes", 0):
            raise BadInput(
                f"extractor {str(self.source)!r} has no classes: give head= a safetensors file with a linear classifier"
            )
        return self._each(images_N3HW, self._logits)

    def leave(self) -> None:
        """Let go of the weights, until they are asked for again; what they are called stays known."""
        vars(self).pop("_model", None)

    @cached_property
    def _model(self) -> nn.Module:
        with readable(self.source):
            known(self.positions)
            model = _loaded(self.source, bool(self.head))
            model = fit(model, self.side, self.positions) if self.side else model
            return model.to(self.device).eval().requires_grad_(False)

    @cached_property
    def _linear(self) -> tuple[Tensor, Tensor] | None:
        return None if self.head is None else _read_head(self.head)

    @cached_property
    def _encoder(self) -> str:
        name = cast(Any, self._model).pretrained_cfg["architecture"]
        positions = f" positions={self.positions}" if self.side else ""
        return f"timm:{name}@{fingerprint(self._model)}{positions} pixels={self._pixels}"

    @cached_property
    def _pixels(self) -> Pixels:
        model = cast(Any, self._model)
        side = self.side or model.patch_embed.img_size[0]
        steps = (f"squash{side}-bicubic",) if self.pixels is None else tuple(self.pixels)
        if self.normalize == "none":
            return Pixels(steps)
        mean, std = (cast(Triple, tuple(model.pretrained_cfg[key])) for key in ("mean", "std"))
        return Pixels(steps, mean, std)

    def _features(self, pixels: Tensor) -> Tensor:
        model = cast(Any, self._model)
        return cast(Tensor, model.forward_head(model.forward_features(pixels), pre_logits=True))

    def _logits(self, pixels: Tensor) -> Tensor:
        model = cast(Any, self._model)
        tokens = model.forward_features(pixels)
        if self._linear is None:
            return cast(Tensor, model.forward_head(tokens))
        weight, bias = (tensor.to(tokens.device) for tensor in self._linear)
        both = torch.cat([tokens[:, 0], tokens[:, model.num_prefix_tokens :].mean(dim=1)], dim=-1)
        return F.linear(both, weight, bias)

    def _each(self, images_N3HW: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        return in_batches(images_N3HW, lambda images: network(self._pixels(images)), self.batch, self.device)


@dataclass(frozen=True)
class DinoPair:
    """Features of one extractor, logits of another: the paper takes FDD with ViT-B/14 and DS with ViT-L/14."""

    encoder: DinoExtractor
    classifier: DinoExtractor

    @property
    def protocol(self) -> str:
        return self.encoder.protocol

    @property
    def logits_protocol(self) -> str:
        return self.classifier.logits_protocol

    @property
    def reads(self) -> int:
        return self.encoder.reads

    def features(self, images_N3HW: Tensor) -> Tensor:
        return self.encoder.features(images_N3HW)

    def logits(self, images_N3HW: Tensor) -> Tensor:
        return self.classifier.logits(images_N3HW)

    def leave(self) -> None:
        self.encoder.leave()
        self.classifier.leave()


def in_batches(images: Tensor, network: Callable[[Tensor], Tensor], batch: int, device: str) -> Tensor:
    """Rows of a network without gradients and without TF32, in float32 on the CPU."""
    with torch.no_grad(), exact_convolutions():
        return torch.cat([network(part.to(device)).float().cpu() for part in torch.split(images, batch)])


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """TF32 in cuDNN's convolutions, torch's default on a GPU, moves features: switch it off for a while."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def _loaded(source: str | Path, headless: bool) -> nn.Module:
    """The model at its own size."""
    import timm

    wanted = {"num_classes": 0} if headless else {}
    folder = folder_of(source)
    if folder is not None:
        local_file(folder, "config.json")
        local_file(folder, "model.safetensors")
        return cast(nn.Module, timm.create_model(f"local-dir:{folder}", pretrained=True, **wanted))
    weights = hub_file(_repository(str(source)), "model.safetensors")
    overlay = {"file": str(weights), "custom_load": False}
    return cast(nn.Module, timm.create_model(str(source), pretrained=True, pretrained_cfg_overlay=overlay, **wanted))


def _repository(name: str) -> str:
    """The hub repository of a timm name."""
    import timm

    known = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    if known is None or not known.hf_hub_id:
        raise BadInput(
            f"extractor {name!r} is neither a folder nor a timm model with pretrained weights: "
            "give a folder, or a name such as vit_base_patch14_dinov2.lvd142m"
        )
    repository = str(known.hf_hub_id)
    return f"{repository}{known.architecture}.{known.tag}" if repository.endswith("/") else repository


def _read_head(head: str | Path) -> tuple[Tensor, Tensor]:
    """Weight (K, 2D) and bias (K) of a linear classifier; nothing else of the file is read."""
    from safetensors import safe_open

    path, folder = Path(head).expanduser(), folder_of(head)
    if not path.is_file():
        name = "model.safetensors"
        path = hub_file(str(head), name) if folder is None else local_file(folder, name)
    with readable(head), safe_open(path, framework="pt") as file:
        return file.get_tensor("classifier.weight").float(), file.get_tensor("classifier.bias").float()
