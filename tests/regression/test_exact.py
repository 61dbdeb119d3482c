"""The exact tier: a text that reads back as it was written, names mixer and site, and lets nothing through."""

from dataclasses import replace
from difflib import ndiff

import pytest

from baselines import LinFusionAttention
from harness.counted.site_costs import SiteCosts
from harness.distillation.student import Student
from harness.models.unet import UNetModel
from harness.records.case import BadInput
from harness.records.record import Record
from harness.regression.exact import BODY, Exact, judge
from harness.trial import Trial

SITE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
NAME = "tiny_sd linfusion 64 fp32"


class Wider(LinFusionAttention):
    """A mixer with one parameter more."""

    def __init__(self, *given, **settings):
        super().__init__(*given, **settings)
        import torch

        self.extra = torch.nn.Parameter(torch.zeros(1))


@pytest.fixture(scope="module")
def model():
    return UNetModel("tiny_sd", "pkg://harness.shapes/weights/tiny_sd")


@pytest.fixture
def counted(model, make_case):
    """The exact costs of LinFusion on the tiny UNet, with other settings or another class where they are given."""

    def count(factory=LinFusionAttention.for_site, torch="") -> Exact:
        case = make_case(variant="linfusion", mixer=str(factory))
        trial = Trial(case, model, factory, None, Student("tiny_sd", "linfusion"))
        (reading,) = SiteCosts()(trial)
        if torch:
            reading = replace(reading, details=reading.details | {"torch": torch})
        return Exact.of([Record(case, "ok", readings=(reading,))])

    return count


def test_the_text_reads_back_as_it_was_written_and_passes_against_itself(counted):
    found = counted()
    assert Exact.parse(found.text()) == found
    assert [(v.case, v.outcome) for v in judge(found, Exact.parse(found.text()))] == [(NAME, "pass")]
    assert found.costs[NAME][SITE]["mixer"] == "LinFusionAttention on 16x16 tokens of 48 channels"
    assert found.text() == Exact.parse(found.text()).text()


def test_one_parameter_more_is_named_by_mixer_and_site_and_is_one_line_of_the_difference(counted):
    before, after = counted(), counted(Wider.for_site)
    wrong = [verdict for verdict in judge(after, before) if verdict.name == "parameters"]
    assert {verdict.outcome for verdict in wrong} == {"regression"}
    assert wrong[0].reason.startswith(f"Wider at {SITE} and 2 more: parameters ")
    assert "(+1, +0.0" in wrong[0].reason
    lines = ndiff(before.text().splitlines(), after.text().splitlines())
    assert sum(line.startswith("+     parameters") for line in lines) == 7


def test_a_share_of_flops_more_is_named_with_its_share(counted):
    from functools import partial

    (verdict,) = {
        v.reason
        for v in judge(counted(partial(LinFusionAttention.for_site, mid_channels=25)), counted())
        if v.name == "FLOPs" and SITE in v.reason
    }
    assert verdict.startswith(f"LinFusionAttention at {SITE} and 2 more: FLOPs ")
    assert "%)" in verdict


def test_the_body_is_judged_as_well(counted):
    found = counted()
    planted = {NAME: found.costs[NAME] | {BODY: found.costs[NAME][BODY] | {"feed_forward FLOPs": "1"}}}
    (verdict,) = judge(Exact(found.torch, planted), found)
    assert verdict.reason.startswith(f"{BODY}: feed_forward FLOPs ")
    assert verdict.outcome == "regression"


def test_operators_of_another_torch_are_asked_about_and_flops_are_judged(counted):
    found, older = counted(), counted(torch="2.6.0")
    costs = {site: dict(values) for site, values in older.costs[NAME].items()}
    costs[SITE] |= {"operators": "mm 1", "FLOPs": "1"}
    outcomes = {v.name: v.outcome for v in judge(found, replace(older, costs={NAME: costs}))}
    assert outcomes == {"operators": "inconclusive", "FLOPs": "regression"}


def test_a_case_that_one_side_lacks_is_inconclusive(counted):
    found = counted()
    for now, then in ((found, Exact(found.torch, {})), (Exact(found.torch, {}), found)):
        assert [v.outcome for v in judge(now, then)] == ["inconclusive"]


def test_what_is_no_such_text_is_refused_with_its_first_bad_line(tmp_path, counted):
    path = tmp_path / "exact.txt"
    with pytest.raises(BadInput, match=r"there is no text of exact costs .*gate.update=true"):
        Exact.load(path)
    homeless = counted().text() + "\n    of  no case\n"
    for text in ("", "other\n", homeless, counted().text() + "   three blanks\n", counted().text() + "    one word\n"):
        path.write_text(text)
        with pytest.raises(BadInput, match="is no text of exact costs"):
            Exact.load(path)


def test_of_operators_those_that_differ_are_named(counted):
    found = counted()
    planted = {site: dict(costs) for site, costs in found.costs[NAME].items()}
    planted[SITE]["operators"] += ", zeros 2"
    (verdict,) = judge(replace(found, costs={NAME: planted}), found)
    assert f"LinFusionAttention at {SITE}: operators zeros 0 -> zeros 2: " in verdict.reason
