"""A job carries all that it needs: it goes through pickle into another interpreter and gives the same record there."""

import io
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from slow_and_deadly import Counts
from test_conf import SWEEPS
from test_identity import experiment
from test_run import Brightness, made, streams

from harness.check import check
from harness.console import Console
from harness.distillation.recipe import Recipe
from harness.distillation.stages import Layerwise
from harness.distillation.training import Schedule
from harness.job import Job, run_case
from harness.records.machine import describe
from harness.records.record import Reading, Record
from harness.records.store import Store
from harness.regression.gate import Gate
from harness.run import run

__all__ = ["made"]
pytestmark = pytest.mark.usefixtures("cache")
ELSEWHERE = """
import pickle, sys
from harness.job import run_case
with open(sys.argv[1], "rb") as file:
    record = run_case(pickle.load(file))
with open(sys.argv[2], "wb") as file:
    pickle.dump(record, file)
"""


def facts(record: Record) -> Record:
    """A record without when it was taken, and what other processes did meanwhile."""
    readings = tuple(replace(reading, origin={}) for reading in record.readings)
    return replace(record, readings=readings, machine={}, started="", elapsed_s=0.0, seconds={})


def test_a_job_in_a_fresh_interpreter_gives_the_same_record(tmp_path: Path) -> None:
    chosen = ["models=[tiny_sd]", "variants=[linfusion]", "resolutions=[64]", "metrics=[flops,clip_score]", "n=8"]
    (job,) = experiment(*chosen, "steps=1", "untrained=true", "tracker=none", f"out={tmp_path}").jobs()
    (tmp_path / "records").mkdir()
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    subprocess.run([sys.executable, "-c", ELSEWHERE, tmp_path / "job", tmp_path / "record"], check=True)
    there = pickle.loads((tmp_path / "record").read_bytes())
    assert there.status == "ok", there.reason
    assert facts(there) == facts(run_case(job))
    assert {reading.metric for reading in there.readings} == {"flops", "clip_score"}
    captions = {reading.details.get("captions") for reading in there.readings if reading.metric == "clip_score"}
    assert captions == {job.trial().captions}
    longer = replace(job, case=replace(job.case, n=9)).trial()
    assert longer.captions not in captions


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_job_of_every_sweep_can_be_pickled(sweep: str) -> None:
    jobs = experiment(f"+sweep={sweep}", "dry_run=true").jobs()  # which fetches nothing
    back: list[Job] = pickle.loads(pickle.dumps(jobs))
    assert [job.case for job in back] == [job.case for job in jobs]
    assert [job.identities for job in back] == [job.identities for job in jobs]


def test_a_loaded_model_travels_without_what_it_loaded(made: Any) -> None:
    (job, *_) = made({"brightness": Brightness()}).jobs()
    before = len(pickle.dumps(job.model))
    job.model.load()
    job.model.on_meta()
    assert len(pickle.dumps(job.model)) == before


def test_bad_settings_of_a_factory_are_found_before_the_first_case(made: Any, tmp_path: Path) -> None:
    def broken(site: Any, attention: Any) -> Any:
        raise TypeError("unsupported operand")

    catalog = made({"counts": Counts()}).catalog
    variants = {**catalog.variants, "broken": partial(broken)}
    asked = replace(made({"counts": Counts()}), catalog=replace(catalog, variants=variants))
    asked = replace(asked, variants=["self_attention", "broken"])
    with pytest.raises(ValueError, match=r"^broken cannot be made on tiny \(TypeError: unsupported operand\)$"):
        run(asked, streams()[0])
    assert Store(tmp_path / "out").records() == []


def test_a_message_about_a_preset_names_it_and_what_changes_it() -> None:
    asked = experiment("models=[tiny_sd]", "variants=[deltaconv]", "resolutions=[64]", "metrics=[flops]")
    model = asked.catalog.models["tiny_sd"]
    model.presets["deltaconv"] = {"kernel_size": {"up_blocks.9": 3}}
    with pytest.raises(
        ValueError, match=r"up_blocks.9.*tiny_sd presets kernel_size of deltaconv: catalog.variants.delt"
    ):
        check(asked.jobs(), print)


def test_what_a_gate_judges_was_taken_by_this_run(made: Any, tmp_path: Path) -> None:
    taken = []

    class Slows(Counts):
        def __call__(self, trial: Any) -> Any:
            taken.append(trial.case)
            yield Reading("slows", "slows", len(taken), "FLOP", "lower", "slows/v1")

    gate = Gate(str(tmp_path / "baseline.json"), update=True)
    asked = made({"slows": Slows()}, resolutions=[32], gate=gate)
    assert run(asked, streams()[0]) == 0
    assert run(replace(asked, gate=replace(gate, update=False)), streams()[0]) == 1
    assert len(taken) == 2
    run(made({"slows": Slows()}, resolutions=[32]), streams()[0])
    assert len(taken) == 2
    run(made({"slows": Slows()}, resolutions=[32], again=True), streams()[0])
    assert len(taken) == 3


def test_a_student_that_was_not_trained_is_trained_when_that_is_allowed(made: Any, tmp_path: Path) -> None:
    recipe = Recipe([Layerwise(Schedule(steps=1, learning_rate=1e-3, warmup=1))], sizes=[32], samples=4, batch=2)
    chosen = {"variants": ["linfusion"], "resolutions": [32]}
    run(made({"brightness": Brightness()}, **chosen, train=replace(recipe, on_demand=False)), streams()[0])
    (dash,) = Store(tmp_path / "out").records()
    assert (dash.readings[0].value, dash.readings[0].heals) == (None, True)
    run(made({"brightness": Brightness()}, **chosen, train=recipe), streams()[0])
    (number,) = Store(tmp_path / "out").records()
    assert number.readings[0].value is not None
    assert number.seconds.keys() == {"brightness", "training", "rest"}
    assert min(number.seconds["brightness"], number.seconds["training"]) > 0
    assert number.elapsed_s == pytest.approx(sum(number.seconds.values()))
    assert number.seconds == number.merged(number).seconds


def test_kept_numbers_of_another_commit_or_machine_are_said(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(made({"counts": Counts()}), streams()[0])
    here = describe()
    err = io.StringIO()
    monkeypatch.setattr(
        "harness.run.describe", lambda device: here | {"dirty": False, "commit": "f" * 40, "threads": 99}
    )
    run(made({"counts": Counts()}), Console(io.StringIO(), err))
    said = next(line for line in err.getvalue().splitlines() if "elsewhere" in line)
    assert said.startswith("2 of 2 kept cases hold numbers from elsewhere (")
    assert f"threads {here['threads']}" in said
    assert said.endswith("again=true takes them anew")


def test_no_two_images_share_their_noise(made: Any) -> None:
    for seeds in ([0], [0, 1000], [5, 1_000_005, 7000]):
        trial = made({"brightness": Brightness()}, seeds=seeds, n=40).jobs()[0].trial()
        assert len(set(trial.seeds)) == 40
    assert made({"brightness": Brightness()}).jobs()[0].trial().seeds == [0, 1000, 2000]


def test_an_untrained_student_does_not_depend_on_the_cases_before_it(made: Any, tmp_path: Path) -> None:
    values = []
    for place, resolutions in enumerate(([32, 64], [64])):
        asked = made({"brightness": Brightness()}, variants=["linfusion"], resolutions=resolutions, untrained=True)
        run(replace(asked, out=tmp_path / str(place)), streams()[0])
        values.append(Store(tmp_path / str(place)).records()[-1].readings[0].value)
    assert values[0] == values[1]
