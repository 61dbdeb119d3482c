"""The gate catches what is planted, lets a repeated run through, and never calls green what it could not compare."""

import json
from dataclasses import replace
from importlib import resources

import pytest
from conftest import example_readings

from harness.records.case import BadInput
from harness.records.record import Reading
from harness.regression.baseline import Baseline, locate
from harness.regression.gate import Gate, NoGate
from harness.regression.speed import Speed
from harness.regression.verdict import Verdict, exit_status


@pytest.fixture
def run(make_record):
    """A run of two variants; planted changes go to linfusion."""

    def make(status="ok", machine=None, **planted):
        teacher = make_record(readings=example_readings(latency_ms=20.0))
        student = make_record(variant="linfusion", readings=example_readings(**planted), status=status)
        made_on = machine or teacher.machine
        return [replace(teacher, machine=made_on), replace(student, machine=made_on)]

    return make


@pytest.fixture
def gate(tmp_path, run):
    """A gate whose baseline is such a run."""
    path = tmp_path / "baseline.json"
    gate = Gate(str(path), tolerance=0.25)
    replace(gate, update=True)(run())
    return gate


def changed(verdicts):
    return {
        (verdict.case.split()[1], verdict.name): verdict.outcome for verdict in verdicts if verdict.outcome != "pass"
    }


def changing(records, name, **changes):
    """The same run with one reading of linfusion changed, or taken away."""
    teacher, student = records
    readings = [replace(r, **changes) if r.name == name else r for r in student.readings]
    return [teacher, replace(student, readings=tuple(r for r in readings if changes or r.name != name))]


def test_a_repeated_run_passes_every_reading(gate, run):
    verdicts = gate(run())
    assert {(v.case, v.name) for v in verdicts} == {
        ("tiny_sd linfusion 64 fp32 cpu", "clip_score"),
        ("tiny_sd linfusion 64 fp32 cpu", "flops"),
        ("tiny_sd linfusion 64 fp32 cpu", "latency"),
        ("tiny_sd self_attention 64 fp32 cpu", "clip_score"),
        ("tiny_sd self_attention 64 fp32 cpu", "flops"),
    }
    assert changed(verdicts) == {}
    assert exit_status(verdicts) == 0


@pytest.mark.parametrize("flops", [999_999, 1_000_001])
def test_a_price_that_moved_by_one_is_a_regression(gate, run, flops):
    verdicts = gate(run(flops=flops))
    assert changed(verdicts) == {("linfusion", "flops"): "regression"}
    assert exit_status(verdicts) == 1
    (verdict,) = [verdict for verdict in verdicts if verdict.outcome == "regression"]
    assert (verdict.given, verdict.expected) == (flops, 1_000_000)
    assert verdict.reason == (
        f"flops is {flops} FLOP, the baseline 1000000, and prices must be equal: "
        "if that is meant, gate.update=true writes it down"
    )


@pytest.mark.parametrize(
    ("latency_ms", "outcome"), [(8, "pass"), (12.4, "pass"), (12.6, "inconclusive"), (14, "regression")]
)
def test_a_slow_down_beyond_the_tolerance_is_caught_once_its_interval_excludes_it(gate, run, latency_ms, outcome):
    verdicts = gate(run(latency_ms=latency_ms))
    assert {v.outcome for v in verdicts if v.name == "latency"} == {outcome}


def test_a_slower_machine_is_no_regression_where_the_ratio_stays(gate, run):
    slower = [
        replace(
            r,
            readings=tuple(
                replace(x, value=x.value * 3, low=x.low * 3, high=x.high * 3) if x.unit == "ms" else x
                for x in r.readings
            ),
        )
        for r in run()
    ]
    assert changed(gate(slower)) == {}


def test_a_slow_down_is_inconclusive_on_another_machine_or_under_noise_or_without_an_interval(gate, run):
    elsewhere = gate(run(latency_ms=20, machine={"cpu": "another", "threads": 2, "gpu": None}))
    noisy = gate(changing(run(latency_ms=20), "latency", details={"noisy": "noisy machine: stolen time"}))
    single = gate(changing(run(latency_ms=20), "latency", low=None, high=None))
    for verdicts, why in (
        (elsewhere, "the baseline was taken on another machine"),
        (noisy, "noisy machine: stolen time"),
        (single, "too few samples for an interval"),
    ):
        assert changed(verdicts) == {("linfusion", "latency"): "inconclusive"}
        assert why in next(v.reason for v in verdicts if v.outcome == "inconclusive")
        assert exit_status(verdicts) == 3


