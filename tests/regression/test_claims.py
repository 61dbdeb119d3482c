"""Claims hold or fail by what is measured, and the README's table is what its file says."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_identity import experiment

from harness.records.case import BadInput
from harness.records.record import Reading
from harness.regression import readme_table
from harness.regression.claims import Claim, Claims

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = ROOT / "conf" / "gate" / "claims.yaml"
GOOD = {"say": "half", "metric": "flops", "of": "a b 64", "over": "a c 64", "at_most": 0.5}


def shipped() -> Claims:
    fields = OmegaConf.to_container(OmegaConf.load(CLAIMS))
    del fields["_target_"]
    return Claims(**fields)


def flops(value, low=None, high=None):
    return Reading("flops", "flops", value, "FLOP", "lower", "flops/v1", low=low, high=high)


@pytest.mark.parametrize(
    ("of", "outcome"),
    [
        (flops(49), "pass"),
        (flops(50), "pass"),
        (flops(51), "regression"),
        (flops(49, 47, 52), "inconclusive"),
        (flops(40, 38, 42), "pass"),
        (flops(60, 57, 63), "regression"),
    ],
)
def test_a_ratio_holds_where_its_whole_interval_does(of, outcome):
    verdict = Claim(**GOOD).judge(of, flops(100))
    assert (verdict.outcome, verdict.given) == (outcome, pytest.approx(of.value / 100))
    assert verdict.reason.startswith("flops of a b 64 over a c 64 is 0.")
    assert verdict.reason.endswith("claimed is at most 0.5")


def test_a_number_that_cannot_be_taken_decides_nothing():
    dash = Reading("flops", "flops", None, "FLOP", "lower", "flops/v1", reason="no shapes")
    verdict = Claim(**GOOD).judge(dash, flops(1))
    assert (verdict.outcome, verdict.reason) == ("inconclusive", "no shapes")


def test_at_least_is_the_other_side():
    claim = Claim("", "ds", "a b 64", at_least=7.0)
    assert [claim.judge(flops(value), None).outcome for value in (6, 8)] == ["regression", "pass"]


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ([], "file of claims is empty"),
        ([{}], r"claim 1 is none .*no field 'say'"),
        ([GOOD | {"colour": "red"}], r"claim 1 is none .*colour"),
        ([GOOD | {"at_most": "half"}], r"claim 1 is none \(field 'at_most' is 'half', not a number"),
        ([GOOD | {"of": 5}], r"claim 1 is none \(field 'of' is 5, not text"),
        ([GOOD | {"at_most": math.inf}], "needs one of at_most and at_least"),
        ([GOOD | {"at_least": 0.1}], "needs one of at_most and at_least"),
        ([GOOD | {"of": "sd15"}], "names the case 'sd15': write MODEL VARIANT SIZE"),
    ],
)
def test_a_file_without_claims_or_with_something_else_is_refused(claims, sentence):
    with pytest.raises(BadInput, match=sentence):
        Claims(claims).check([])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"colour": "red"}, "sets colour, which no run has"), ({"steps": [1, 2]}, "makes 2 cases of 'tiny_sd linfusion")],
)
def test_a_claim_of_no_single_case_is_refused_before_any_is_measured(monkeypatch, settings, sentence):
    monkeypatch.setattr("harness.regression.claims.run_case", lambda job: pytest.fail("measured"))
    good = {"say": "first", "metric": "flops", "of": "tiny_sd linfusion 64", "at_most": 1.0}
    with pytest.raises(BadInput, match=sentence):
        list(Claims([good, good | {"say": "second", "settings": settings}]).verify(experiment("tracker=none")))


def test_the_shipped_claims_are_claims_and_those_of_times_wait_to_be_asked_for():
    claims = shipped()
    claims.check([])
    assert claims.left_out() == sum(each["metric"] == "mixers_latency" for each in claims.claims) > 0


def test_the_readmes_table_is_what_its_file_says():
    rows = readme_table.load(ROOT / "conf" / "gate" / "table.json")
    written = readme_table.table(rows, shipped().labels)
    assert readme_table.standing(ROOT / "README.md") == written, "python -m harness gate table writes both anew"


def scored(make_record, model="tiny_sd", **values):
    numbers = {"attributes": 0.9, "clip_score": 90.0, "fdd": 2.5, "ds": 8.0} | values
    readings = tuple(Reading(name, name, value, "1", "higher", name) for name, value in numbers.items())
    return make_record(model=model, readings=readings)


def test_a_table_is_written_from_records_and_stands_between_the_marks(tmp_path, make_record):
    few = scored(make_record)
    few = replace(few, case=replace(few.case, n=few.case.n - 1), started="2020-01-01T00:00:00+00:00")
    records = [few, scored(make_record), make_record(), scored(make_record, "tiny_pixart", fdd=3.0)]
    rows = readme_table.rows_of(readme_table.told_by(records))
    path, readme = tmp_path / "table.json", tmp_path / "README.md"
    readme_table.save(path, rows, {"n": 512})
    assert readme_table.load(path) == rows
    assert json.loads(path.read_text())["taken"] == {"n": 512}
    text = readme_table.table(rows, {"self_attention": "teacher"})
    assert text.splitlines()[2:] == [
        "| `tiny_sd` | 64 | teacher | 90.0 % | 90.0 | 2.50 | 8.00 |",
        "| `tiny_pixart` | 64 | teacher | 90.0 % | 90.0 | 3.00 | 8.00 |",
    ]
    readme.write_text(f"before\n{readme_table.BEGIN}\nold\n{readme_table.END}\nafter\n")
    readme_table.write(readme, text)
    readme_table.write(readme, text)
    assert readme_table.standing(readme) == text
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("\nafter\n")


def test_what_holds_no_table_is_refused(tmp_path, make_record):
    with pytest.raises(BadInput, match=r"no record there has .*\+sweep=quality"):
        readme_table.told_by([make_record()])
    (tmp_path / "x").write_text('{"rows": [{}]}')
    for path in (tmp_path / "x", tmp_path / "absent"):
        with pytest.raises(BadInput, match="holds no table"):
            readme_table.load(path)
    with pytest.raises(BadInput, match="lacks the marks"):
        readme_table.standing(tmp_path / "x")
