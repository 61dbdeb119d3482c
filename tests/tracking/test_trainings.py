"""A training is a run of MLflow that grows; a tracker that fails, hangs or drips costs it seconds and a sentence."""

import json
import pickle
import socket
import threading
import time
from contextlib import closing

import pytest
import torch
from tracked import files_of, runs_of

from harness.distillation.student import Student
from harness.tracking import trainings
from harness.tracking.track import MlflowTracker, NoTracker

RECIPE = {"class": "harness.distillation.recipe.Recipe", "settings": {"batch": 4, "stages": [{"steps": 12}]}}
MADE_OF = {"recipe": RECIPE, "model": "abc", "data": "noise", "mixer": "a.B", "parameters": {"kernel_size": 5}}
TOLD = {"budget": "12 steps of 4 images", "world": "noise"}


@pytest.fixture
def student(cache):
    return Student("tiny_sd", "deltaconv", json.dumps(MADE_OF))


def client_of(folder):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder.parent / 'mlflow.db'}")


def waited_for(found):
    """What is there at last."""
    end = time.monotonic() + 60
    while not (there := found()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return there


def training_of(folder):
    """The run of the training, once it is there."""
    return next((run for run in runs_of(folder) if run.data.tags.get("kind") == "training"), None)


def test_a_training_is_seen_while_it_goes_on_and_its_case_is_tracked_beside_it(store_folder, student, make_record):
    audience = pickle.loads(pickle.dumps(MlflowTracker().trainings(store_folder)))  # as it comes to a worker
    with audience.training(student, TOLD) as hearer:
        hearer.point(0, {"features": 1.0})
        hearer.point(5, {"features": 0.5, "loss.task": 2.0})
        hearer.picture(5, torch.rand(3, 70, 40))
        run = waited_for(lambda: (r := training_of(store_folder)) and "mlflow.loggedImages" in r.data.tags and r)
        assert run.info.status == "RUNNING"
        assert run.data.metrics == {"learning/features": 0.5, "learning/loss.task": 2.0}
        parent = runs_of(store_folder)[0]
        assert parent.info.status == "RUNNING"
        card = student.cached.with_suffix(".md")
        card.parent.mkdir(parents=True)
        card.write_text("# a student")
    run = training_of(store_folder)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.params["variant.kernel_size"] == "5"
    assert run.data.params["recipe.stages.0.steps"] == "12"
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["noise training"]
    assert files_of(store_folder, run)[card.name].read_text() == "# a student"
    history = client_of(store_folder).get_metric_history(run.info.run_id, "learning/features")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (5, 0.5)]

    record, tracker = make_record(), MlflowTracker()
    for _ in range(2):
        assert tracker.track([record], store_folder, None) is None
    assert {run.info.status for run in runs_of(store_folder)} == {"FINISHED"}
    assert len(runs_of(store_folder)) == 3
    (case,) = (run for run in runs_of(store_folder) if "key" in run.data.tags)
    client_of(store_folder).delete_run(case.info.run_id)
    assert tracker.track([record], store_folder, None) is None
    assert len(runs_of(store_folder)) == 3


def stopped(audience, student):
    with audience.training(student, TOLD) as hearer:
        hearer.point(0, {"features": 1.0})
        raise KeyboardInterrupt


def test_a_training_that_was_stopped_goes_on_in_its_run_and_a_new_one_has_its_own(store_folder, student):
    audience = MlflowTracker().trainings(store_folder)
    with pytest.raises(KeyboardInterrupt):
        stopped(audience, student)
    assert training_of(store_folder).info.status == "KILLED"
    for count in (2, 3):
        with audience.training(student, TOLD) as hearer:
            hearer.point(5, {"features": 0.5})
        assert len(runs_of(store_folder)) == count


@pytest.mark.parametrize("other", [".", "../another"])
def test_a_training_that_was_killed_goes_on_in_its_run_also_from_another_folder(store_folder, student, other):
    abandoned = trainings.Sender(MlflowTracker().trainings(store_folder), student, TOLD)
    abandoned.point(0, {"features": 1.0})
    waited_for(lambda: (run := training_of(store_folder)) and run.data.metrics)
    folder = (store_folder / other).resolve()
    with MlflowTracker().trainings(folder).training(student, TOLD) as hearer:
        hearer.point(5, {"features": 0.5})
    *parents, run = runs_of(store_folder)
    assert run.info.status == "FINISHED"
    assert {parent.info.status for parent in parents} <= {"FINISHED", "KILLED"}
    parent = next(each for each in parents if each.info.run_id == run.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["sweep"] == folder.name
    history = client_of(store_folder).get_metric_history(run.info.run_id, "learning/features")
    assert [point.step for point in history] == [0, 5]


def test_a_training_that_another_cache_holds_is_left_alone(store_folder, student, tmp_path, monkeypatch):
    audience = MlflowTracker().trainings(store_folder)
    with audience.training(student, TOLD):
        waited_for(lambda: training_of(store_folder))
        monkeypatch.setenv("DELTABENCH_CACHE", str(tmp_path / "elsewhere"))
        with audience.training(student, TOLD):
            pass
    assert [run.info.status for run in runs_of(store_folder)] == ["FINISHED"] * 3


@pytest.fixture(params=["refusing", "silent", "dripping"])
def broken_server(request):
    """A port where nobody listens, or somebody who never answers, or a byte every half second."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param != "refusing":
            listener.listen()
        if request.param == "dripping":
            threading.Thread(target=_drip, args=(listener,), daemon=True).start()
        yield f"http://somebody:secret@127.0.0.1:{listener.getsockname()[1]}"


def _drip(listener):
    try:
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.5)
    except OSError:
        pass


def test_a_broken_server_costs_a_training_seconds_and_a_sentence(
    store_folder, student, broken_server, monkeypatch, capsys
):
    monkeypatch.setattr(trainings, "PATIENCE_S", 3.0)
    began = time.monotonic()
    with MlflowTracker(broken_server).trainings(store_folder).training(student, TOLD) as hearer:
        said = time.monotonic()
        for step in range(100):
            hearer.point(step, {"features": 1.0})
        hearer.picture(5, torch.rand(3, 70, 40))
        assert time.monotonic() - said < 1
    assert time.monotonic() - began < 15
    told = capsys.readouterr().err
    assert "MLflow at http://127.0.0.1:" in told
    assert "training" in told
    assert "secret" not in told


def test_a_database_that_cannot_be_made_leaves_the_training_alone(tmp_path, student, capsys):
    (tmp_path / "outputs").write_text("a file in the place of the folder")
    with MlflowTracker().trainings(tmp_path / "outputs" / "resolution").training(student, TOLD) as hearer:
        assert hearer is None
    assert "the training is not shown there" in capsys.readouterr().err


def test_no_tracker_hears_nothing(tmp_path):
    assert NoTracker().trainings(tmp_path) is None