def paired(value, half=0.02, protocol="latency_ratio/v1"):
    """A ratio that was taken in alternation."""
    return Reading(
        "latency", "latency_ratio", value, "x", "lower", protocol, 50, value * (1 - half), value * (1 + half)
    )


def with_ratio(records, value, **more):
    teacher, student = records
    ratios = (paired(1.0), paired(value, **more))
    return [replace(r, readings=(*r.readings, ratio)) for r, ratio in zip((teacher, student), ratios, strict=True)]


@pytest.mark.parametrize(
    ("ratio", "outcome"), [(1.3, "pass"), (1.61, "pass"), (1.64, "inconclusive"), (1.8, "regression")]
)
def test_where_a_ratio_was_taken_in_alternation_it_is_judged_and_the_latency_is_not(gate, run, ratio, outcome):
    """1.3 and a quarter more is 1.625. The latency doubled between two cases, which says nothing."""
    replace(gate, update=True)(with_ratio(run(), 1.3))
    verdicts = gate(with_ratio(run(latency_ms=20.0), ratio))
    assert {v.case.split()[1]: v.outcome for v in verdicts if v.name == "latency_ratio"} == {
        "self_attention": "pass",
        "linfusion": outcome,
    }
    assert [v for v in verdicts if v.name == "latency"] == []
    if outcome == "regression":
        (verdict,) = [v for v in verdicts if v.outcome == outcome]
        assert verdict.reason.startswith("latency_ratio is 1.8 x self_attention, the baseline 1.3 x: +38.5% (+")


def test_a_ratio_is_judged_on_a_busy_machine_and_not_on_another(gate, run):
    """What disturbs variant and teacher alike has cancelled; another processor has not."""
    replace(gate, update=True)(with_ratio(run(), 1.3))
    busy = changing(run(), "latency", details={"noisy": "other work kept 2.0 cores busy"})
    assert changed(gate(with_ratio(busy, 2.0))) == {("linfusion", "latency_ratio"): "regression"}
    elsewhere = run(machine={"cpu": "another", "threads": 2, "gpu": None})
    assert changed(gate(with_ratio(elsewhere, 2.0))) == {("linfusion", "latency_ratio"): "inconclusive"}


def test_a_ratio_without_an_interval_is_no_regression(gate, run):
    replace(gate, update=True)(with_ratio(run(), 1.3))
    teacher, student = with_ratio(run(), 2.0)
    bare = tuple(replace(r, low=None, high=None) if r.name == "latency_ratio" else r for r in student.readings)
    verdicts = gate([teacher, replace(student, readings=bare)])
    assert changed(verdicts) == {("linfusion", "latency_ratio"): "inconclusive"}
    assert "too few samples for an interval" in next(v.reason for v in verdicts if v.outcome == "inconclusive")


def test_a_baseline_from_before_the_ratio_still_judges_the_latency_and_says_what_it_lacks(gate, run):
    verdicts = gate(with_ratio(run(latency_ms=14), 1.3))
    assert {v.outcome for v in verdicts if v.name == "latency"} == {"regression"}
    assert {v.outcome for v in verdicts if v.name == "latency_ratio"} == {"inconclusive"}


def test_a_latency_without_its_reference_in_the_run_is_inconclusive(gate, run):
    verdicts = gate(run()[1:])
    assert changed(verdicts)["linfusion", "latency"] == "inconclusive"


@pytest.mark.parametrize(("clip", "outcome"), [(27.5, "pass"), (26.9, "pass"), (26.0, "regression")])
def test_a_score_may_lose_its_margin_and_no_more(gate, run, clip, outcome):
    shifted = changing(run(), "clip_score", value=clip, samples=tuple(clip + d / 100 for d in range(-3, 4)))
    base = changing(run(), "clip_score", samples=tuple(27 + d / 100 for d in range(-3, 4)))
    replace(gate, update=True)(base)
    assert {v.outcome for v in gate(shifted) if v.case.split()[1] == "linfusion" and v.name == "clip_score"} == {
        outcome
    }


