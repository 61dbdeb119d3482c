"""What the gate refuses, by its command line: one sentence and exit status 2, before anything is measured."""

import json

import pytest
from cloned import Clone
from speed_repository import git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """With baselines of another schema, and of another machine."""
    made = Clone(tmp_path_factory.mktemp("refused"), "variants=[linfusion] metrics=[site_costs]")
    kept = json.loads(made.baseline.read_text())
    machine = kept["machine"] | {"cpu": "Another", "gpu": None}
    for name, change in (("schema", {"schema": 1}), ("machine", {"machine": machine, "speed": {"x @ y": [0.1] * 5}})):
        made.baseline.with_name(f"{name}.json").write_text(json.dumps(kept | change))
    git(made.folder, "commit", "-qm", "nothing changed", "--allow-empty")
    return made


def refused(done):
    """The one sentence that was said."""
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return lines[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gate.baseline=none.json"], "there is no baseline at 'none.json': write one with gate.update=true, or give"),
        (["gate.baseline=../schema.json"], "'../schema.json' is not a baseline (ValueError: schema 1): give another"),
        (["gate.baseline=../machine.json"], "the baseline's speeds are of Another and this is "),
        (["base=HEAD~1", "world=laion"], "the baseline was taken in the world 'shapes' and this run is in 'laion': "),
        (["base=HEAD"], "gate.speed.base=HEAD is the commit that is checked out, so there is nothing to compare: "),
        (["base=no-such"], "gate.speed.base=no-such is no commit of this clone: give a branch, tag or hash that "),
        (["base=HEAD~1", "gate.tolerance=0"], "gate.tolerance=0 and gate.margin=0.02 are shares above zero: "),
        (["base=HEAD~1", "gate.tolerance=-0.1"], "gate.tolerance=-0.1 and gate.margin=0.02 are shares above zero: "),
        (["base=HEAD~1", "gate.margin=0"], "gate.tolerance=0.05 and gate.margin=0 are shares above zero: "),
        (["base=HEAD~1", "gate.speed.minutes=0"], "gate.speed.minutes=0, passes=5 and threads=1 must be above zero: "),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_sentence(clone, arguments, sentence):
    done = clone.gate(*arguments)
    assert refused(done).startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_tree_with_changes_that_no_commit_has_is_refused(clone):
    clone.append("README.md", "more\n")
    try:
        said = refused(clone.gate("base=HEAD~1"))
    finally:
        git(clone.folder, "checkout", "-q", "README.md")
    assert said.startswith("1 tracked files are changed and not committed, README.md first, so no commit would be ")


def test_a_base_that_does_not_build_is_refused(clone):
    tip = git(clone.folder, "rev-parse", "HEAD")
    clone.append("harness/experiment.py", "\nraise ImportError('it does not build')\n")
    git(clone.folder, "commit", "-qam", "broken")
    git(clone.folder, "revert", "--no-edit", "HEAD")
    try:
        said = refused(clone.gate("base=HEAD~1"))
    finally:
        git(clone.folder, "reset", "-q", "--hard", tip)
    assert "does not run here (" in said
    assert "(it does not build)" in said
    assert "): give another commit with gate.speed.base=" in said


def test_a_file_of_claims_without_claims_is_refused(clone):
    said = refused(clone.gate("claims", "gate.claims=[]", settings=False))
    assert said == "the file of claims is empty, so nothing would be verified: add a claim to it"
