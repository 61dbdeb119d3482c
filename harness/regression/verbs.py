"""What `python -m harness gate VERB` does, by its verb; `check`, which runs a sweep, is the command line's own."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.records.case import BadInput
from harness.records.files import writable, write_whole
from harness.records.store import Archive
from harness.records.units import duration
from harness.regression import history as past
from harness.regression import readme_table
from harness.regression.baseline import locate
from harness.regression.gate import Gate
from harness.regression.history_page import page
from harness.regression.slices import serve
from harness.regression.verdict import Verdict, exit_status
from harness.tracking.track import MlflowTracker


def slices(experiment: Any) -> int:
    """Time units for the process that compares this checkout with another."""
    out, sys.stdout = sys.stdout, sys.stderr
    asked = json.loads(sys.stdin.readline())
    trials = (job.trial() for job in experiment.jobs())
    return serve(trials, asked["packages"], asked["threads"], asked.get("whole", True), sys.stdin, out)


def noise(experiment: Any) -> int:
    """Compare the working tree with itself, and say what this machine can tell apart."""
    gate = _gate(experiment)
    if gate.speed is None:
        raise BadInput("gate.speed=null leaves nothing to measure: leave it out")
    pairs, resolved = gate.speed.noise(gate.tolerance)
    took = f"{pairs.count} pairs of processes in {duration(pairs.seconds)}"
    for unit in pairs.units.values():
        print(f"{unit.case} {unit.mixer or ''} {unit.site}: {unit.rise}")
    can = f"this machine resolves {resolved:.1%}" if math.isfinite(resolved) else "too few pairs to say"
    print(f"{can} ({took})", file=sys.stderr)
    _finish({"resolves": resolved if math.isfinite(resolved) else None, "pairs": pairs.count, "seconds": pairs.seconds})
    return 0


def history(experiment: Any) -> int:
    """Say where the level of a number changed, draw all of them, and show them in MLflow."""
    gate = _gate(experiment)
    if not gate.history:
        raise BadInput("gate.history=null names no file: give gate.history=FILE")
    path = Path(gate.history)
    if path.suffix == ".html":
        raise BadInput(f"gate.history={path} is where its drawing goes: give a file that ends otherwise, as in .jsonl")
    results = past.read(path)
    found = past.series_of(results)
    told = [sentence for series in found for sentence in series.told()]
    print("\n".join(told or ["no steps"]))
    drawn = path.with_suffix(".html")
    with writable(f"the drawing {str(drawn)!r}", "give another history with gate.history=FILE"):
        write_whole(drawn, page(found))
    if isinstance(experiment.tracker, MlflowTracker):
        from harness.regression.in_mlflow import show

        if said := show(results, experiment.tracker.uri, Path(experiment.out)):
            print(said, file=sys.stderr)
    commits = {result.commit for result in results}
    _finish({"steps": len(told), "series": len(found), "commits": len(commits), "page": drawn.as_posix()})
    return 0


def claims(experiment: Any) -> int:
    """Measure every claim again, and see whether the README's table is what its file says."""
    told = experiment.gate
    told.check([])
    verdicts = []
    for verdict in [*told.verify(experiment), *_readme(told)]:
        word = {"pass": "holds", "regression": "FAILS"}.get(verdict.outcome, verdict.outcome)
        print(f"{word}: {verdict.name}: {verdict.reason}")
        verdicts.append(verdict)
    if left := told.left_out():
        print(f"{left} slow claims were left out: gate.slow=true verifies them", file=sys.stderr)
    outcomes = [verdict.outcome for verdict in verdicts]
    _finish({"claims": {one: outcomes.count(one) for one in sorted(set(outcomes))}, "left_out": left})
    return exit_status(verdicts)


def table(experiment: Any) -> int:
    """Write the README's table anew, from the records of a run."""
    told = experiment.gate
    records = readme_table.told_by(Archive(told.store).records())
    rows, newest = readme_table.rows_of(records), records[-1]
    settings = {name: newest.case.settings.get(name) for name in ("n", "steps", "guidance")}
    taken = {"when": newest.started, "commit": newest.machine.get("commit"), **settings}
    readme_table.save(locate(told.table), rows, taken)
    if told.readme:
        readme_table.write(Path(told.readme), readme_table.table(rows, told.labels or {}))
    _finish({"rows": len(rows), "table": str(told.table), "readme": told.readme})
    return 0


def _readme(told: Any) -> list[Verdict]:
    """Whether the README holds the table that the numbers give."""
    if not told.readme:
        return []
    text = readme_table.table(readme_table.load(locate(told.table)), told.labels or {})
    same = readme_table.standing(Path(told.readme)) == text
    why = "as its file says" if same else "differs from its file: `python -m harness gate table` writes both anew"
    return [Verdict("the README's table", "README", "pass" if same else "regression", None, None, why)]


def _gate(experiment: Any) -> Gate:
    gate = experiment.gate
    if not isinstance(gate, Gate):
        raise BadInput("there is no gate in this configuration: give gate=baseline, or +sweep=ci which has it")
    return gate


def _finish(summary: dict[str, Any]) -> None:
    """The last line of stdout."""
    print(json.dumps(summary, allow_nan=False))


VERBS: Mapping[str, Callable[[Any], int]] = {verb.__name__: verb for verb in (slices, noise, history, claims, table)}
