"""Where a browser finds the runs: the address opens on them, and tells no password."""

import pytest
from tracked import runs_of

from harness.tracking.address import page
from harness.tracking.track import MlflowTracker
from reports import add_link


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("http://me:secret@tracks:5000/", "http://tracks:5000/#/experiments/3/runs?workflowType=machine_learning"),
        (
            "sqlite:////data/my runs/mlflow.db",
            "http://127.0.0.1:5000/#/experiments/3/runs?workflowType=machine_learning after "
            "mlflow ui --backend-store-uri 'sqlite:////data/my runs/mlflow.db'",
        ),
        ("sqlite:////data/100%/mlflow.db", ""),
        ("databricks", ""),
    ],
)
def test_the_address_of_the_runs_opens_on_them_and_tells_no_password(uri, link):
    assert page(uri, "3") == link


def test_what_was_tracked_has_an_address_also_when_nothing_is_new(store_folder, make_record):
    tracker = MlflowTracker()
    assert tracker.link(store_folder) == ""
    for _ in range(2):
        assert tracker.track([make_record()], store_folder, None) is None
        number = runs_of(store_folder)[0].info.experiment_id
        assert f"/#/experiments/{number}/runs?workflowType=machine_learning" in tracker.link(store_folder)


def test_a_server_s_address_ends_the_summary_and_a_command_of_this_machine_does_not(tmp_path):
    (tmp_path / "summary.md").write_text("# resolution\n")
    add_link(tmp_path, page("sqlite:////x/mlflow.db", "3"))
    assert (tmp_path / "summary.md").read_text() == "# resolution\n"
    add_link(tmp_path, page("http://tracks:5000", "3"))
    assert (
        (tmp_path / "summary.md")
        .read_text()
        .endswith("MLflow: http://tracks:5000/#/experiments/3/runs?workflowType=machine_learning\n")
    )
