"""Two commits in alternation: real worktrees and processes, with a harness in them that claims how fast it is."""

import math
import os

import pytest
from speed_repository import commit, git

from harness.records.case import BadInput
from harness.regression.checkout import Checkout, Side, together
from harness.regression.imports import judge_imports
from harness.regression.speed import Speed

SAME = '{"ms": [1.0, 2.0, 9.0]}'


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    commit(folder, SAME)
    return folder


def compared(folder, base="HEAD~1", minutes=3.0, **settings):
    speed = Speed(base=base, repository=str(folder), minutes=minutes, **settings)
    speed.check()
    return {verdict.name: verdict for verdict in speed.against_base(0.05)}


def test_the_same_code_passes_and_leaves_no_worktree_behind(repository):
    commit(repository, SAME)
    found = compared(repository)
    assert {found[name].outcome for name in ("LinFusionAttention", "the whole call")} == {"pass"}, found
    assert found["import"].outcome != "regression"
    assert set(found) == {"LinFusionAttention", "the whole call", "import"}
    assert git(repository, "worktree", "list").count("\n") == 0


def test_ten_percent_in_one_mixer_is_found_and_named_by_mixer_and_site(repository):
    commit(repository, '{"ms": [1.0, 2.2, 9.1]}')
    found = compared(repository)
    verdict = found["LinFusionAttention"]
    assert verdict.outcome == "regression"
    assert verdict.reason.startswith("LinFusionAttention at up.attn1 takes +")
    assert verdict.given == pytest.approx(1.1, abs=0.02)
    assert found["the whole call"].outcome == "pass"


def test_a_slower_body_is_told_from_a_slower_mixer(repository):
    commit(repository, '{"ms": [1.0, 2.0, 10.0]}')
    verdict = compared(repository)["the whole call"]
    assert verdict.outcome == "regression"
    assert verdict.reason.endswith("around the mixers, none of which is slower by itself")


def test_a_slower_import_is_found_and_its_module_named(repository):
    commit(repository, SAME, slow_import=0.5)
    verdict = compared(repository)["import"]
    assert verdict.outcome == "regression"
    assert "(most by harness.part: +" in verdict.reason


@pytest.mark.parametrize(("others_ms", "whole"), [(900.0, "the base's time"), (20_000.0, "5 s (the base takes 20 s)")])
def test_what_a_commit_adds_to_imports_is_found_also_where_a_busy_machine_stretches_them(others_ms, whole):
    base = {"torch": others_ms, "mine.part": 100.0}
    pairs = [(base, base | {"mine.part": 600.0 + noise}) for noise in (-20.0, 0.0, 10.0, 5.0)]
    (verdict,) = judge_imports(pairs, ["mine"], 0.05)
    assert verdict.outcome == "regression"
    assert f" of {whole} (most by mine.part: +499 ms), tolerance 5%" in verdict.reason
    (same,) = judge_imports(
        [(base, base | {"mine.part": 100.0 + noise}) for noise in (-20.0, 9.0, 5.0, 1.0)], ["mine"], 0.05
    )
    assert same.outcome == "pass"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs a system that holds processes to cores")
def test_both_processes_of_a_pair_share_a_core_and_the_next_pair_takes_another(repository):
    allowed = os.sched_getaffinity(0)
    sides = [Side(Checkout("a", repository, ())) for _ in range(2)]
    try:
        taken = []
        for turn in range(len(allowed)):
            together(sides, turn)
            (one, other) = (os.sched_getaffinity(side._process.pid) for side in sides)
            assert one == other
            taken.append(one)
        assert set.union(*taken) == allowed
        assert all(len(cores) == 1 for cores in taken)
    finally:
        for side in sides:
            side.close()


def test_a_gain_is_an_improvement(repository):
    commit(repository, '{"ms": [0.8, 1.6, 9.0]}')
    assert compared(repository)["LinFusionAttention"].outcome == "improvement"


def test_too_little_time_is_inconclusive_and_says_what_would_decide(repository):
    commit(repository, SAME)
    verdict = compared(repository, minutes=0.001)["LinFusionAttention"]
    assert verdict.outcome == "inconclusive"
    assert "too few pairs for an interval: 1" in verdict.reason
    assert verdict.decide.startswith("more time: a pair takes ")
    assert "gate.speed.minutes=" in verdict.decide


def test_a_site_that_one_side_lacks_is_asked_about(repository):
    commit(repository, '{"ms": [1.0, 2.0], "units": 2}')
    assert compared(repository)["speed"].reason == "only the base has the whole call"


def test_a_base_that_does_not_run_is_bad_input_and_a_head_that_does_not_is_a_regression(repository):
    commit(repository, '{"broken": "no such thing"}')
    found = compared(repository)
    assert found["speed"].outcome == "regression"
    assert found["speed"].reason == "the head does not run: no such thing"
    commit(repository, SAME)
    with pytest.raises(BadInput, match=r"the base .* does not run here \(no such thing\): give another commit"):
        compared(repository)


def test_changes_that_no_commit_has_are_refused_or_measured_when_asked(repository):
    (repository / "harness" / "speeds.json").write_text('{"ms": [1.0, 2.2, 9.0]}')
    with pytest.raises(BadInput, match=r"1 tracked files are changed .*harness/speeds.json first"):
        compared(repository, base="HEAD")
    assert compared(repository, base="HEAD", dirty=True)["LinFusionAttention"].outcome == "regression"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"base": "no-such"}, r"gate.speed.base=no-such is no commit of this clone"),
        ({"base": "--help"}, r"is no commit of this clone"),
        ({"base": "HEAD"}, r"is the commit that is checked out"),
        ({"minutes": 0}, r"must be above zero"),
        ({"minutes": float("nan")}, r"must be above zero"),
        ({"repository": "/"}, r"lies in no git repository"),
        ({"repository": "/no/such"}, r"is no folder"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(repository, settings, sentence):
    with pytest.raises(BadInput, match=sentence):
        Speed(**({"base": "HEAD", "repository": str(repository)} | settings)).check()


def test_the_working_tree_against_itself_says_what_the_machine_resolves(repository):
    pairs, resolved = Speed(repository=str(repository), minutes=0.3).noise(0.05)
    assert pairs.count >= 4
    assert 0 < resolved < 0.2


BESIDE = '{"ms": [1.0, 2.0, 9.0], "reference": [4.0, 4.0, 20.0]}'


def test_speeds_of_a_file_are_ratios_to_the_reference_and_a_slower_mixer_is_found_by_them(tmp_path):
    folder = tmp_path / "repository"
    commit(folder, BESIDE)
    speed = Speed(repository=str(folder), passes=4)
    kept = speed.speeds("self_attention")
    assert set(kept) == {
        f"tiny linfusion 64 fp32 cpu @ {site}" for site in ("down.attn1", "up.attn1", "the whole call")
    }
    assert kept["tiny linfusion 64 fp32 cpu @ up.attn1"] == pytest.approx([math.log(0.5)] * 4, abs=0.02)
    commit(folder, '{"ms": [2.0, 4.8, 18.0], "reference": [8.0, 8.0, 40.0]}')  # a machine of half the speed
    found = {v.name: v for v in speed.against_file(kept | {"gone @ x": [0.1] * 4}, "self_attention", 0.05)}
    assert found["LinFusionAttention"].outcome == "regression"
    assert found["LinFusionAttention"].reason.startswith("LinFusionAttention at up.attn1 takes +")
    assert found["the whole call"].outcome == "pass"
    assert found["speed"].reason == "only the baseline has x"
