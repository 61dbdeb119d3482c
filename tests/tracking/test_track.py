"""MLflow mirrors the store: once per content, again after a change, and never at the price of the sweep."""

import json
import socket
import time
from contextlib import closing

import pytest

from harness.records.record import Reading
from harness.tracking.track import MlflowTracker, NoTracker


@pytest.fixture
def store_folder(tmp_path):
    folder = tmp_path / "outputs" / "resolution"
    folder.mkdir(parents=True)
    return folder


def runs_of(folder):
    """Every run beside that store, parents first."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("deltabench")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return sorted(found, key=lambda run: "mlflow.parentRunId" in run.data.tags)


def files_of(folder, run):
    root = folder.parent / "mlflow-artifacts" / run.info.run_id / "artifacts"
    return {path.name: path for path in root.iterdir()} if root.exists() else {}


def with_image(record, folder):
    from dataclasses import replace

    from PIL import Image

    path = folder / "images" / record.case.key / "0.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(path)
    return replace(record, artifacts={"image/0": str(path.relative_to(folder)), "image/1": "images/gone.png"})


def test_a_sweep_becomes_a_parent_run_with_a_child_a_case_and_stays_one(store_folder, make_record, capsys):
    dash = Reading("fdd", "fdd", None, "1", "lower", "fdd/v1", reason="too few images")
    good = with_image(make_record(), store_folder)
    bad = make_record(readings=(dash,), variant="linfusion", status="failed", reason="it broke")
    report = store_folder / "report.html"
    report.write_text("<html>")
    tracker = MlflowTracker()

    assert tracker.track([good, bad], store_folder, report) is None
    parent, *children = runs_of(store_folder)
    assert parent.data.tags["mlflow.runName"] == "resolution"
    assert parent.data.metrics == {"cases.ok": 1, "cases.failed": 1}
    assert parent.info.status == "FAILED"
    assert files_of(store_folder, parent)["report.html"].read_text() == "<html>"
    by_key = {child.data.tags["key"]: child for child in children}
    assert by_key.keys() == {good.case.key, bad.case.key}
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}

    child = by_key[good.case.key]
    assert child.data.params == {name: str(value) for name, value in good.case.identity().items()}
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
    from dataclasses import replace

    more = replace(record, readings=(*record.readings, Reading("ds", "ds", 3.5, "1", "higher", "ds/v1")))
    assert tracker.track([more], folder, report) is None
    runs = runs_of(folder)
    assert len(runs) == 3
    assert next(run for run in runs if run.data.tags.get("key") == record.case.key).data.metrics["ds"] == 3.5


def tracked_after_a_kill(tracker, record, folder, report):
    """Killed after the run was written and before that was remembered: found again by its key."""
    memory = json.loads((folder / "tracked.json").read_text())
    for server in memory.values():
        server["contents"] = {}
    (folder / "tracked.json").write_text(json.dumps(memory))
    assert tracker.track([record], folder, report) is None
    assert len(runs_of(folder)) == 3


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
    assert list(store_folder.parent.iterdir()) == [store_folder]
