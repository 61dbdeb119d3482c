"""What `python -m harness gate VERB` does, by its verb; `check`, which runs a sweep, is the command line's own."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from harness.regression.passes import serve


def slices(experiment: Any) -> int:
    """Answer the process that compares this checkout with another."""
    out, sys.stdout = sys.stdout, sys.stderr
    asked = json.loads(sys.stdin.readline())
    trials = (job.trial() for job in experiment.jobs())
    return serve(trials, asked["packages"], asked["threads"], asked.get("whole", True), sys.stdin, out)


VERBS: Mapping[str, Callable[[Any], int]] = {"slices": slices}
