"""A gate's history in MLflow: one run for each commit on each machine, which a later call finds again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.records.by_key import grouped
from harness.regression.history import Result
from harness.tracking.entries import ms_of, name_of
from harness.tracking.mirror import Mirror, brief_and_quiet, failures
from harness.tracking.server import Server

EXPERIMENT = "deltabench-gate"


def show(results: Sequence[Result], uri: str | None, folder: Path) -> str:
    """Log what is not there yet; a sentence if MLflow failed, since the file is the truth."""
    beside = None if uri else folder.resolve().parent / "mlflow.db"
    server = Server(uri or f"sqlite:///{beside}", EXPERIMENT, beside)
    with brief_and_quiet():
        try:
            server.prepare()
            with server.mirror() as runs:
                _log(results, runs)
        except failures() as error:
            kept = "the history stays in its file and is shown at the next call"
            return f"MLflow failed ({type(error).__name__}): {kept}"
    return ""


def _log(results: Sequence[Result], runs: Mirror) -> None:
    from mlflow.entities import Metric

    client, experiment = runs.client, runs.experiment
    for (commit, machine), given in grouped(results, lambda result: (result.commit, result.machine)).items():
        key = hashlib.sha256(f"{commit} {machine} {len(given)}".encode()).hexdigest()[:16]
        if client.search_runs([experiment], f"tags.key = '{key}'", max_results=1):
            continue
        tags = {"key": key, "commit": commit, "machine": machine, "mlflow.runName": commit[:10]}
        began = ms_of(given[0].when)
        run = client.create_run(experiment, start_time=began, tags=tags).info.run_id
        client.log_batch(
            run, [Metric(name_of(f"{one.case}/{one.name}"), one.value, ms_of(one.when), 0) for one in given]
        )
        client.set_terminated(run, "FINISHED", began)
