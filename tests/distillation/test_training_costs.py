"""What training takes: no more memory for more images, and little more time than its calls of teacher and mixers.

pytest --slow -s tests/distillation/test_training_costs.py
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

import conf
from deltaconv import DeltaConvBlock
from harness.distillation.pair import Pair
from harness.distillation.recipe import Recipe
from harness.distillation.resume import Trained
from harness.distillation.samples import Samples
from harness.distillation.stages import Layerwise, Stage
from harness.distillation.training import Loss, Schedule, _step
from harness.records.case import Resolution
from harness.seats.capture import attention
from harness.shapes.world import ShapesWorld

SCRIPT = Path(__file__).with_name("distil_on_a_folder.py")
CONF = Path(conf.__path__[0])
SIZE = Resolution(64, 64)


def flat_colours(folder: Path, n: int) -> None:
    folder.mkdir()
    for i in range(n):
        Image.new("RGB", (64, 64), (i % 256, i // 256, 0)).save(folder / f"{i}.png", compress_level=0)
    rows = ({"file_name": f"{i}.png", "text": f"colour {i}"} for i in range(n))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_times_the_images_take_no_more_memory(tmp_path: Path) -> None:
    teacher = tiny_pipelines.save("sd", tmp_path / "teacher")
    flat_colours(tmp_path / "images", 20_000)

    def peak(n: int) -> int:
        places = os.pathsep.join([str(SCRIPT.parents[1]), *sys.path])
        given = {"DELTABENCH_CACHE": str(tmp_path / f"cache{n}"), "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(SCRIPT), str(teacher), str(tmp_path / "images"), str(n)]
        return int(subprocess.check_output(command, env=os.environ | given, text=True).splitlines()[-1])

    few, many = peak(2_000), peak(20_000)
    print(f"\n2,000 images: {few / 1e6:.0f} MB at the peak, 20,000: {many / 1e6:.0f} MB, ratio {many / few:.3f}")
    # Their latents and text states, held in memory, would be 4 % of it.
    assert many < 1.02 * few


@pytest.fixture
def pair(cache: Path) -> Pair:
    model = instantiate(OmegaConf.load(CONF / "model" / "tiny_pixart.yaml")).load()
    world = ShapesWorld("shapes", None, None)  # type: ignore[arg-type]
    block = partial(DeltaConvBlock.for_site, **model.presets["deltaconv"])
    return Pair(model, block, Samples(model, world, [SIZE], 256, 32, 0.1, 5))


def bare(pair: Pair, stage: Stage, step: Callable[[], object]) -> Callable[[], None]:
    """The teacher's forward pass as in a step, and forward and backward of the mixers: alone, or in their student."""
    arguments: dict[str, Any] = {}
    hook = pair.teacher.register_forward_pre_hook(lambda *call: arguments.update(call[-1]), with_kwargs=True)
    with attention(pair.teacher, pair.learners) as kept:
        step()
    hook.remove()
    tokens = {path: before for path, (before, _) in kept.items()}

    def work() -> None:
        with torch.no_grad():
            pair.teacher(**arguments)
        if isinstance(stage, Layerwise):
            for path, mixer in pair.learners.items():
                mixer(tokens[path], pair.grids[SIZE][path]).sum().backward()
        else:
            pair.student(**arguments)[0].sum().backward()
        for mixer in pair.learners.values():
            mixer.zero_grad()

    return work


def steps(module: nn.Module, loss: Loss, schedule: Schedule) -> Callable[[], object]:
    """The next step of a training, at each call."""
    parameters = dict(module.named_parameters())
    average = {key: value.detach().clone() for key, value in parameters.items()}
    trained, numbers = Trained(parameters, average, schedule.optimizers(module)), count()
    return lambda: _step(trained, loss, schedule, next(numbers))


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ours", "paper", "grafting"])
def test_a_step_takes_at_most_115_percent_of_a_bare_loop(name: str, pair: Pair) -> None:
    recipe: Recipe = instantiate(OmegaConf.load(CONF / "train" / f"{name}.yaml"), _convert_="all")
    for stage in recipe.stages:
        with pair.learning() as module, stage.opened(pair) as loss:
            whole = steps(module, loss, replace(stage.schedule, precision="fp32"))
            alone = bare(pair, stage, whole)
            taken = [[seconds(work) for work in (whole, alone, alone, whole)] for _ in range(12)][2:]
        low, middle, high = statistics.quantiles([(a + d) / (b + c) for a, b, c, d in taken], n=4)
        print(f"{name}, {stage.title}: {middle:.3f} of a bare loop (quartiles {low:.3f} to {high:.3f})")
        assert middle < 1.15
