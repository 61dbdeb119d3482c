"""A gate's history in MLflow: one run for each commit on each machine, which a later call finds again."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from harness.records.by_key import grouped
from harness.regression.history import Result
from harness.tracking import mirror
from harness.tracking.database import make_database

EXPERIMENT = "deltabench-gate"
LONGEST = 240
"""Characters of a metric's name."""


def show(results: Sequence[Result], uri: str | None, folder: Path) -> str:
    """Log what is not there yet; a sentence if MLflow failed, since the file is the truth."""
    database = None if uri else folder.resolve().parent / "mlflow.db"
    with mirror.brief_and_quiet():
        try:
            if database is not None and not database.exists():
                make_database(database)
            _log(results, uri or f"sqlite:///{database}")
        except mirror.failures() as error:
            return (
                f"MLflow failed ({type(error).__name__}): the history stays in its file and is shown at the next call"
            )
    return ""


def _log(results: Sequence[Result], uri: str) -> None:
    from mlflow.entities import Metric

    client = mirror.Mirror(uri, EXPERIMENT, None).client
    experiment = client.get_experiment_by_name(EXPERIMENT)
    for (commit, machine), given in grouped(results, lambda result: (result.commit, result.machine)).items():
        key = hashlib.sha256(f"{commit} {machine} {len(given)}".encode()).hexdigest()[:16]
        if client.search_runs([experiment.experiment_id], f"tags.key = '{key}'", max_results=1):
            continue
        tags = {"key": key, "commit": commit, "machine": machine, "mlflow.runName": commit[:10]}
        began = _ms(given[0])
        run = client.create_run(experiment.experiment_id, start_time=began, tags=tags).info.run_id
        client.log_batch(run, [Metric(_name(one), one.value, _ms(one), 0) for one in given])
        client.set_terminated(run, "FINISHED", began)


def _name(result: Result) -> str:
    """Letters that MLflow allows in the name of a metric."""
    plain = f"{result.case}/{result.name}"
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in plain)[:LONGEST]


def _ms(result: Result) -> int:
    return round(datetime.fromisoformat(result.when).timestamp() * 1000)
