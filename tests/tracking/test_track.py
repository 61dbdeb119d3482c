"""MLflow mirrors the store: once per content, again after a change, and never at the price of the sweep."""

import contextlib
import json
import shutil
import socket
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest
from tracked import files_of, runs_of

from harness.records.case import BadInput, Resolution
from harness.records.record import Reading
from harness.tracking import track
from harness.tracking.patience import with_patience
from harness.tracking.track import MlflowTracker, NoTracker


def with_image(record, folder):
    from PIL import Image

    path = folder / "images" / record.case.key / "0.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(path)
    return replace(record, artifacts={"image/0": str(path.relative_to(folder)), "image/1": "images/gone.png"})


def made_well(make_record):
    """A record with a variant spelled out, a noisy timing, and a commit."""
    spelled = json.dumps({"mixer": "deltaconv.Block", "parameters": {"kernel_size": 5}})
    noisy = {"details": {"noisy": "busy"}}
    record = make_record(mixer=spelled)
    readings = tuple(replace(r, **noisy) if r.name == "latency" else r for r in record.readings)
    return replace(record, readings=readings, machine=record.machine | {"commit": "abc"})


def test_a_sweep_becomes_a_parent_run_with_a_child_a_case_and_stays_one(store_folder, make_record, capsys):
    dash = Reading("fdd", "fdd", None, "1", "lower", "fdd/v1", reason="too few images")
    good = with_image(made_well(make_record), store_folder)
    bad = make_record(readings=(dash,), variant="linfusion", status="failed", reason="it broke")
    report = store_folder / "report.html"
    report.write_text("<html>")
    tracker = MlflowTracker()

    assert tracker.track([good, bad], store_folder, report) is None
    parent, *children = runs_of(store_folder)
    assert parent.data.tags["mlflow.runName"] == "resolution"
    assert {"cases.ok", "cases.failed", "latency/tiny_sd self_attention"} <= parent.data.metrics.keys()
    assert parent.info.status == "FAILED"
    assert files_of(store_folder, parent)["report.html"].read_text() == "<html>"
    by_key = {child.data.tags["key"]: child for child in children}
    assert by_key.keys() == {good.case.key, bad.case.key}
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}

    child = by_key[good.case.key]
    assert {"width": "64", "height": "64", "n": "4", "seeds": "[0]"}.items() <= child.data.params.items()
    assert child.data.params["variant.kernel_size"] == "5"
    assert "mixer" not in child.data.params
    assert child.data.metrics["system/threads"] == 2
    assert child.data.tags["noisy"] == "latency: busy"
    assert child.data.tags["mlflow.source.git.commit"] == "abc"
    (world,) = child.inputs.dataset_inputs
    assert (world.dataset.name, json.loads(world.dataset.profile)["prompts"]) == ("shapes 64", 4)
    assert child.data.metrics["latency"] == 10.0
    assert child.data.metrics["latency.low"] == 9.8
    assert child.data.metrics["latency.high"] == 10.2
    assert child.data.tags["protocol.clip_score"] == "clip/v1"
    assert (child.info.status, child.data.tags["status"]) == ("FINISHED", "ok")
    assert child.info.end_time - child.info.start_time == 1500
    assert parent.info.start_time == child.info.start_time  # the sweep began with its first case
    files = files_of(store_folder, child)
    assert json.loads(files["record.json"].read_text()) == json.loads(json.dumps(good.to_json()))
    assert files["images.png"].read_bytes().startswith(b"\x89PNG")

    failed = by_key[bad.case.key]
    assert (failed.info.status, failed.data.tags["reason"], failed.data.tags["reason.fdd"]) == (
        "FAILED",
        "it broke",
        "too few images",
    )
    assert "fdd" not in failed.data.metrics

    tracked_again(tracker, [good, bad], store_folder, report)
    tracked_after_a_change(tracker, good, store_folder, report)
    tracked_after_a_kill(tracker, good, store_folder, report)
    assert capsys.readouterr().out == ""


