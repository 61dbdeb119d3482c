"""The student is asked where its teacher walked: nothing between equals, something at every step between others."""

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_pipelines import KINDS, PROMPTS, SEEDS, TALL, save

import baselines
from harness.judged.trajectory import Trajectory, recorded, relative_error
from harness.seats.surgery import seated

# The schedulers of diffusers hand tensors to numpy (numpy 2 migration guide).
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def trial(model, factory, **more):
    @contextmanager
    def denoiser():
        with seated(model.denoiser, factory):
            yield model.denoiser

    case = SimpleNamespace(
        n=4, steps=3, guidance=2.0, resolution=TALL, device="cpu", dtype="fp32", variant="v", model="m"
    )
    given = {"trained": True, "untrained_allowed": False, "exact": False} | more
    return SimpleNamespace(case=case, model=model, denoiser=denoiser, prompts=PROMPTS, seeds=SEEDS, **given)


@pytest.mark.parametrize("kind", ["sd", "sigma"])
def test_equals_do_not_differ_and_others_do_at_every_step(kind, tmp_path):
    model = KINDS[kind]("tiny", source=str(save(kind, tmp_path)))
    (same,) = Trajectory(images=2)(trial(model, partial(baselines.SelfAttention.for_site)))
    (other,) = Trajectory(images=2)(trial(model, partial(baselines.GlobalPooling.for_site)))
    assert same.value < 1e-8 < other.value
    assert len(other.details["by_call"]) == 3
    assert min(other.details["by_call"]) > 0
    assert len(other.samples) == other.n == 2
    assert other.value == pytest.approx(sum(other.samples) / 2)


def test_the_teacher_and_an_untrained_student_are_asked_for_nothing():
    (teacher,) = Trajectory()(trial(None, None, exact=True))
    (untrained,) = Trajectory()(trial(None, None, trained=False))
    assert "compared with" in teacher.reason
    assert "an untrained student has no quality" in untrained.reason


def test_recording_leaves_no_hook_behind_also_after_an_exception():
    module = torch.nn.Linear(2, 2)

    def fail():
        with recorded(module):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not module._forward_hooks
    assert relative_error(torch.ones(2), torch.full((2,), 2.0)) == pytest.approx(0.25)
