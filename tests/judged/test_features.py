"""Extractors on tiny random models saved in the libraries' own formats; pixels, the cache, folders of real images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.features.clip import ClipExtractor
from harness.features.dino import DinoExtractor, DinoPair
from harness.features.pixels import Pixels, eight_bit
from harness.features.world import FolderWorld
from harness.records.case import BadInput

WORDS = ("a", "red", "blue", "circle", "square", "on", "white")
BATCH = 1e-5
"""Features of length about one move by float32 rounding with the batch they are computed in."""


def noise(n: int, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm vision transformer for 32 pixels with five classes."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dino")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    save_for_hf(timm.create_model("vit_tiny_patch16_224", **sizes), folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip model for 32 pixels with a tokenizer of eleven words."""
    import copy

    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    text = {"context_length": 8, "vocab_size": 11, "hf_tokenizer_name": "local", "width": 16, "heads": 2, "layers": 1}
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
        "text_cfg": text | {"pool_type": "eos", "eos_id": 2, "pad_id": 0},
    }
    save_file(open_clip.model.CLIP(**copy.deepcopy(config)).state_dict(), folder / "open_clip_model.safetensors")
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pixels}))
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


def test_an_extractor_that_is_not_used_loads_nothing() -> None:
    DinoExtractor("/nowhere")
    ClipExtractor("/nowhere")
    FolderWorld("laion", DinoExtractor("/nowhere"), ClipExtractor("/nowhere"), "/nowhere")


def test_dino_features_are_the_normalised_class_token(dino_folder: Path) -> None:
    import timm

    images = eight_bit(noise(3))
    model = timm.create_model(f"local-dir:{dino_folder}", pretrained=True).eval()
    with torch.no_grad():
        tokens = model.forward_features((images - 0.5) / 0.5)
    extractor = DinoExtractor(dino_folder)
    torch.testing.assert_close(extractor.features(images), tokens[:, 0], atol=BATCH, rtol=0)
    with torch.no_grad():
        expected = model.head(tokens[:, 0])
    torch.testing.assert_close(extractor.logits(images), expected, atol=BATCH, rtol=0)


def test_features_do_not_depend_on_the_batch(dino_folder: Path, clip_folder: Path) -> None:
    images = noise(7)
    one, many = (DinoExtractor(dino_folder, batch=size).features(images) for size in (1, 64))
    torch.testing.assert_close(one, many, atol=BATCH, rtol=0)
    one, many = (ClipExtractor(clip_folder, batch=size).images(images) for size in (1, 64))
    torch.testing.assert_close(one, many, atol=BATCH, rtol=0)


def test_the_protocol_names_weights_pixels_and_precision(dino_folder: Path, clip_folder: Path) -> None:
    dino = DinoExtractor(str(dino_folder)).protocol
    assert dino.startswith("timm:vit_tiny_patch16_224@")
    assert dino.endswith(" pixels=u8>squash32-bicubic>mean0.5,0.5,0.5-std0.5,0.5,0.5 features=cls dtype=fp32")
    assert DinoExtractor(dino_folder, normalize="none").protocol.split("@")[1][12:] == (
        " pixels=u8>squash32-bicubic>raw features=cls dtype=fp32"
    )
    clip = ClipExtractor(clip_folder).protocol
    assert clip.startswith("open_clip:local@")
    assert " gelu pixels=u8>squash32-bicubic>" in clip
    assert clip.endswith(" text=''+prompt[:8] dtype=fp32")


