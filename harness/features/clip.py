"""CLIP embeddings of images and texts through open_clip: what the CLIP score reads.

OpenAI's weights need QuickGELU and score lower without it: the flag is taken from the pretrained tag and stands in the
protocol. Shapes: N images or texts, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn

from harness.features.dino import in_batches
from harness.features.pixels import Pixels, Triple
from harness.features.source import fingerprint, fingerprint_of, folder_of, hub_file, local_file, readable
from harness.records.case import BadInput
from harness.records.spelled import Inert


@dataclass(frozen=True)
class ClipExtractor(Inert):
    """An image-text model of open_clip; inert until it is asked for the first image or text.

    source: a folder with open_clip_config.json and open_clip_model.safetensors (and, for a tokenizer of its own,
    tokenizer.json), or an open_clip name, with `pretrained` as its tag. prefix: put before every text.
    first: steps of resizing before the model's own preprocessing. texts_as: `mended` as open_clip does (curly quotes
    and `&amp;` become plain), or `plain` as transformers does.
    """

    source: str | Path
    pretrained: str | None = None
    prefix: str = ""
    first: tuple[str, ...] = ()
    texts_as: Literal["mended", "plain"] = "mended"
    batch: int = 64
    device: str = "cpu"

    def fingerprints(self) -> dict[str, str]:
        return {"source": fingerprint_of(self.source)}

    @cached_property
    def protocol(self) -> str:
        """How embeddings are taken: model, hash of its weights, activation, pixels, text handling, precision."""
        name = f"{self.source}/{self.pretrained}" if folder_of(self.source) is None else "local"
        quick = any(type(module).__name__ == "QuickGELU" for module in self._model.modules())
        gelu = "quickgelu" if quick else "gelu"
        length = cast(Any, self._model).context_length
        mended = f" {self.texts_as}" if _mends(self._tokenizer) else ""
        text = f"text={self.prefix!r}+prompt[:{length}]{mended}"
        return f"open_clip:{name}@{fingerprint(self._model)} {gelu} pixels={self._pixels} {text} dtype=fp32"

    def images(self, images_N3HW: Tensor) -> Tensor:
        """(N, D) float32 image embeddings of length 1, on the CPU."""
        return in_batches(
            images_N3HW, lambda part: self._network("encode_image", self._pixels(part)), self.batch, self.device
        )

    def texts(self, prompts: list[str]) -> Tensor:
        """(N, D) float32 text embeddings of length 1, on the CPU; longer texts are cut at the model's context.

        The last few lists of prompts are remembered: every case of a run asks for the same.
        """
        return self._texts(tuple(prompts))

    @cached_property
    def _texts(self) -> Callable[[tuple[str, ...]], Tensor]:
        def encoded(prompts: tuple[str, ...]) -> Tensor:
            ids = self._tokenizer([self.prefix + prompt for prompt in prompts])
            return in_batches(ids, lambda part: self._network("encode_text", part), self.batch, self.device)

        return lru_cache(maxsize=4)(encoded)

    def _network(self, part: str, batch: Tensor) -> Tensor:
        return cast(Tensor, getattr(self._model, part)(batch, normalize=True))

    def leave(self) -> None:
        """Let go of the weights, until they are asked for again; what they are called stays known."""
        vars(self).pop("_model", None)

    @cached_property
    def _model(self) -> nn.Module:
        with readable(self.source):
            return _loaded(self.source, self.pretrained).to(self.device).eval().requires_grad_(False)

    @cached_property
    def _tokenizer(self) -> Any:
        import open_clip

        with readable(self.source):
            folder = folder_of(self.source)
            tokenizer = open_clip.get_tokenizer(str(self.source) if folder is None else f"local-dir:{folder}")
        if _mends(tokenizer) and self.texts_as == "plain":
            tokenizer.clean_fn = _plain
        return tokenizer

    @cached_property
    def _pixels(self) -> Pixels:
        settings = cast(Any, self._model).visual.preprocess_cfg
        size = settings["size"]
        side, mode = size if isinstance(size, int) else size[0], settings["interpolation"]
        steps = {
            "squash": (f"squash{side}-{mode}",),
            "shortest": (f"short{side}-{mode}", f"crop{side}"),
        }
        if settings["resize_mode"] not in steps:
            raise BadInput(
                f"extractor {str(self.source)!r} resizes by {settings['resize_mode']!r}: possible are {sorted(steps)}"
            )
        mean, std = (cast(Triple, tuple(settings[key])) for key in ("mean", "std"))
        return Pixels((*self.first, *steps[settings["resize_mode"]]), mean, std)


def _mends(tokenizer: Any) -> bool:
    """Whether it is open_clip's own, which cleans texts; tokenizers of transformers do not."""
    return hasattr(tokenizer, "clean_fn") and hasattr(tokenizer, "bpe")


def _plain(text: str) -> str:
    """White space and capitals alone, as transformers has it."""
    return " ".join(text.split()).lower()


def _loaded(source: str | Path, pretrained: str | None) -> nn.Module:
    import open_clip

    folder = folder_of(source)
    if folder is not None:
        local_file(folder, "open_clip_config.json")
        local_file(folder, "open_clip_model.safetensors")
        return cast(nn.Module, open_clip.create_model(f"local-dir:{folder}"))
    tag = open_clip.get_pretrained_cfg(str(source), pretrained or "")
    if not tag.get("hf_hub"):
        raise BadInput(
            f"extractor {str(source)!r} with the tag {pretrained!r} is neither a folder nor weights that open_clip "
            "knows on the hub: give a folder, or for example ViT-B-16 with pretrained=openai"
        )
    weights = hub_file(tag["hf_hub"].rstrip("/"), "open_clip_model.safetensors")
    model = open_clip.create_model(
        str(source),
        pretrained=str(weights),
        force_quick_gelu=bool(tag.get("quick_gelu")),
        image_mean=tag.get("mean"),
        image_std=tag.get("std"),
        image_interpolation=tag.get("interpolation"),
        image_resize_mode=tag.get("resize_mode"),
        precision="fp32",
    )
    return cast(nn.Module, model)
