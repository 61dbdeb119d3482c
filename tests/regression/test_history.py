"""The history: kept by commit and machine, steps found by name, drawn, and nothing of a dirty tree."""

import json
from dataclasses import replace

import pytest

from harness.records.case import BadInput
from harness.regression import history
from harness.regression.history import Result, series_of
from harness.regression.history_page import page
from harness.regression.verdict import Verdict

MACHINE = {"cpu": "made up", "threads": 2, "gpu": None, "commit": "a" * 40, "dirty": False}


def results(*values: float, machine: str = "one", name: str = "latency_ratio") -> list[Result]:
    return [
        Result(f"{i:040d}", f"2026-01-{i + 1:02d}T00:00:00+00:00", machine, "tiny_sd linfusion", name, value, "x")
        for i, value in enumerate(values)
    ]


def test_a_run_adds_its_numbers_and_its_ratios_to_the_base(tmp_path, make_record):
    record = replace(make_record(), machine=MACHINE)
    speed = Verdict("Mixer", "tiny_sd linfusion", "pass", 1.02, 1.0, "", "speed")
    found = history.results_of([record], [speed])
    assert {one.name for one in found} == {"flops", "latency", "clip_score", "Mixer, time over base"}
    assert {one.commit for one in found} == {"a" * 40}
    path = tmp_path / "below" / "history.jsonl"
    history.append(path, found)
    history.append(path, found)
    assert history.read(path) == found * 2


@pytest.mark.parametrize("changed", [{"dirty": True}, {"commit": None}])
def test_what_no_commit_has_is_not_kept(make_record, changed):
    assert history.results_of([replace(make_record(), machine=MACHINE | changed)], []) == []


def test_steps_are_named_by_case_number_and_commits():
    (series,) = series_of(results(1.00, 1.01, 0.99, 1.0, 1.01, 1.3, 1.31, 1.29, 1.3, 1.31))
    assert [step.index for step in series.steps] == [5]
    assert list(series.told()) == [f"tiny_sd linfusion: latency_ratio: +30.0% between {'0' * 10} and {'0' * 10}"]


def test_machines_are_series_of_their_own_and_a_commit_stands_once():
    found = series_of(results(1.0, 1.0) + results(2.0, 2.0, machine="other") + results(1.0, 1.0))
    assert [(series.machine, series.values) for series in found] == [("one", (1.0, 1.0)), ("other", (2.0, 2.0))]


def test_ratios_to_the_base_are_multiplied_up():
    (series,) = series_of(results(1.0, 1.1, 1.0, name="Mixer, time over base"))
    assert series.values == pytest.approx((1.0, 1.1, 1.1))


def test_the_page_draws_every_series_and_escapes_what_it_is_given():
    drawn = page(series_of(results(1, 1, 1, 2) + results(1.0, name="<b>")))
    assert drawn.count("<svg") == 2
    assert drawn.count("<circle") == 5
    assert "<b>" not in drawn
    assert drawn.index("+100.0%") < drawn.index("&lt;b&gt;")


@pytest.mark.parametrize("line", ["{", "[]", '{"commit": "a"}', json.dumps({**vars(results(1.0)[0]), "when": "now"})])
def test_a_line_that_is_no_result_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "history.jsonl"
    history.append(path, results(1.0))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadInput, match=r"line 2 of history .* is no result"):
        history.read(path)
    with pytest.raises(BadInput, match="there is no history at"):
        history.read(tmp_path / "absent")


def test_a_name_may_hold_any_letter(tmp_path):
    path = tmp_path / "history.jsonl"
    found = results(1.0, name="a\u2028b\x85c")
    history.append(path, found)
    assert history.read(path) == found


def test_mlflow_gets_a_run_for_each_commit_once(tmp_path):
    from mlflow import MlflowClient

    from harness.regression.in_mlflow import EXPERIMENT, show

    for _ in range(2):
        assert show(results(1.0, 1.1), None, tmp_path / "out") == ""
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    assert {tuple(run.data.metrics.values()) for run in runs} == {(1.0,), (1.1,)}