def tracked_again(tracker, records, folder, report):
    """Nothing new: no work, and no run more."""
    before = (folder.parent / "mlflow.db").stat().st_mtime_ns
    assert tracker.track(records, folder, report) is None
    assert (folder.parent / "mlflow.db").stat().st_mtime_ns == before


def tracked_after_a_change(tracker, record, folder, report):
    """A record that gained a reading goes into the run that it had."""
    more = replace(record, readings=(*record.readings, Reading("ds", "ds", 3.5, "1", "higher", "ds/v1")))
    assert tracker.track([more], folder, report) is None
    runs = runs_of(folder)
    assert len(runs) == 3
    assert next(run for run in runs if run.data.tags.get("key") == record.case.key).data.metrics["ds"] == 3.5


def tracked_after_a_kill(tracker, record, folder, report):
    """Killed after the run was written and before that was remembered: found again by its key."""
    for memory in ("[]", "{", '{"a": 5}', None):
        (folder / "tracked.json").unlink()
        if memory:
            (folder / "tracked.json").write_text(memory)
        assert tracker.track([record], folder, report) is None
        assert len(runs_of(folder)) == 3


def test_the_curves_of_the_parent_have_the_resolution_as_their_step(store_folder, make_record):
    from mlflow import MlflowClient

    sizes = [Resolution(64, 64), Resolution(128, 64), Resolution(256, 256)]
    tracker = MlflowTracker()
    assert tracker.track([make_record(resolution=size) for size in sizes], store_folder, None) is None
    parent = runs_of(store_folder)[0]
    client = MlflowClient(tracking_uri=f"sqlite:///{store_folder.parent / 'mlflow.db'}")
    history = client.get_metric_history(parent.info.run_id, "flops/tiny_sd self_attention")
    assert [(point.step, point.value) for point in history] == [(64, 1e6), (91, 1e6), (256, 1e6)]
    assert client.get_experiment(parent.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_parent_has_each_world_and_size_as_a_data_set_once_however_often_it_is_tracked(store_folder, make_record):
    judged = [
        make_record(variant=variant, resolution=Resolution(side, side))
        for variant in ("self_attention", "deltaconv")
        for side in (64, 128)
    ]
    counted = make_record(readings=(make_record().reading("flops"),), world="unseen")
    for records in ([judged[0], counted], [*judged, counted]):
        assert MlflowTracker().track(records, store_folder, None) is None
    parent = runs_of(store_folder)[0]
    assert sorted(each.dataset.name for each in parent.inputs.dataset_inputs) == ["shapes 128", "shapes 64"]


def test_a_run_that_somebody_deleted_is_tracked_again(store_folder, make_record):
    from mlflow import MlflowClient

    record, tracker = make_record(), MlflowTracker()
    assert tracker.track([record], store_folder, None) is None
    _, child = runs_of(store_folder)
    MlflowClient(tracking_uri=f"sqlite:///{store_folder.parent / 'mlflow.db'}").delete_run(child.info.run_id)
    assert tracker.track([record], store_folder, None) is None
    _, again = runs_of(store_folder)
    assert again.info.run_id != child.info.run_id


def test_a_folder_may_be_called_anything(tmp_path, laid_out, make_record):
    folder = tmp_path / "what? 100 % #1" / "it's"
    folder.mkdir(parents=True)
    shutil.copy(laid_out, folder.parent / "mlflow.db")
    (folder / "report.html").write_text("<html>")
    assert MlflowTracker().track([make_record()], folder, folder / "report.html") is None
    with closing(sqlite3.connect(folder.parent / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)


def test_a_locked_database_costs_seconds_and_a_sentence(store_folder, make_record, monkeypatch):
    monkeypatch.setattr(track, "with_patience", lambda work: with_patience(work, 4))
    with closing(sqlite3.connect(store_folder.parent / "mlflow.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        warning = MlflowTracker().track([make_record()], store_folder, None)
        assert time.monotonic() - began < 30
    assert warning is not None
    assert "1 of 1 records are not tracked" in warning


def test_the_environment_names_server_and_experiment_and_the_settings_come_first(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert (MlflowTracker().address, MlflowTracker().name) == ("http://somewhere:5000", "mine")
    chosen = MlflowTracker("sqlite:///x.db", "other")
    assert (chosen.address, chosen.name) == ("sqlite:///x.db", "other")


@pytest.mark.parametrize("uri", ["", "nonsense", "ftp://x", 5, "file:///tmp/mlruns", "htp://x"])
def test_an_address_that_is_none_is_bad_input(uri):
    with pytest.raises(BadInput, match="is no address of an MLflow server or database: give one that begins with"):
        MlflowTracker(uri)


@pytest.fixture
def dripping_server():
    """It answers, a byte every half second, without end."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def drip():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.5)

        threading.Thread(target=drip, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_drips_is_left_behind(store_folder, make_record, dripping_server, monkeypatch):
    monkeypatch.setattr(track, "with_patience", lambda work: with_patience(work, 4))
    began = time.monotonic()
    warning = MlflowTracker(dripping_server).track([make_record()], store_folder, None)
    assert 4 <= time.monotonic() - began < 30
    assert warning is not None
    assert "failed (it did nothing for 4 s)" in warning


@pytest.fixture(params=["silent", "refusing"])
def dead_server(request):
    """A port where a connection is accepted and never answered, or one where nobody listens."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        yield f"http://somebody:secret@127.0.0.1:{listener.getsockname()[1]}"


def test_a_dead_server_costs_seconds_and_a_sentence_and_the_records_are_tracked_later(
    store_folder, make_record, dead_server
):
    record = make_record()
    began = time.monotonic()
    warning = MlflowTracker(uri=dead_server).track([record], store_folder, None)
    assert time.monotonic() - began < 15
    assert warning is not None
    assert warning.startswith("MLflow at http://127.0.0.1:")
    assert warning.endswith("1 of 1 records are not tracked; they stay in 'resolution' and are tracked at the next run")
    assert "secret" not in warning
    assert "\n" not in warning
    assert not (store_folder / "tracked.json").exists()


def test_no_tracker_writes_nothing(store_folder, make_record):
    assert NoTracker().track([make_record()], store_folder, None) is None
    assert list(store_folder.iterdir()) == []


def test_a_learning_curve_has_the_training_step_as_its_step(store_folder, make_record):
    from mlflow import MlflowClient

    points = [{"steps": step, "minutes": step / 10, "features": 1 / step, "prediction": 0.5} for step in (1, 4)]
    reading = Reading("feature_error", "feature_error", 0.25, "share", "lower", "v1", details={"points": points})
    assert MlflowTracker().track([replace(make_record(), readings=(reading,))], store_folder, None) is None
    child = runs_of(store_folder)[1]
    client = MlflowClient(tracking_uri=f"sqlite:///{store_folder.parent / 'mlflow.db'}")
    history = client.get_metric_history(child.info.run_id, "learning/features")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (4, 0.25)]


def test_a_student_that_was_trained_here_is_kept_with_its_card_once(store_folder, make_record, monkeypatch, tmp_path):
    monkeypatch.setenv("DELTABENCH_CACHE", str(tmp_path / "cache"))
    one = make_record()
    # Where recipes are compared a row is called variant-recipe, and its student's file by the variant alone.
    name = f"{one.case.model}-deltaconv-0123456789ab"
    (tmp_path / "cache" / "students").mkdir(parents=True)
    for ending in ("safetensors", "md"):
        (tmp_path / "cache" / "students" / f"{name}.{ending}").write_text(ending)
    sizes = [Resolution(64, 64), Resolution(128, 128)]
    cases = [
        replace(one.case, variant="deltaconv-paper-6", resolution=size, weights="fedcba987654+0123456789ab")
        for size in sizes
    ]
    MlflowTracker().track([replace(one, case=case) for case in cases], store_folder, None)
    parent, *children = runs_of(store_folder)
    kept = {path.name for path in files_of(store_folder, parent)["students"].iterdir()}
    assert kept == {f"{name}.safetensors", f"{name}.md"}
    assert all("students" not in files_of(store_folder, child) for child in children)
