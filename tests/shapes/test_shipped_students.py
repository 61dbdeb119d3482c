"""The shipped students are named by what made them, and stand in for the default recipe's and no others."""

import json

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate

from harness.__main__ import catalog
from harness.distillation.shelf import students
from harness.distillation.student import SHIPPED
from harness.seats.sources import header_of

LISTED = json.loads((SHIPPED / "students.json").read_text(encoding="utf-8"))


@pytest.fixture
def job_of(monkeypatch, tmp_path):
    """The case of a shipped student's model and variant by the settings that are given; the cache is empty."""
    monkeypatch.setenv("DELTABENCH_CACHE", str(tmp_path))
    ConfigStore.instance().store(name="catalog", node=catalog([]), package="catalog")

    def take(name, *settings):
        model, variant = name.split("-")
        chosen = [f"models=[{model}]", f"variants=[{variant}]", "resolutions=[64]", "metrics=[clip_score]"]
        with initialize_config_module("conf", version_base="1.3"):
            config = compose("config", overrides=["+sweep=quality", *chosen, *settings])
        (job,) = instantiate(config, _convert_="all").jobs()
        return job

    return take


def test_every_student_is_listed_with_what_made_it(capsys):
    assert {file.stem for file in SHIPPED.glob("*.safetensors")} == LISTED.keys()
    students([])
    lines = capsys.readouterr().out
    for said in LISTED.values():
        assert f"made by {said['settings']}, stands for {said['stands_for']} (the default recipe's)" in lines


@pytest.mark.parametrize("name", LISTED)
def test_a_student_is_named_by_the_settings_that_made_it(job_of, name):
    said, header = LISTED[name], header_of(SHIPPED / f"{name}.safetensors")
    made = job_of(name, *said["settings"].split()).student
    assert (made.key, made.ingredients) == (said["key"], header["ingredients"])
    assert (header["key"], made.path) == (said["key"], made.shipped)


@pytest.mark.parametrize("name", LISTED)
def test_a_student_stands_in_for_that_of_the_default_recipe(job_of, name):
    job = job_of(name)
    assert job.student.path == SHIPPED / f"{name}.safetensors"
    assert job.case.weights.endswith(f"+{LISTED[name]['key']}")
    assert not job.trains
    forced = job_of(name, "train.force=true")
    assert (forced.student.key, forced.trains) == (LISTED[name]["stands_for"], True)


@pytest.mark.parametrize("name", ["tiny_sd-deltaconv", "tiny_pixart-deltaconv"])
def test_no_student_stands_in_where_recipes_are_compared(job_of, name):
    own = job_of(name, "recipes=[ours]")
    assert (own.student.key, own.student.path, own.trains) == (LISTED[name]["stands_for"], None, True)
    (budget,) = (word for word in LISTED[name]["settings"].split() if word.startswith("train.steps"))
    longer = job_of(name, "recipes=[shipped]", budget)
    assert (longer.student.path, longer.trains) == (longer.student.shipped, False)
