"""What is shipped is what its recipe says: the figures that stand beside the weights are reproduced from them."""

import json
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate

from harness import shapes
from harness.__main__ import catalog

WEIGHTS = Path(shapes.__path__[0]) / "weights"
LEARNED = sorted(path.parent.name for path in WEIGHTS.glob("*/figures.json"))
INSIDE = {"autoencoder": "tiny_sd/vae"}
"""What is shipped as a part of a pipeline alone."""
TEACHERS = {"tiny_sd": 0.95, "tiny_pixart": 0.90}
"""What each obeys at least: the share of attributes over 64 captions."""
ONE_SIZE = ("resolutions=[64]",)


@pytest.fixture(scope="module")
def composed():
    ConfigStore.instance().store(name="catalog", node=catalog(sys.argv[:1]), package="catalog")
    with initialize_config_module("conf", version_base="1.3"):
        yield lambda *overrides: instantiate(compose("config", overrides=list(overrides)), _convert_="all")


@pytest.fixture(scope="module")
def quality(composed):
    """Readings of a metric at 64 pixels, by model and variant; 64 images each."""

    def take(metric, model, variant, **settings):
        given = [f"{name}={value}" for name, value in settings.items()]
        experiment = composed("+sweep=quality", f"models=[{model}]", f"variants=[{variant}]", *ONE_SIZE, "n=64", *given)
        (job,) = experiment.jobs()
        return next(iter(job.metrics[metric](job.trial())))

    return take


def test_something_is_shipped():
    assert {"autoencoder", "vit", "clip", "probe"} <= set(LEARNED)
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 24 * 2**20


@pytest.mark.parametrize("name", LEARNED)
def test_the_figures_beside_the_weights_are_reproduced(composed, name):
    part = composed(f"train={name}").train
    found = part.training.figures(WEIGHTS / INSIDE.get(name, name))
    # Another processor or thread count moves single roundings: a hundredth is far above them, far below a mistake.
    assert found == pytest.approx(json.loads((WEIGHTS / name / "figures.json").read_text()), rel=0.01)


@pytest.mark.parametrize("model", TEACHERS)
def test_a_teacher_obeys_captions_that_it_never_saw(quality, model):
    reading = quality("attributes", model, "self_attention")
    assert reading.value > TEACHERS[model] > 3 * reading.details["chance"]


def test_an_untrained_student_is_visibly_worse(quality):
    trained = quality("attributes", "tiny_pixart", "deltaconv").value
    untrained = quality("attributes", "tiny_pixart", "deltaconv", **{"untrained": "true", "train.seed": 99}).value
    assert untrained < 0.7 * trained
