"""What scores are made of: noise on weights, another sampler and another extractor each change their own part alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from baselines import LinFusionAttention
from harness.distillation.student import Student
from harness.judged.ingredients import Ingredients, of_values
from harness.models.unet import UNetModel
from harness.regression.quality import changes
from harness.trial import Trial

SOURCE = "pkg://harness.shapes/weights/tiny_sd"


@pytest.fixture(scope="module")
def models():
    return {sampler: UNetModel("tiny_sd", SOURCE, sampler=sampler) for sampler in ("dpm++", "ddim")}


@pytest.fixture
def made_of(models, make_case):
    """The reading of a LinFusion student whose images are given, so that none has to be made."""

    def make(sampler="dpm++", clip="clip a", noise=0.0, caption="a"):
        def factory(site, attention):
            torch.manual_seed(0)
            mixer = LinFusionAttention.for_site(site, attention)
            with torch.no_grad():
                for weight in mixer.parameters():
                    weight += noise * torch.randn_like(weight)
            return mixer

        judges = {"clip": SimpleNamespace(protocol=clip), "dino": SimpleNamespace(protocol="dino")}
        world = SimpleNamespace(**judges, prompts=lambda n: [caption] * n)
        case = make_case(variant="linfusion", mixer="linfusion")
        trial = Trial(case, models[sampler], factory, world, Student("tiny_sd", "linfusion"), untrained_allowed=True)
        (reading,) = Ingredients()(trial)
        return reading

    return make


def test_the_same_is_made_of_the_same_and_each_change_shows_in_its_own_part(made_of):
    before = made_of()
    assert changes(made_of(), before) == {}
    (noisy,) = changes(made_of(noise=0.01), before)
    first = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    assert noisy == f"the weights of LinFusionAttention at {first} and 6 more"
    assert list(changes(made_of(clip="clip b"), before)) == ["the CLIP extractor"]
    assert list(changes(made_of(caption="b"), before)) == ["the captions"]
    changed = changes(made_of(sampler="ddim"), before)
    assert list(changed) == ["the sampler"]
    assert changed["the sampler"].startswith("DPMSolverMultistepScheduler ")
    assert " -> DDIMScheduler " in changed["the sampler"]


def test_an_untrained_student_is_a_dash_as_its_quality_is(made_of, models, make_case):
    world = SimpleNamespace()
    trial = Trial(make_case(), models["dpm++"], LinFusionAttention.for_site, world, Student("tiny_sd", "linfusion"))
    (reading,) = Ingredients()(trial)
    assert reading.value is None
    assert "untrained student" in reading.reason
    assert changes(replace(reading, value=None), None) is None


def test_values_are_told_apart_by_name_shape_and_content():
    one = torch.ones(2, 3)
    digests = [of_values(state) for state in ({"a": one}, {"b": one}, {"a": one.T}, {"a": one + 1e-6})]
    assert len(set(digests)) == 4
    assert of_values({"a": one}) == of_values({"a": one.clone()})