def test_a_protocol_knows_weights_not_folders(dino_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copied, changed = tmp_path / "copied", tmp_path / "changed"
    shutil.copytree(dino_folder, copied)
    shutil.copytree(dino_folder, changed)
    tensors = load_file(changed / "model.safetensors")
    tensors["norm.bias"][0] += 1e-3
    save_file(tensors, changed / "model.safetensors")
    protocol = DinoExtractor(dino_folder).protocol
    assert DinoExtractor(copied).protocol == protocol
    assert DinoExtractor(changed).protocol != protocol


def test_another_image_side_is_read_with_resampled_positions(dino_folder: Path) -> None:
    extractor = DinoExtractor(dino_folder, side=48)
    assert "squash48-bicubic" in extractor.protocol
    assert extractor.features(noise(2, side=64)).shape == (2, 24)


def test_a_linear_head_reads_class_token_and_mean_patch(dino_folder: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    weight, bias = torch.randn(9, 48), torch.randn(9)
    head = tmp_path / "head.safetensors"
    save_file({"classifier.weight": weight, "classifier.bias": bias, "dinov2.unused": torch.zeros(1)}, head)
    images = eight_bit(noise(2))
    model = timm.create_model(f"local-dir:{dino_folder}", pretrained=True).eval()
    with torch.no_grad():
        tokens = model.forward_features((images - 0.5) / 0.5)
    expected = F.linear(torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1), weight, bias)
    extractor = DinoExtractor(dino_folder, head=head)
    torch.testing.assert_close(extractor.logits(images), expected, atol=1e-4, rtol=0)  # 48 products of size one
    assert "head=linear(cls,mean)@" in extractor.logits_protocol


def test_an_encoder_without_classes_says_what_ds_needs(dino_folder: Path, tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 0}
    save_for_hf(timm.create_model("vit_tiny_patch16_224", **sizes), tmp_path, safe_serialization=True)
    bare = DinoExtractor(tmp_path)
    assert bare.features(noise(2)).shape == (2, 24)
    with pytest.raises(BadInput, match="has no classes: give head="):
        bare.logits(noise(2))
    pair = DinoPair(bare, DinoExtractor(dino_folder))
    assert pair.logits(noise(2)).shape == (2, 5)
    assert (pair.protocol, pair.logits_protocol) == (bare.protocol, DinoExtractor(dino_folder).logits_protocol)


def test_clip_embeddings_have_length_one_and_equal_texts_are_equal(clip_folder: Path) -> None:
    clip = ClipExtractor(clip_folder, batch=2)
    texts = clip.texts(["a red circle", "a blue square on white", "a red circle"])
    assert texts.shape == (3, 12)
    torch.testing.assert_close(texts[0], texts[2], atol=BATCH, rtol=0)
    assert not torch.allclose(texts[0], texts[1], atol=1e-3)
    for rows in (texts, clip.images(noise(3, side=64))):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(3), atol=BATCH, rtol=0)


def test_a_prefix_is_read_before_each_text_and_a_long_text_is_cut(clip_folder: Path) -> None:
    plain, prefixed = ClipExtractor(clip_folder), ClipExtractor(clip_folder, prefix="a red ")
    torch.testing.assert_close(prefixed.texts(["circle"]), plain.texts(["a red circle"]), atol=BATCH, rtol=0)
    long = "a red circle on a white square " * 9
    torch.testing.assert_close(plain.texts([long]), plain.texts([long + long]), atol=BATCH, rtol=0)