def test_a_paired_score_that_scatters_is_inconclusive_and_says_how_many_images_would_tell(gate, run):
    replace(gate, update=True)(changing(run(), "clip_score", samples=(27.0,) * 8))
    scattered = changing(run(), "clip_score", value=26.9, samples=(22.9, 30.9) * 4, n=8)
    (verdict,) = [v for v in gate(scattered) if v.outcome != "pass"]
    assert verdict.outcome == "inconclusive"
    assert "images would tell" in verdict.reason


def test_a_set_level_score_is_compared_by_its_jackknife_groups(gate, run):
    fdd = Reading("fdd", "fdd", 100.0, "1", "lower", "fdd/v1", 64, 60, 140, details={"replicates": [99.0, 101.0] * 5})
    teacher, student = run()
    replace(gate, update=True)([teacher, replace(student, readings=(*student.readings, fdd))])
    for shift, outcome in ((0, "pass"), (1, "pass"), (9, "regression")):
        worse = replace(fdd, value=100.0 + shift, details={"replicates": [99.0 + shift, 101.0 + shift] * 5})
        verdicts = gate([teacher, replace(student, readings=(*student.readings, worse))])
        assert [v.outcome for v in verdicts if v.name == "fdd"] == [outcome]


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("flops", {"protocol": "flops/v2"}, "it was taken as 'flops/v2', the baseline as 'flops/analytic-v1'"),
        ("clip_score", {"protocol": "clip/v2"}, "it was taken as 'clip/v2', the baseline as 'clip/v1'"),
        ("clip_score", {}, "the baseline has this reading, the run does not (it was not asked for)"),
        ("clip_score", {"value": None, "reason": "too few images"}, "the run does not (too few images)"),
    ],
)
def test_what_cannot_be_compared_is_inconclusive_with_its_reason(gate, run, name, changes, why):
    verdicts = gate(changing(run(), name, **changes))
    assert changed(verdicts) == {("linfusion", name): "inconclusive"}
    reason = next(v.reason for v in verdicts if v.outcome == "inconclusive")
    assert why in reason
    assert reason.endswith("if that is meant, gate.update=true writes it down")


def test_other_settings_leave_only_the_prices_comparable(gate, run):
    fewer = [replace(record, case=replace(record.case, n=3)) for record in run()]
    verdicts = gate(fewer)
    assert {v.name for v in verdicts if v.outcome == "pass"} == {"flops"}
    assert all("n 3 against 4" in v.reason for v in verdicts if v.outcome != "pass")


def test_a_case_or_reading_that_only_one_side_has_is_inconclusive(gate, run, make_record):
    assert changed(gate(run()[:1])) == {("linfusion", "baseline"): "inconclusive"}
    more = [*run(), make_record(variant="deltaconv")]
    assert changed(gate(more)) == {("deltaconv", "baseline"): "inconclusive"}
    teacher, student = run()
    extra = Reading("ds", "ds", 3.0, "1", "higher", "ds/v1")
    assert changed(gate([teacher, replace(student, readings=(*student.readings, extra))])) == {
        ("linfusion", "ds"): "inconclusive"
    }


def test_nothing_at_all_is_not_green_and_a_missing_file_is_bad_input(tmp_path, gate, run):
    replace(gate, update=True)([])
    assert exit_status(gate([])) == 3
    with pytest.raises(BadInput, match=r"there is no baseline at .*write one with gate.update=true"):
        Gate(str(tmp_path / "absent.json")).check([])


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("failed", "regression"),
        ("out_of_memory", "regression"),
        ("timeout", "regression"),
        ("unavailable", "inconclusive"),
    ],
)
def test_a_case_that_no_longer_ends_well_is_said_once(gate, run, status, outcome):
    teacher, student = run(status=status)
    verdicts = gate([teacher, replace(student, readings=())])
    assert changed(verdicts) == {("linfusion", "status"): outcome}


