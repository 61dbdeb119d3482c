"""A student that is taught along its own way walks as diffusers' DDIM does, and is compared as guidance compares."""

from functools import partial
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from diffusers import DDIMScheduler
from worlds import Noise

from deltaconv import DeltaConvBlock
from harness.distillation.own_samples import OwnSamples, Walk
from harness.distillation.pair import Pair
from harness.distillation.samples import Samples
from harness.distillation.training import Schedule
from harness.records.case import Resolution

SIZE = Resolution(32, 32)
STAGE = OwnSamples(Schedule(8, 1e-3), guidance=3.0, path=10, window=4, output=1.0, feature=0.0)


def pair_in(folder: Path) -> Pair:
    model = tiny_pipelines.model("sd", folder / "teacher").load()
    samples = Samples(model, Noise(), [SIZE], 4, 2, 0.0, 5)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return Pair(model, partial(DeltaConvBlock.for_site, kernel_size=3), samples)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_walk_is_that_of_ddim(kind: str, tmp_path: Path) -> None:
    pair = pair_in(tmp_path)
    ddim = DDIMScheduler(1001, prediction_type=kind, clip_sample=False)
    ddim.set_timesteps(10)
    pair.model.noise_schedule = ddim  # type: ignore[misc]
    walk = Walk(pair, SIZE, window=0, path=10)
    walk.steps_B, walk.offset_B = torch.tensor([1, 4]), torch.zeros(2)
    assert walk.times(walk.steps_B).tolist() == [1000, 700]
    before, predicted = walk.noisy_BChw, torch.randn_like(walk.noisy_BChw)
    walk.go(predicted, step=0)
    for row, time in enumerate((1000, 700)):
        expected = ddim.step(predicted[row : row + 1], time, before[row : row + 1]).prev_sample
        # alphas near zero divide: in fp32 that costs some of the last digits.
        torch.testing.assert_close(walk.noisy_BChw[row : row + 1], expected, rtol=1e-4, atol=1e-3)
    assert walk.steps_B.tolist() == [2, 5]


def test_who_has_arrived_begins_again_at_noise_with_another_caption(tmp_path: Path) -> None:
    walk = Walk(pair_in(tmp_path), SIZE, window=0, path=10)
    walk.steps_B = torch.tensor([10, 3])
    before = walk.noisy_BChw
    walk.go(torch.zeros_like(before), step=0)
    assert walk.steps_B.tolist() == [0, 4]
    assert walk.times(walk.steps_B)[0] == walk.schedule.config.num_train_timesteps - 1
    assert not torch.equal(walk.noisy_BChw[0], before[0])


def test_walks_meet_all_times(tmp_path: Path) -> None:
    walk = Walk(pair_in(tmp_path), SIZE, window=0, path=10)
    walk.offset_B = torch.linspace(0, 1, 201)
    times = torch.cat([walk.times(torch.full((201,), step)) for step in range(11)]).sort().values
    assert times[0] == 0
    assert times[-1] == 999
    assert int(times.diff().max()) <= 1


def test_the_loss_is_the_error_of_the_guided_prediction(tmp_path: Path) -> None:
    pair = pair_in(tmp_path)
    with STAGE.opened(pair) as loss:
        found = loss(0)
    walk = Walk(pair, SIZE, window=0, path=10)
    with torch.no_grad():
        errors = pair.student(**walk.arguments())[0] - pair.teacher(**walk.arguments())[0]
    captioned, plain = errors.chunk(2)
    assert isinstance(found, torch.Tensor)
    # 3 e_c - 2 e_u has 3^2 + 2^2 times the variance of errors that have nothing in common.
    torch.testing.assert_close(found, (3 * captioned - 2 * plain).square().mean() / 13)


def test_what_begins_at_a_window_sees_what_an_unbroken_training_sees(tmp_path: Path) -> None:
    pair = pair_in(tmp_path)
    with STAGE.opened(pair) as loss:
        unbroken = [loss(step) for step in range(8)]
    with STAGE.opened(pair) as loss:
        resumed = [loss(step) for step in range(4, 8)]
    assert [float(a) for a in unbroken[4:]] == [float(b) for b in resumed]  # type: ignore[arg-type]
    assert len({float(each) for each in unbroken}) == 8  # type: ignore[arg-type]