def test_weights_in_half_precision_are_read_as_float32(clip_folder: Path, dino_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    for folder, name in ((clip_folder, "open_clip_model.safetensors"), (dino_folder, "model.safetensors")):
        shutil.copytree(folder, tmp_path / folder.name)
        halved = {key: value.half() for key, value in load_file(folder / name).items()}
        save_file(halved, tmp_path / folder.name / name)
    assert ClipExtractor(tmp_path / clip_folder.name).images(noise(2)).dtype == torch.float32
    assert DinoExtractor(tmp_path / dino_folder.name).features(noise(2)).dtype == torch.float32


Extract = Callable[[Any], Tensor]


@pytest.mark.parametrize(
    ("extract", "sentence"),
    [
        (lambda at: DinoExtractor(at).features(noise(1)), "has no config.json"),
        (lambda at: DinoExtractor("./no/such/folder").features(noise(1)), "has no config.json"),
        (lambda at: DinoExtractor("no_such_model").features(noise(1)), "neither a folder nor a timm model"),
        (lambda at: ClipExtractor(at).images(noise(1)), "has no open_clip_config.json"),
        (
            lambda at: ClipExtractor("ViT-B-16", "no_such_tag").texts(["a"]),
            "neither a folder nor weights",
        ),
    ],
)
def test_an_extractor_that_is_not_there_is_one_sentence(extract: Extract, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        extract(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "extract",
    [
        lambda: DinoExtractor("vit_base_patch14_dinov2.lvd142m", side=224).features(noise(1)),
        lambda: ClipExtractor("ViT-B-16-quickgelu", "openai").texts(["a"]),
    ],
)
def test_a_name_on_the_hub_without_network_is_one_sentence(
    extract: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match=r"neither in the local hub cache nor can .* be fetched"):
        extract()


def test_damaged_or_pickled_weights_are_one_sentence(dino_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    import shutil

    dino, clip = tmp_path / "dino", tmp_path / "clip"
    for folder, at, name in ((dino_folder, dino, "model"), (clip_folder, clip, "open_clip_model")):
        shutil.copytree(folder, at)
        weights = at / f"{name}.safetensors"
        weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(BadInput, match="cannot be loaded"):
        DinoExtractor(dino).features(noise(1))
    with pytest.raises(BadInput, match="cannot be loaded"):
        ClipExtractor(clip).images(noise(1))
    (dino / "model.safetensors").rename(dino / "pytorch_model.bin")
    (clip / "open_clip_model.safetensors").rename(clip / "open_clip_pytorch_model.bin")
    with pytest.raises(BadInput, match="with weights as safetensors"):
        DinoExtractor(dino).features(noise(1))
    with pytest.raises(BadInput, match="with weights as safetensors"):
        ClipExtractor(clip).images(noise(1))


def test_a_configuration_that_is_not_json_is_one_sentence(dino_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(dino_folder, tmp_path / "dino")
    (tmp_path / "dino" / "config.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read as JSON"):
        DinoExtractor(tmp_path / "dino").features(noise(1))


def test_bytes_and_floats_of_the_same_image_are_the_same_pixels() -> None:
    as_bytes = torch.randint(0, 256, (2, 3, 9, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    as_floats = as_bytes.float() / 255
    assert torch.equal(eight_bit(as_bytes), eight_bit(as_floats))
    assert torch.equal(eight_bit(as_floats + 1e-4), eight_bit(as_floats))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_squash_agrees_with_pil_to_one_grey_level(mode: str) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling[mode.upper()]))
    ours = Pixels((f"squash16-{mode}",))(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    difference = (ours[0].permute(1, 2, 0) * 255 - torch.from_numpy(theirs.copy()).float()).abs()
    assert difference.max() <= 1.01


def test_short_and_crop_keep_the_aspect_ratio_and_the_centre() -> None:
    images = torch.zeros(1, 3, 40, 80)
    images[..., 26:54] = 1.0
    pixels = Pixels(("short20-bilinear", "crop10"))(images)
    assert pixels.shape == (1, 3, 10, 10)
    assert torch.equal(pixels, torch.ones_like(pixels))
    assert str(Pixels(("short20-bilinear", "crop10"))) == "u8>short20-bilinear>crop10>raw"


def test_a_step_that_fits_changes_nothing() -> None:
    images = eight_bit(noise(1, side=16))
    assert torch.equal(Pixels(("squash16-bicubic", "short16-bilinear", "crop16"))(images), images)


@pytest.mark.parametrize("step", ["squash", "squash16", "crop-3", "stretch16-bicubic"])
def test_an_unknown_pixel_step_is_one_sentence(step: str) -> None:
    with pytest.raises(BadInput, match="is unknown: write squash224-bicubic"):
        Pixels((step,))(noise(1))


def test_images_of_the_wrong_shape_or_without_value_are_refused() -> None:
    with pytest.raises(ValueError, match="are not"):
        eight_bit(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="not finite"):
        eight_bit(torch.full((1, 3, 2, 2), torch.nan))