def test_updating_writes_the_same_bytes_in_any_order_with_one_line_a_reading(tmp_path, gate, run):
    path = tmp_path / "baseline.json"
    before = path.read_bytes()
    verdicts = replace(gate, update=True)(run()[::-1])
    assert path.read_bytes() == before
    assert {v.outcome for v in verdicts} == {"pass"}
    assert sum('"metric"' in line for line in before.decode().splitlines()) == 6
    kept = json.loads(before)
    assert {name: kept["machine"][name] for name in ("cpu", "threads", "gpu")} == run()[0].machine
    assert kept["taken"]["when"] == run()[0].started
    assert b"samples" in before


def test_bad_baselines_are_bad_input(tmp_path, gate, run):
    bad = tmp_path / "bad.json"
    whole = '{"schema": 2, "machine": %s, "taken": {}, "speed": %s, "cases": {"x": %s}}'
    entry = '{"settings": %s, "status": "ok", "readings": {}}'
    for text in (
        "{",
        "[" * 9999,
        "[]",
        '{"schema": 1}',
        '{"schema": 2, "machine": {}, "cases": {"x": {}}}',
        whole % ("[]", "{}", entry % "{}"),
        whole % ("{}", '{"x @ y": "abc"}', entry % "{}"),
        whole % ("{}", "{}", entry % "[]"),
        whole % ("{}", "{}", '{"settings": {}, "status": "ok", "readings": {"flops": {"value": "many"}}}'),
    ):
        bad.write_text(text)
        with pytest.raises(BadInput, match=r"is not a baseline .*or write it anew with gate.update=true"):
            Gate(str(bad))(run())
    with pytest.raises(BadInput, match="cannot be written"):
        Gate(str(bad / "below.json"), update=True)(run())
    with pytest.raises(BadInput, match="names no package"):
        Gate("pkg://no_such_package/x.json")(run())
    for name in ("margin", "tolerance"):
        for share in (0, -1):
            with pytest.raises(BadInput, match="are shares above zero"):
                replace(gate, **{name: share}).check([])
    with pytest.raises(BadInput, match="gate the records of one sweep at a time"):
        gate([*run(), replace(run()[0], case=replace(run()[0].case, n=9))])


def test_a_baseline_of_another_world_or_with_speeds_of_another_machine_is_refused_before_anything_runs(gate, run):
    elsewhere = [replace(record.case, world="laion") for record in run()]
    with pytest.raises(BadInput, match=r"taken in the world 'shapes' and this run is in 'laion'.*give world="):
        gate.check(elsewhere)
    path = locate(gate.baseline)
    replace(Baseline.load(path), speed={"x @ y": [0.1]}).save(path)
    gate.check([record.case for record in run()])
    with pytest.raises(BadInput, match=r"speeds are of made up and this is .*gate.speed.base=COMMIT"):
        replace(gate, speed=Speed()).check([record.case for record in run()])


def test_a_baseline_is_not_written_on_a_disturbed_machine_unless_forced(gate, run):
    noisy = changing(run(), "latency", details={"noisy": "other work kept 2.0 cores busy"})
    with pytest.raises(BadInput, match=r"disturbed while 1 readings were taken \(other work kept 2.0 cores busy\)"):
        replace(gate, update=True)(noisy)
    assert {v.outcome for v in replace(gate, update=True, force=True)(noisy)} == {"pass"}


def test_a_case_that_failed_is_no_baseline_unless_forced(gate, run):
    broken = run(status="failed")
    with pytest.raises(BadInput, match=r"^tiny_sd linfusion 64 fp32 cpu failed \(.*, or give gate.force=true$"):
        replace(gate, update=True)(broken)
    assert {v.outcome for v in replace(gate, update=True, force=True)(broken)} == {"pass"}


def test_speeds_are_no_baseline_on_a_busy_machine_unless_forced(gate, run, monkeypatch):
    monkeypatch.setattr("harness.regression.gate._disturbed", lambda: "other work kept 1.0 cores busy")
    monkeypatch.setattr(Speed, "speeds", lambda self, reference: {"x @ y": [0.5]})
    writing = replace(gate, update=True, speed=Speed())
    with pytest.raises(BadInput, match=r"^other work kept 1.0 cores busy, and speeds of a disturbed machine"):
        writing(run())
    replace(writing, force=True)(run())
    assert Baseline.load(locate(gate.baseline)).speed == {"x @ y": [0.5]}


