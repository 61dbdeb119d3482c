"""MLflow as teams run it: a server with PostgreSQL behind it, both on loopback, both started here."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from browser import opened

from harness.tracking import track
from harness.tracking.patience import with_patience
from harness.tracking.track import MlflowTracker

STARTS_S = 180


def binary(name: str) -> str | None:
    """Debian keeps PostgreSQL's own commands out of the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(places[-1]) if places else None)


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def waited_for(answers) -> None:
    end = time.monotonic() + STARTS_S
    while not answers():
        assert time.monotonic() < end, f"nothing answered within {STARTS_S} s"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def database():
    """The URI of a database in a folder of its own; PostgreSQL refuses to run as root, so it runs as its own user."""
    pytest.importorskip("psycopg2", reason="needs psycopg2: pip install '.[test]'")
    initdb, server = binary("initdb"), binary("postgres")
    if initdb is None or server is None:
        pytest.skip("needs Debian's postgresql")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        user = {}
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        data = f"{folder}/data"
        setup = [initdb, "-D", data, "-A", "trust", "-U", "mlflow", "--no-sync"]
        made = subprocess.run(setup, capture_output=True, text=True, cwd="/", **user)
        assert made.returncode == 0, made.stderr
        flags = ["-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", folder]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([server, *flags], cwd="/", **quiet, **user)
        try:
            waited_for(lambda: _accepts(port))
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait(timeout=30)


def _accepts(port: int) -> bool:
    import psycopg2

    try:
        psycopg2.connect(host="127.0.0.1", port=port, user="mlflow", dbname="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """The address of an MLflow server that keeps its runs there."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--artifacts-destination", str(folder), "--workers", "1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        waited_for(lambda: _healthy(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_with_postgresql_holds_the_runs_the_curves_and_the_files_once(
    server, tmp_path, make_record, monkeypatch
):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is no dead server
    monkeypatch.setattr(track, "with_patience", lambda work: with_patience(work, 120))

    folder = tmp_path / "resolution"
    folder.mkdir()
    (folder / "report.html").write_text("<html>")
    (folder / "summary.md").write_text("# resolution\n\ntiny_sd: it is faster.\n\n## tables\n")
    records = [make_record(variant=variant) for variant in ("self_attention", "deltaconv")]
    tracker = MlflowTracker(server, "compared")
    for _ in range(2):
        assert tracker.track(records, folder, folder / "report.html") is None
        (folder / "tracked.json").unlink()
    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("compared")
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert len(runs) == 3
    assert "it is faster" in parent.data.tags["mlflow.note.content"]
    assert "report.html" in {file.path for file in client.list_artifacts(parent.info.run_id)}
    children = client.search_runs([experiment.experiment_id], "params.variant = 'deltaconv' and metrics.latency > 9")
    assert [run.data.tags["key"] for run in children] == [records[1].case.key]
    assert "record.json" in {file.path for file in client.list_artifacts(children[0].info.run_id)}
    assert tracker.track(records, folder, folder / "report.html") is None
    opens_on_the_runs(tracker.link(folder))


def opens_on_the_runs(link: str) -> None:
    """In a browser that knows nothing of MLflow yet."""
    with opened() as window:
        window.get(link)
        waited_for(lambda: {"Run Name", "resolution"} <= set(window.find_element("tag name", "body").text.splitlines()))
        assert "/runs?" in window.current_url
