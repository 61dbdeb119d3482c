"""What the tests of the trackers read back of the MLflow file beside a store."""

from pathlib import Path
from typing import Any


def runs_of(folder: Path) -> list[Any]:
    """Every run beside that store, parents first; none where nothing was tracked yet."""
    from mlflow import MlflowClient

    if not (folder.parent / "mlflow.db").exists():
        return []
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("deltabench")
    found = client.search_runs([experiment.experiment_id] if experiment else [], max_results=1000)
    return sorted(found, key=lambda run: "mlflow.parentRunId" in run.data.tags)


def files_of(folder: Path, run: Any) -> dict[str, Path]:
    """The files of a run at the top of its artifacts, by name."""
    root = folder.parent / "mlflow-artifacts" / run.info.run_id / "artifacts"
    return {path.name: path for path in root.iterdir()} if root.exists() else {}
