"""Runs that begin at one moment with no MLflow file yet share the one that the first makes."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = """
import json, sys
from functools import partial
from pathlib import Path
from harness.records.record import Record
from harness.tracking import track
track.with_patience = partial(track.with_patience, patience_s=600)  # a slow machine is no fault here
record = Record.from_json(json.load(open(sys.argv[1])))
print(track.MlflowTracker().track([record], Path(sys.argv[2]), None))
"""


def test_two_first_runs_on_one_file_are_both_tracked(tmp_path, make_record):
    seed = tmp_path / "seed.json"
    seed.write_text(json.dumps(make_record().to_json()))
    runs = []
    for name in ("one", "two"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        command = [sys.executable, "-c", RUN, str(seed), str(tmp_path / "outputs" / name)]
        runs.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    assert [run.communicate()[0].strip() for run in runs] == ["None", "None"]
    with sqlite3.connect(tmp_path / "outputs" / "mlflow.db") as database:
        assert database.execute("select count(*) from experiments where name = 'deltabench'").fetchone() == (1,)
        assert database.execute("select count(*) from runs").fetchone() == (4,)  # two sweeps of one case each
