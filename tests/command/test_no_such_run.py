"""What no run can be made of is refused when the experiment is made, and not after hours of measuring."""

from dataclasses import replace
from typing import Any

import pytest
from test_identity import experiment

from harness.check import check
from harness.experiment import Experiment
from harness.judged.dino_score import DinoScore
from harness.judged.distances import Distances
from harness.judged.patches import PatchFdd
from harness.judged.spectrum import Spectrum
from harness.judged.trajectory import Trajectory
from harness.locality.sensitivity import Sensitivity
from harness.measured.peak_memory import PeakMemory
from harness.records.case import BadInput


@pytest.fixture(scope="module")
def whole() -> Experiment:
    return experiment("models=[tiny_sd]", "variants=[deltaconv]", "metrics=[flops]", "tracker=none")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seeds": [0, 0]}, r"seeds=\[0, 0\] is not possible: give each once"),
        ({"seeds": [10**13]}, r"seeds=\[10{13}\] is not possible: give each once, and none above 10{12}$"),
        ({"resolutions": ["9" * 5000]}, r"is not a size"),
        ({"cpu_limits": {"tiny_sd": {"flops": 0}}}, "nothing is left to take: give other resolutions="),
    ],
)
def test_a_run_that_would_take_nothing_or_one_thing_twice_is_refused(
    whole: Experiment, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        replace(whole, **settings).jobs()


@pytest.mark.parametrize(("group", "old"), [("models", "tiny_sd"), ("metrics", "flops")])
def test_a_copy_that_still_has_the_name_of_what_it_was_copied_from_is_refused(
    whole: Experiment, group: str, old: str
) -> None:
    held = replace(whole.catalog, **{group: {"mine": getattr(whole.catalog, group)[old]}})
    with pytest.raises(BadInput, match=rf"{group[:-1]} 'mine' has name: {old}, .*: write name: mine"):
        replace(whole, catalog=held, **{group: ["mine"]})


def test_sizes_that_a_model_cannot_learn_at_are_refused_before_the_first_case(whole: Experiment) -> None:
    assert whole.train is not None
    recipe = replace(whole.train, sizes=[63])
    (job, *_) = replace(whole, variants=["pooling"], metrics=["clip_score"], train=recipe).jobs()
    with pytest.raises(BadInput, match="tiny_sd cannot make 63 pixels"):
        check([job], lambda said: None)


def test_a_sampler_that_a_checkpoint_cannot_be_sampled_by_is_refused_before_the_first_case(whole: Experiment) -> None:
    (job, *_) = replace(whole, variants=["self_attention"], metrics=["clip_score"], sampler="heun").jobs()
    with pytest.raises(BadInput, match="sampler 'heun' cannot make images of this checkpoint"):
        check([job], lambda said: None)


def test_a_run_that_measures_nothing_and_trains_nothing_is_refused(whole: Experiment) -> None:
    assert whole.train is not None
    with pytest.raises(BadInput, match=r"^metrics=\[\] only trains, which train\.on_demand=false forbids"):
        replace(whole, metrics=[], train=replace(whole.train, on_demand=False))
    with pytest.raises(BadInput, match="no metric was given: choose from"):
        replace(whole, metrics=[], train=None)


@pytest.mark.parametrize(
    ("metric", "setting"),
    [
        (DinoScore, "splits"),
        (Distances, "k"),
        (PatchFdd, "each"),
        (Spectrum, "rings"),
        (Trajectory, "images"),
        (PeakMemory, "most"),
    ],
)
def test_a_metric_of_nothing_is_refused(metric: Any, setting: str) -> None:
    with pytest.raises(BadInput, match=rf"\w+\.{setting}=0 is not possible: give at least"):
        metric(**{setting: 0})


@pytest.mark.parametrize("times", [(), (1000,), (-1,)])
def test_times_that_a_model_does_not_have_are_refused_for_sensitivity_too(
    whole: Experiment, times: tuple[int, ...]
) -> None:
    held = replace(whole.catalog, metrics={"sensitivity": Sensitivity(times=times)})
    with pytest.raises(BadInput, match=r"sensitivity.times=.* is not possible with tiny_sd: give training timesteps"):
        replace(whole, catalog=held, metrics=["sensitivity"]).jobs()
