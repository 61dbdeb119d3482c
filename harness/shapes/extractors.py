"""The feature extractors of the embedded world: a small timm ViT with a class head, and a small open_clip model.

The ViT learns to name the first thing of a scene in reading order, one of 6 colours x 6 shapes x 2 sizes = 72 classes,
for DS and FDD; the open_clip model learns which caption belongs to which image, for the CLIP score. Both see images
with slight noise, so that the faint noise of a generated image says nothing.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.distillation.training import Schedule, train
from harness.shapes.captions import COLOURS, SHAPES, SIZES, Scene, held_out_scenes, vocabulary
from harness.shapes.drawing import batch_of, draw

CONTEXT_LENGTH = 32
CLASSES = len(COLOURS) * len(SHAPES) * len(SIZES)

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 128, "head_width": 32, "layers": 4},
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": len(vocabulary()) + 4,
        "hf_tokenizer_name": "local",
        "width": 128,
        "heads": 4,
        "layers": 3,
        "pool_type": "eos",
        "eos_id": 2,
        "pad_id": 0,
    },
}


def main_class(scene: Scene) -> int:
    """The class of a scene: colour, shape and size of its first thing in reading order, top to bottom."""
    thing = min(scene.things, key=lambda thing: thing.place)
    return (thing.colour * len(SHAPES) + thing.shape) * len(SIZES) + thing.size


@dataclass(frozen=True)
class VitTraining:
    """Cross-entropy over the 72 classes; saved in timm's own format."""

    schedule: Schedule
    seed: int = 2
    batch: int = 64
    name: str = "vit"

    def run(self, folder: Path, scenes: Sequence[Scene], checkpoint: Path, device: str) -> None:
        import timm
        from timm.models import save_for_hf

        torch.manual_seed(self.seed)
        sizes = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}
        vit = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **sizes).to(device)

        def loss(step: int) -> Tensor:
            rows, pixels = _batch(scenes, step, self.batch)
            answers = torch.tensor([main_class(scene) for scene in rows], device=device)
            return F.cross_entropy(vit(pixels.to(device)).float(), answers)

        train(vit, loss, self.schedule, self.name, checkpoint)
        save_for_hf(vit.cpu().eval(), folder, safe_serialization=True)

    def figures(self, folder: Path) -> dict[str, float]:
        """Share of the 512 held-out scenes whose first thing is named right; chance is 1/72."""
        from harness.features.dino import DinoExtractor

        chosen = held_out_scenes(512)
        logits = DinoExtractor(folder).logits(draw(chosen, range(512)))
        answers = torch.tensor([main_class(scene) for scene in chosen])
        return {"accuracy": float((logits.argmax(1) == answers).float().mean())}


@dataclass(frozen=True)
class ClipTraining:
    """The symmetric contrastive loss of CLIP; saved in open_clip's own format, tokenizer included."""

    schedule: Schedule
    seed: int = 3
    batch: int = 128
    name: str = "clip"

    def run(self, folder: Path, scenes: Sequence[Scene], checkpoint: Path, device: str) -> None:
        import open_clip

        torch.manual_seed(self.seed)
        clip = open_clip.model.CLIP(**copy.deepcopy(CLIP_CONFIG)).to(device)
        tokenizer = _clip_tokenizer()
        contrast = open_clip.ClipLoss()

        def loss(step: int) -> Tensor:
            rows, pixels = _batch(scenes, step, self.batch)
            ids = tokenizer([scene.caption for scene in rows], padding="max_length", return_tensors="pt")["input_ids"]
            image, text, scale = clip(pixels.to(device), ids.to(device))
            return cast(Tensor, contrast(image.float(), text.float(), scale.float().clamp(max=100)))

        train(clip, loss, self.schedule, self.name, checkpoint)
        _save_clip(clip.cpu().eval(), tokenizer, folder)

    def figures(self, folder: Path) -> dict[str, float]:
        """Over the 512 held-out scenes: share of images whose own caption is the nearest, and the two mean scores."""
        from harness.features.clip import ClipExtractor

        clip, chosen = ClipExtractor(folder), held_out_scenes(512)
        images, texts = clip.images(draw(chosen, range(512))), clip.texts([scene.caption for scene in chosen])
        cosines = 100 * images @ texts.T
        own = float((cosines.argmax(1) == torch.arange(512)).float().mean())
        return {"retrieval": own, "matched": float(cosines.diag().mean()), "mismatched": float(cosines.mean())}


def _batch(scenes: Sequence[Scene], step: int, batch: int) -> tuple[list[Scene], Tensor]:
    """Scenes of a step, and their images in [-1, 1] with noise of random strength."""
    rows, images = batch_of(scenes, step, batch)
    generator = torch.Generator().manual_seed(step)
    strength = 0.08 * torch.rand(batch, 1, 1, 1, generator=generator)
    return rows, (images + strength * torch.randn(images.shape, generator=generator)) * 2 - 1


def _clip_tokenizer() -> Any:
    """One token a word; words that no caption holds are unknown."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3}
    words = special | {word: i + len(special) for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<bos>", 1), ("<eos>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT_LENGTH, **names)


def _save_clip(clip: nn.Module, tokenizer: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    weights = {key: value.contiguous() for key, value in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    text = json.dumps({"model_cfg": CLIP_CONFIG, "preprocess_cfg": preprocess}, indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n")
