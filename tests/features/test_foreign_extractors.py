"""Our extractors give what the authors' code gives, with the same random weights in the layout of each library."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.features.clip import ClipExtractor
from harness.features.dino import DinoExtractor
from harness.features.positions import resampled
from harness.records.case import BadInput

WIDTH, DEPTH, HEADS, CLASSES = 32, 2, 4, 7


def seeded(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights of a size that leaves nothing negligible, biases and scales too."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn_like(weight) * 0.2 + (weight.ndim == 1) * 0.5)
    return module.eval()


def foreign_dino() -> Any:
    from transformers import Dinov2Config, Dinov2ForImageClassification

    config = Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, image_size=70, patch_size=14
    )
    config.num_labels = CLASSES
    return seeded(Dinov2ForImageClassification(config))


def as_timm(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published layout of transformers in the names of timm, whose q, k and v are one matrix."""
    ours = {
        "cls_token": theirs["dinov2.embeddings.cls_token"],
        "pos_embed": theirs["dinov2.embeddings.position_embeddings"],
    }
    for end in ("weight", "bias"):
        ours[f"patch_embed.proj.{end}"] = theirs[f"dinov2.embeddings.patch_embeddings.projection.{end}"]
        ours[f"norm.{end}"] = theirs[f"dinov2.layernorm.{end}"]
        for i in range(DEPTH):
            block = f"dinov2.encoder.layer.{i}"
            attention = [theirs[f"{block}.attention.attention.{name}.{end}"] for name in ("query", "key", "value")]
            ours[f"blocks.{i}.attn.qkv.{end}"] = torch.cat(attention)
            for mine, other in (
                ("attn.proj", "attention.output.dense"),
                ("norm1", "norm1"),
                ("norm2", "norm2"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                ours[f"blocks.{i}.{mine}.{end}"] = theirs[f"{block}.{other}.{end}"]
    for i in range(DEPTH):
        for k in (1, 2):
            ours[f"blocks.{i}.ls{k}.gamma"] = theirs[f"dinov2.encoder.layer.{i}.layer_scale{k}.lambda1"]
    return ours


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Any, Path]:
    """Theirs, and a folder with the same weights as timm and the head as published."""
    import json

    from safetensors.torch import load_file, save_file

    theirs, folder = foreign_dino(), tmp_path_factory.mktemp("dino")
    theirs.save_pretrained(folder / "published")
    state = load_file(folder / "published" / "model.safetensors")
    save_file(as_timm(state), folder / "model.safetensors")
    save_file({name: state[name] for name in ("classifier.weight", "classifier.bias")}, folder / "head.safetensors")
    arguments = {"img_size": 70, "patch_size": 14, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    config = {
        "architecture": "vit_small_patch14_dinov2",
        "num_classes": 0,
        "num_features": WIDTH,
        "model_args": {**arguments, "init_values": 1.0, "num_classes": 0},
        "pretrained_cfg": {"input_size": [3, 70, 70], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 0},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return theirs, folder


@pytest.mark.parametrize("side", [70, 42, 112])
def test_timm_with_the_published_head_gives_the_logits_of_transformers(both, side):
    theirs, folder = both
    ours = DinoExtractor(folder, side=side, head=folder / "head.safetensors", positions="transformers")
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
    with torch.no_grad():
        expected = theirs(pixel_values=(images - 0.5) / 0.5).logits
    assert expected.std() > 0.1
    assert torch.allclose(ours.logits(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    if side != 70:
        other = DinoExtractor(folder, side=side, head=folder / "head.safetensors", positions="timm")
        assert not torch.allclose(other.logits(images), expected, rtol=1e-4)
        assert ours.logits_protocol != other.logits_protocol
        assert "positions=transformers" in ours.logits_protocol


def test_the_three_ways_to_another_grid_are_three():
    learnt = torch.randn(1, 1 + 25, 4, generator=torch.Generator().manual_seed(0))
    found = {rule: resampled(learnt, (5, 5), (3, 3), 1, rule) for rule in ("timm", "transformers", "hub")}
    for rule, positions in found.items():
        assert positions.shape == (1, 10, 4), rule
        assert torch.equal(positions[:, :1], learnt[:, :1])
    assert not torch.allclose(found["timm"], found["transformers"], atol=1e-3)
    assert not torch.allclose(found["hub"], found["transformers"], atol=1e-3)


def test_the_hubs_way_is_that_of_the_code_of_dinov2():
    """Its factor carries an offset of 0.1, and places follow the factor and not the sides."""
    learnt = torch.randn(1, 1 + 37 * 37, 2, generator=torch.Generator().manual_seed(0))
    grid = learnt[:, 1:].reshape(1, 37, 37, 2).permute(0, 3, 1, 2)
    factor = float(16 + 0.1) / 37.0
    expected = torch.nn.functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic", antialias=False)
    assert expected.shape[-2:] == (16, 16)
    ours = resampled(learnt, (37, 37), (16, 16), 1, "hub")
    assert torch.equal(ours[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, -1, 2))


def test_an_unknown_way_is_answered_with_the_known_ones(both):
    with pytest.raises(BadInput, match="positions='dino' is not known: choose from timm, transformers, hub"):
        DinoExtractor(both[1], side=42, positions="dino").features(torch.zeros(1, 3, 42, 42))  # type: ignore[arg-type]


def foreign_clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    text = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407, "bos_token_id": 49406}
    shape = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": DEPTH, "num_attention_heads": 1}
    vision = {"image_size": 32, "patch_size": 16, "hidden_act": "quick_gelu"}
    config = CLIPConfig(text_config=text | shape | {"hidden_act": "quick_gelu"}, vision_config=vision | shape)
    config.projection_dim = config.text_config.projection_dim = config.vision_config.projection_dim = 24
    return seeded(CLIPModel(config))


def as_open_clip(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layout of transformers in the names of open_clip."""
    text, vision = "text_model", "vision_model"
    ours = {
        "logit_scale": theirs["logit_scale"],
        "positional_embedding": theirs[f"{text}.embeddings.position_embedding.weight"],
        "token_embedding.weight": theirs[f"{text}.embeddings.token_embedding.weight"],
        "text_projection": theirs["text_projection.weight"].T,
        "visual.class_embedding": theirs[f"{vision}.embeddings.class_embedding"],
        "visual.positional_embedding": theirs[f"{vision}.embeddings.position_embedding.weight"],
        "visual.conv1.weight": theirs[f"{vision}.embeddings.patch_embedding.weight"],
        "visual.proj": theirs["visual_projection.weight"].T,
    }
    for end in ("weight", "bias"):
        ours[f"ln_final.{end}"] = theirs[f"{text}.final_layer_norm.{end}"]
        ours[f"visual.ln_pre.{end}"] = theirs[f"{vision}.pre_layrnorm.{end}"]
        ours[f"visual.ln_post.{end}"] = theirs[f"{vision}.post_layernorm.{end}"]
        for mine, other in (("transformer", text), ("visual.transformer", vision)):
            for i in range(DEPTH):
                block, layer = f"{mine}.resblocks.{i}", f"{other}.encoder.layers.{i}"
                attention = [theirs[f"{layer}.self_attn.{name}_proj.{end}"] for name in ("q", "k", "v")]
                ours[f"{block}.attn.in_proj_{end}"] = torch.cat(attention)
                for one, two in (
                    ("attn.out_proj", "self_attn.out_proj"),
                    ("ln_1", "layer_norm1"),
                    ("ln_2", "layer_norm2"),
                    ("mlp.c_fc", "mlp.fc1"),
                    ("mlp.c_proj", "mlp.fc2"),
                ):
                    ours[f"{block}.{one}.{end}"] = theirs[f"{layer}.{two}.{end}"]
    return ours


def clip_folder(folder: Path, theirs: Any, quick_gelu: bool) -> Path:
    import json

    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in as_open_clip(theirs.state_dict()).items()}
    save_file(state, folder / "open_clip_model.safetensors")
    model = {
        "embed_dim": 24,
        "quick_gelu": quick_gelu,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": DEPTH, "width": 64},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": DEPTH},
    }
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pixels}))
    return folder


PROMPTS = ["a red circle", "An OLD dog, barking!", "“curly” quotes &amp; more", "x" * 300]


def ids(prompts: list[str]) -> Tensor:
    """As transformers reads texts: neither quotes nor entities are mended."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    tokenizer.clean_fn = lambda text: " ".join(text.split()).lower()
    return tokenizer(prompts, 77)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_open_clip_with_quick_gelu_gives_the_similarity_of_transformers(tmp_path, quick_gelu):
    theirs = foreign_clip()
    ours = ClipExtractor(clip_folder(tmp_path, theirs, quick_gelu), texts_as="plain")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
    with torch.no_grad():
        given = theirs(input_ids=ids(PROMPTS), pixel_values=(images - 0.5) / 0.5)
    expected = given.text_embeds @ given.image_embeds.T
    found = ours.texts(PROMPTS) @ ours.images(images).T
    assert expected.std() > 0.01
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max())) == quick_gelu
    assert (" quickgelu " in ours.protocol) == quick_gelu


def test_mended_texts_are_read_otherwise_and_named(tmp_path):
    folder = clip_folder(tmp_path, foreign_clip(), True)
    plain, mended = ClipExtractor(folder, texts_as="plain"), ClipExtractor(folder)
    apart = (plain.texts(PROMPTS) - mended.texts(PROMPTS)).abs().amax(dim=1)
    assert apart[[0, 1, 3]].max() < 1e-5
    assert apart[2] > 1e-3
    assert "prompt[:77] plain" in plain.protocol
    assert "prompt[:77] mended" in mended.protocol
