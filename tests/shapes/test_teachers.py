"""The tiny teachers: trained on from a saved pipeline, at several sizes, and on again where they were stopped."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from harness.distillation.training import Schedule
from harness.records.case import BadInput
from harness.shapes.captions import held_out_scenes
from harness.shapes.teachers import TeacherTraining, latents_of

SHIPPED = "pkg://harness.shapes/weights/tiny_{}"
FOUR_STEPS = Schedule(steps=4, learning_rate=1e-3, matrix_rate=0.02, warmup=1, precision="fp32", save_every=2)


class Stopped(RuntimeError):
    """What a test raises in the middle of a run."""


def training(family, kind=TeacherTraining, **settings):
    return kind(family, FOUR_STEPS, family, start=SHIPPED.format(family), sizes={16: 1, 32: 3}, batch=2, **settings)


class StoppedAtTheThird(TeacherTraining):
    def size(self, step):
        if step == 2:
            raise Stopped
        return super().size(step)


def weights_of(folder, part):
    return load_file(folder / part / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(("family", "part"), [("sd", "unet"), ("pixart", "transformer")])
def test_a_teacher_that_was_stopped_ends_as_an_unbroken_one_and_its_autoencoder_never_moves(tmp_path, family, part):
    from harness.models import weights

    scenes = held_out_scenes(4)
    reading = replace(FOUR_STEPS, matrix_rate=None) if family == "pixart" else None
    training(family, reading=reading).run(tmp_path / "a", scenes, tmp_path / "a.safetensors", "cpu")
    with pytest.raises(Stopped):
        training(family, StoppedAtTheThird, reading=reading).run(
            tmp_path / "b", scenes, tmp_path / "b.safetensors", "cpu"
        )
    training(family, reading=reading).run(tmp_path / "b", scenes, tmp_path / "b.safetensors", "cpu")
    begun = weights.fetch(SHIPPED.format(family), family)
    one, other = weights_of(tmp_path / "a", part), weights_of(tmp_path / "b", part)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not all(torch.equal(value, one[name].half()) for name, value in weights_of(begun, part).items())
    vae, before = weights_of(tmp_path / "a", "vae"), weights_of(begun, "vae")
    assert all(torch.equal(value.half(), before[name].half()) for name, value in vae.items())
    assert not any("name_or_path" in path.read_text() for path in (tmp_path / "a").rglob("*.json"))


def test_sizes_take_their_shares_of_the_steps():
    sizes = Counter(training("sd").size(step) for step in range(2000))
    assert set(sizes) == {16, 32}
    assert sizes[32] / 2000 == pytest.approx(0.75, abs=0.04)  # four standard deviations


def test_latents_have_the_size_that_was_asked_for():
    vae = training("sd")._pipeline().vae
    scenes = held_out_scenes(3)
    wide = latents_of(vae, scenes, 128, batch=2)
    assert wide.shape == (3, 4, 32, 32)
    assert wide.std() == pytest.approx(float(latents_of(vae, scenes, 64).std()), rel=0.05)


def test_a_teacher_with_nothing_to_begin_with_is_refused(tmp_path):
    bare = TeacherTraining("sd", FOUR_STEPS, "tiny_sd")
    with pytest.raises(BadInput, match="nothing to begin with: give start= a pipeline folder, or autoencoder="):
        bare.run(tmp_path / "out", held_out_scenes(2), tmp_path / "x.safetensors", "cpu")
