"""What a student's file says it was made with is what it may be used with: another mixer or setting is refused."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from torch import nn

import baselines
import deltaconv
from baselines import LinFusionAttention, NeighborhoodAttention, ReLULinearAttention, hybrid
from deltaconv import DeltaConvBlock
from harness.distillation.student import Student, ingredients
from harness.records.case import BadInput
from harness.seats.checkpoint import Checkpoint, Weighted, read
from harness.seats.surgery import seated, sites

NEAR = partial(NeighborhoodAttention.for_site, kernel_size=3)
BLOCK = partial(DeltaConvBlock.for_site, kernel_size=3)
WIDE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture
def unet() -> nn.Module:
    torch.manual_seed(0)
    return tiny_pipelines.unet()


def saved(unet: nn.Module, factory: partial[Any], folder: Path) -> Path:
    """A student as the door writes it."""
    baselines.apply(unet, factory.func.__self__, **factory.keywords)  # type: ignore[attr-defined]
    baselines.save(unet, folder)
    baselines.remove(unet)
    return folder


def trained(unet: nn.Module, factory: partial[Any], folder: Path) -> Path:
    """A student as the harness writes it."""
    path = folder / "student.safetensors"
    with seated(unet, factory) as seats:
        mixers = {site: seat.mixer for site, seat in seats.items()}
    Student("tiny", "x", ingredients(None, "abc", factory, "noise")).save(mixers, path, {})
    return path


def fill(unet: nn.Module, factory: partial[Any], source: Path) -> int:
    """At how many sites the factory takes the file's weights."""
    weighted = Weighted(factory, read(source))
    with seated(unet, weighted):
        return weighted.account().sites


@pytest.mark.parametrize("write", [saved, trained])
def test_a_student_of_another_mixer_is_refused_though_its_weights_would_fit(
    unet: nn.Module, tmp_path: Path, write: Any
) -> None:
    source = write(unet, NEAR, tmp_path)
    sentence = rf"^{source} is a student of NeighborhoodAttention, not of ReLULinearAttention: apply it as what it is$"
    with pytest.raises(BadInput, match=sentence):
        fill(unet, partial(ReLULinearAttention.for_site), source)
    with pytest.raises(BadInput, match=sentence):
        baselines.apply(unet, ReLULinearAttention, source)
    assert fill(unet, NEAR, source) == len(sites(unet))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"gate": "sigmoid"}, "gate=scaled, not with gate=sigmoid"),
        ({"scales": (1, "1/3")}, r"scales=\[1.0, 0.5\], not with scales=\[1, '1/3'\]"),
        ({"gate": "sigmoid", "kernel_size": 5}, "gate=scaled, kernel_size=3, not with gate=sigmoid, kernel_size=5"),
        ({"kernel_size": {"mid_block": 3, "*": 5}}, "kernel_size=3, not with kernel_size=5"),
    ],
)
@pytest.mark.parametrize("write", [saved, trained])
def test_a_student_with_other_settings_is_refused_naming_both_also_where_a_default_differs(
    unet: nn.Module, tmp_path: Path, write: Any, other: dict[str, Any], sentence: str
) -> None:
    source = write(unet, BLOCK, tmp_path)
    with pytest.raises(BadInput, match=rf"^{source} is a student with {sentence}, at site {WIDE}: give it"):
        fill(unet, partial(DeltaConvBlock.for_site, **{"kernel_size": 3, **other}), source)


def test_settings_that_say_the_same_in_other_words_agree(unet: nn.Module, tmp_path: Path) -> None:
    source = trained(unet, partial(BLOCK, gate="sigmoid", backend="torch"), tmp_path)
    same = partial(DeltaConvBlock.for_site, kernel_size={"mid_block|down_blocks": 3, "*": 3}, scales=[1, 0.5])
    assert fill(unet, partial(same, gate="sigmoid"), source) == len(sites(unet))
    source = saved(unet, partial(LinFusionAttention.for_site, inherit=False), tmp_path / "linear")
    assert fill(unet, partial(LinFusionAttention.for_site, inherit=True), source) == len(sites(unet))


def test_what_somebody_chooses_on_purpose_counts(unet: nn.Module, tmp_path: Path) -> None:
    source = saved(unet, NEAR, tmp_path)
    applied = baselines.apply(unet, NeighborhoodAttention, source, kernel_size=5)
    assert {mixer.kernel_size for mixer in applied.mixers.values()} == {5}


def test_a_hybrid_of_other_choices_is_refused(unet: nn.Module, tmp_path: Path) -> None:
    choices = {"near": NEAR, "block": BLOCK, "self_attention": partial(baselines.SelfAttention.for_site)}
    made = partial(hybrid.for_site, sites={"mid_block": "block", "*": "near"}, choices=choices)
    source = trained(unet, made, tmp_path)
    assert fill(unet, made, source) == len(sites(unet))
    wider = choices | {"near": partial(NEAR, kernel_size=5)}
    with pytest.raises(BadInput, match=r"is a student with choices=.*'kernel_size': 3.*, not with .*: give it"):
        fill(unet, partial(made, choices=wider), source)
    with pytest.raises(BadInput, match=r"is a student with sites=near, not with sites=self_attention, at site down"):
        fill(unet, partial(made, sites={"mid_block": "block", "*": "self_attention"}), source)


def test_a_student_that_cannot_be_understood_is_refused_in_a_sentence() -> None:
    later = Checkpoint("file", {}, {"format": "deltabench student, version 2", "mixer": "DeltaConvBlock"})
    with pytest.raises(
        BadInput,
        match=r"^file is a 'deltabench student, version 2', and 'deltabench student, version 1' is what can be read: ",
    ):
        Weighted(BLOCK, later)
    half = "file is a student that does not say its mixer and settings"
    for told in ({"parameters": {}}, {"mixer": "a.B.for_site"}, {"mixer": "B", "parameters": {}}, ["mixer"]):
        with pytest.raises(BadInput, match=rf"^{half} \(\w+: .*\): train or save it again$"):
            Weighted(BLOCK, Checkpoint("file", {}, header={"ingredients": json.dumps(told)}))
    with pytest.raises(BadInput, match=rf"^{half} \(JSONDecodeError"):
        Weighted(BLOCK, Checkpoint("file", {}, header={"ingredients": "{"}))
    with pytest.raises(BadInput, match=rf"^{half} \(KeyError: 'mixer'\)"):
        Weighted(BLOCK, Checkpoint("file", {}, {"format": "deltabench student, version 1"}))


def test_a_saved_student_leaves_the_backend_of_its_machine_behind(unet: nn.Module, tmp_path: Path) -> None:
    saved(unet, partial(BLOCK, backend="torch"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["settings"] == {"kernel_size": 3}
    assert "backend" not in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert {mixer.backend for mixer in deltaconv.apply(unet, tmp_path).mixers.values()} == {"auto"}
