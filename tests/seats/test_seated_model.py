"""A seated model is still a model: it is copied, averaged, compiled; what cannot be done with it is said."""

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from test_surgery import DENOISERS, assert_unchanged, scaling, snapshot
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import baselines
import deltaconv
from baselines import SelfAttention
from deltaconv import DeltaConvBlock
from harness.records.case import BadInput
from harness.seats.mixer import TokenMixer
from harness.seats.surgery import Seat, seated, seating_of, sites


@pytest.fixture(params=DENOISERS)
def subject(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    make, call = DENOISERS[request.param]
    return make().eval(), call


@torch.no_grad()
def test_a_copy_of_a_seated_denoiser_is_whole_and_goes_its_own_way(subject: Any) -> None:
    denoiser, call = subject
    teacher = denoiser(**call())[0]
    deltaconv.apply(denoiser, kernel_size=3)
    student = denoiser(**call())[0]
    twin = copy.deepcopy(denoiser)
    assert torch.equal(twin(**call())[0], student)
    assert not {id(weight) for weight in twin.parameters()} & {id(weight) for weight in denoiser.parameters()}
    for weight in twin.parameters():
        weight.zero_()
    assert torch.equal(denoiser(**call())[0], student)
    deltaconv.remove(twin)
    assert seating_of(denoiser) is not None
    assert torch.equal(denoiser(**call())[0], student)
    deltaconv.remove(denoiser)
    assert torch.equal(denoiser(**call())[0], teacher)
    assert not any(isinstance(module, Seat) for module in (*twin.modules(), *denoiser.modules()))


@torch.no_grad()
def test_the_teacher_comes_back_in_a_copy(subject: Any) -> None:
    denoiser, call = subject
    teacher = denoiser(**call())[0]
    with seated(denoiser, scaling):
        twin = copy.deepcopy(denoiser)
    deltaconv.remove(twin)
    assert torch.equal(twin(**call())[0], teacher)
    before = snapshot(denoiser)
    before["modules"], before["weights"] = [id(module) for module in twin.modules()], list(twin.state_dict().values())
    assert_unchanged(before, twin)


def test_the_copy_of_a_block_does_not_drag_the_denoiser_along() -> None:
    denoiser = tiny_pipelines.unet()
    with seated(denoiser, scaling):
        memo: dict[int, Any] = {}
        copy.deepcopy(denoiser.down_blocks[0], memo)
    assert id(denoiser.mid_block) not in memo


@torch.no_grad()
def test_an_average_of_a_seated_denoiser_follows_its_mixers(subject: Any) -> None:
    denoiser, call = subject
    with seated(denoiser, scaling) as seats:
        average = AveragedModel(denoiser)
        average.update_parameters(denoiser)
        for seat in seats.values():
            seat.mixer.weight.fill_(3.0)
        average.update_parameters(denoiser)
        weights = [module.mixer.weight for module in average.modules() if isinstance(module, Seat)]
        assert all(torch.equal(weight, torch.full_like(weight, 2.0)) for weight in weights)
        assert average(**call())[0].isfinite().all()


def test_saving_the_model_while_a_variant_is_seated_is_refused_and_works_again_afterwards(tmp_path: Path) -> None:
    pipe = tiny_pipelines.MAKERS["sd"]()
    deltaconv.apply(pipe, kernel_size=3)
    for part in (pipe, pipe.unet, torch.compile(pipe.unet), copy.deepcopy(pipe.unet)):
        with pytest.raises(
            BadInput, match=r"^a variant is seated in this UNet2DConditionModel, and its files would lack"
        ):
            part.save_pretrained(tmp_path / "seated")
    deltaconv.save(pipe, tmp_path / "student")
    deltaconv.remove(pipe)
    pipe.unet.save_pretrained(tmp_path / "unet")
    again = type(pipe.unet).from_pretrained(tmp_path / "unet")
    assert all(map(torch.equal, again.state_dict().values(), pipe.unet.state_dict().values()))


@torch.no_grad()
def test_a_pipeline_with_a_compiled_denoiser_takes_a_student_and_gives_it_back(tmp_path: Path) -> None:
    pipe = tiny_pipelines.MAKERS["sd"]()
    deltaconv.apply(pipe, kernel_size=3)
    folder = deltaconv.save(pipe, tmp_path / "student")
    deltaconv.remove(pipe)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    applied = deltaconv.apply(pipe, folder)
    assert all(path.startswith(("down_blocks", "mid_block", "up_blocks")) for path in applied.mixers)
    deltaconv.remove(pipe)
    assert sites(pipe.unet) == sites(tiny_pipelines.unet())


class Adapted(nn.Module):
    """As peft wraps a linear layer for a LoRA."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base_layer.in_features, 2, bias=False)})

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        made: Tensor = self.base_layer(tokens_BNC)
        return made


@pytest.mark.parametrize("mixer", [DeltaConvBlock, SelfAttention])
def test_a_lora_on_self_attention_is_refused_in_one_sentence_with_the_way_out(mixer: type[TokenMixer]) -> None:
    denoiser = tiny_pipelines.unet()
    path = sites(denoiser)[1].path
    layer = denoiser.get_submodule(path)
    layer.to_q = Adapted(layer.to_q)
    before = snapshot(denoiser)
    sentence = rf"^a LoRA or another adapter sits on to_q of {path} .*: call pipe.fuse_lora\(\) and then pipe.unload"
    with pytest.raises(BadInput, match=sentence):
        baselines.apply(denoiser, mixer)
    assert_unchanged(before, denoiser)
    layer.to_q = layer.to_q.base_layer
    cross = denoiser.get_submodule(path.replace("attn1", "attn2"))
    cross.to_q = Adapted(cross.to_q)
    baselines.apply(denoiser, mixer)