WEIGHTS = "the weights of LinFusionAttention"
NOISY = {WEIGHTS: {"up.attn1": "abc", "mid.attn1": "def", "down.attn1": "x"}}


def made_of(**changed):
    parts = {"the sampler": "DPM 1", WEIGHTS: {"up.attn1": "abc", "mid.attn1": "abc", "down.attn1": "abc"}} | changed
    return Reading("ingredients", "ingredients", len(parts), "1", "neither", "ingredients/v2", details=parts)


def with_score(records, clip, **changed):
    """A run whose linfusion scores that in every image, and what it is made of."""
    shifted = changing(records, "clip_score", value=clip, samples=tuple(clip + d / 100 for d in range(-3, 4)))
    return [replace(record, readings=(*record.readings, made_of(**changed))) for record in shifted]


@pytest.mark.parametrize(
    ("clip", "changed", "outcome", "why"),
    [
        (26.0, {}, "regression", "nothing changed, so it is the code"),
        (26.0, {"the sampler": "DDIM 2"}, "regression", "the sampler changed (DPM 1 -> DDIM 2)"),
        (28.0, {}, "inconclusive", "it is better by surprise"),
        (28.0, NOISY, "pass", f"{WEIGHTS} at mid.attn1 and 1 more changed (abc -> def); no gain: costs"),
        (28.0, {WEIGHTS: {}}, "pass", f"{WEIGHTS} at up.attn1 and 2 more changed (abc -> unknown); no gain: costs"),
        (27.0, {}, "pass", "a loss of 0"),
    ],
)
def test_a_score_is_judged_on_both_sides_with_the_cause_that_is_known(gate, run, clip, changed, outcome, why):
    replace(gate, update=True)(with_score(run(), 27.0))
    without_prices = [
        replace(r, readings=tuple(x for x in r.readings if x.unit == "1")) for r in with_score(run(), clip, **changed)
    ]
    verdicts = gate(without_prices)
    (verdict,) = [v for v in verdicts if v.name == "clip_score" and "linfusion" in v.case]
    assert verdict.outcome == outcome
    assert why in verdict.reason


def test_other_ingredients_are_asked_about_even_where_no_score_moved(gate, run):
    replace(gate, update=True)(with_score(run(), 27.0))
    asked = gate(with_score(run(), 27.0, **{"the sampler": "DDIM 2"}))
    (verdict,) = [v for v in asked if "linfusion" in v.case and v.outcome != "pass"]
    assert (verdict.name, verdict.outcome) == ("ingredients", "inconclusive")
    assert verdict.reason == "the sampler changed (DPM 1 -> DDIM 2)"


def test_a_baseline_may_lie_in_a_package():
    assert locate("pkg://conf/gate/ci.json") == resources.files("conf") / "gate" / "ci.json"


def test_a_case_with_counted_costs_alone_is_judged_by_them(tmp_path, make_record):
    site = {"mixer": "Mine", "tokens": [4, 4], "channels": 8, "flops": 10, "parameters": 3, "bytes": 5, "operators": {}}
    body = {"flops": {"other": 7}, "parameters": 9, "bytes": 11, "at": "aten.mm"}

    def counted(flops):
        details = {"sites": {"a.attn1": site | {"flops": flops}}, "body": body, "torch": "2.14.1"}
        return [make_record(readings=(Reading("site_costs", "site_costs", 1, "1", "neither", "v1", details=details),))]

    gate = Gate(str(tmp_path / "gate.json"), exact=str(tmp_path / "exact.txt"))
    replace(gate, update=True)(counted(1000))
    assert [verdict.outcome for verdict in gate(counted(1000))] == ["pass"]
    (verdict,) = gate(counted(1020))
    assert verdict.reason.startswith("Mine at a.attn1: FLOPs 1,000 -> 1,020 (+20, +2.00%)")
    assert (verdict.outcome, verdict.tier) == ("regression", "exact")


def test_no_gate_says_nothing_and_is_green(run):
    assert NoGate()(run()) == []
    assert exit_status([]) == 0


def test_a_regression_outweighs_what_is_inconclusive():
    def verdict(outcome):
        return Verdict("x", "y", outcome, None, None, "")

    assert exit_status([verdict("pass"), verdict("inconclusive"), verdict("regression")]) == 1
