"""The strong test of laws and counters both: FLOPs and memory of real models follow a + bN + cN² to the last digit."""

from functools import partial

import pytest

from baselines import SelfAttention
from deltaconv import DeltaConvBlock
from harness.counted.flops import Flops
from harness.counted.projected_memory import ProjectedMemory
from harness.distillation.student import Student
from harness.models.dit import PixArtModel
from harness.models.unet import UNetModel
from harness.records.case import Case, Resolution
from harness.trial import Trial
from reports import laws

SIZES = (1024, 2048, 4096, 8192)
COUNTS = [
    (UNetModel("sd15", config="sd15"), SelfAttention, {}),
    (PixArtModel("pixart", config="pixart"), DeltaConvBlock, {"gate": "sigmoid"}),
]


@pytest.fixture(scope="module")
def metrics():
    """The metrics of a run, which count what cases share once."""
    return Flops(), ProjectedMemory()


@pytest.mark.parametrize(("model", "mixer", "settings"), COUNTS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_largest_size_is_predicted_exactly_from_the_three_smaller_ones(model, mixer, settings, metrics):
    for metric in metrics:
        counted = {}
        for side in SIZES:
            case = Case(
                model=model.name,
                variant=mixer.__name__,
                resolution=Resolution(side, side),
                metrics=(metric.name,),
                world="none",
                n=1,
                steps=1,
                guidance=1.0,
                seeds=(0,),
                batch=1,
                dtype="bf16",
                device="cpu",
                weights="shapes",
            )
            student = Student(case.model, case.variant)
            trial = Trial(case, model, partial(mixer.for_site, **settings), None, student)
            counted[side**2] = next(iter(metric(trial))).value
        *seen, largest = counted
        law = laws.through(seen, [counted[pixels] for pixels in seen])
        assert law.at(largest) == pytest.approx(counted[largest], rel=1e-9), metric.name
        if metric.name == "flops":
            assert (law.quadratic > 0) == mixer.exact
