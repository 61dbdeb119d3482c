"""The words of the gate on the command line, and what Hydra gets of them."""

import pytest

from harness.__main__ import _do, verb_of

CASES = [
    (["+sweep=ci"], ["+sweep=ci"]),
    (["gate"], ["+sweep=ci"]),
    (["gate", "check", "n=8"], ["n=8", "+sweep=ci"]),
    (["gate", "base=HEAD~1"], ["gate.speed.base='HEAD~1'", "+sweep=ci"]),
    (["gate", "+sweep=mine"], ["+sweep=mine"]),
    (["gate", "a=1", "--config-dir", "f", "b=2"], ["--config-dir", "f", "a=1", "b=2", "+sweep=ci"]),
    (["gate", "noise", "--config-dir=f"], ["--config-dir=f", "+sweep=ci"]),
    (["gate", "claims", "gate.slow=true"], ["gate.slow=true", "gate=claims"]),
]


@pytest.mark.parametrize(("given", "left"), CASES)
def test_a_verb_leaves_settings_that_hydra_knows(given, left):
    arguments = ["harness", *given]
    do = verb_of(arguments)
    assert arguments == ["harness", *left]
    assert (do is _do) == (given[1:2] not in (["noise"], ["claims"]))
