"""Verdicts as others read them, and how gains are weighed."""

from xml.etree import ElementTree

import pytest

from harness.records.case import BadInput
from harness.regression.tell import Tell, annotation, junit, markdown
from harness.regression.verdict import Verdict, cells, exit_status, weighed, worst

CASE = "tiny_sd linfusion 64 fp32 cpu"


def verdict(outcome, tier="speed", name="LinFusionAttention", reason="takes +10 % | <b>\x07", case=CASE, decide=""):
    return Verdict(name, case, outcome, 1.1, 1.0, reason, tier, decide)


MANY = [
    verdict("pass", "exact", case="tiny_sd linfusion 64 fp32"),
    verdict("regression"),
    verdict("inconclusive", "quality", "clip_score", decide="about n = 90 images would tell"),
    verdict("pass", case="tiny_sd deltaconv 64 fp32 cpu"),
]


def test_junit_counts_regressions_as_failures_and_what_is_inconclusive_as_errors():
    root = ElementTree.fromstring(junit(MANY))
    suites = {suite.get("name"): suite for suite in root}
    assert (suites[CASE].get("tests"), suites[CASE].get("failures"), suites[CASE].get("errors")) == ("3", "1", "1")
    (failure,) = root.iter("failure")
    assert failure.get("message") == "takes +10 % | <b>"
    (error,) = root.iter("error")
    assert error.text.endswith("what would decide: about n = 90 images would tell")


def test_markdown_has_a_row_a_case_and_a_sentence_for_all_that_is_no_pass():
    told = markdown(MANY)
    assert told.startswith("## ❌ Gate: regression (exit status 1)\n")
    rows = [line for line in told.splitlines() if line.startswith("| tiny")]
    assert rows[0] == "| tiny\\_sd linfusion 64 fp32 cpu | ❌ regression | pass | regression | inconclusive |"
    assert len(rows) == 2
    assert "takes +10 % \\| &lt;b>" in told
    assert told.count("\n- ") == 2


def test_an_annotation_is_one_line_that_github_reads():
    told = annotation(verdict("regression", reason="50%\nslower", name="a: b, c"))
    assert told == f"::error title={CASE}%3A a%3A b%2C c::50%25%0Aslower"


def test_files_are_written_with_their_folders_and_an_impossible_one_is_refused(tmp_path):
    said = []
    tell = Tell(tmp_path / "a" / "gate.xml", tmp_path / "a" / "gate.md", annotations=True)
    tell(MANY, said.append)
    assert (tmp_path / "a" / "gate.xml").read_text().startswith("<?xml")
    assert (tmp_path / "a" / "gate.md").is_file()
    assert [line.split(" ")[0] for line in said] == ["::error", "::warning"]
    with pytest.raises(BadInput, match="cannot be written"):
        Tell(junit=tmp_path / "a" / "gate.xml" / "below")(MANY)


def test_the_exact_tier_joins_the_case_of_every_device():
    assert [(cell.case, len(cell.verdicts)) for cell in cells(MANY)] == [
        (CASE, 3),
        ("tiny_sd deltaconv 64 fp32 cpu", 1),
    ]


@pytest.mark.parametrize(
    ("quality", "outcome", "why"),
    [
        ("pass", "improvement", "not inferior"),
        ("inconclusive", "pass", "not known to be as good"),
        (None, "pass", "was not"),
    ],
)
def test_a_gain_of_speed_counts_only_where_quality_is_known_not_to_be_inferior(quality, outcome, why):
    given = [verdict("improvement")] + ([verdict(quality, "quality", "clip_score")] if quality else [])
    (found,) = [one for one in weighed(given) if one.tier == "speed"]
    assert found.outcome == outcome
    assert why in found.reason


@pytest.mark.parametrize(("cost", "outcome"), [("pass", "improvement"), ("regression", "pass"), (None, "pass")])
def test_a_gain_of_quality_counts_only_beside_its_cost(cost, outcome):
    given = [verdict("improvement", "quality", "clip_score")] + ([verdict(cost)] if cost else [])
    (found,) = [one for one in weighed(given) if one.tier == "quality"]
    assert found.outcome == outcome


@pytest.mark.parametrize(
    ("outcomes", "all_in_all", "status"),
    [
        (["pass", "improvement"], "improvement", 0),
        (["improvement", "inconclusive"], "inconclusive", 3),
        (["inconclusive", "regression"], "regression", 1),
        ([], "pass", 0),
    ],
)
def test_the_worst_decides(outcomes, all_in_all, status):
    verdicts = [verdict(outcome) for outcome in outcomes]
    assert (worst(verdicts), exit_status(verdicts)) == (all_in_all, status)
