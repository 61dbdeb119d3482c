"""The page tells the truth: one cost is one number everywhere, what was disturbed looks so, laws do not fly."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from report_page import Page

from harness.records.case import Resolution
from harness.records.record import Reading, Record
from harness.records.store import Store
from reports import charts, compare, laws, load, pareto, render, tables
from reports.answers import _faster
from reports.compare import Series
from reports.findings import briefs
from reports.law_tables import law_table
from reports.model_section import model_section
from reports.pictures import Room
from reports.ratios import CostRatio, Ratios

SIZE = Resolution(64, 64)
PALETTE = charts.palette(["self_attention", "linfusion"])
Make = Callable[..., Record]


def flops(value: int) -> Reading:
    return Reading("flops", "flops", value, "FLOP", "lower", "flops/v1")


def timing(ms: float, pace: float = 100.0, noisy: str = "", warm: int = 5, name: str = "latency") -> Reading:
    """A call's time; `pace` is the teacher's own, taken again in every case."""
    details = {"noisy": noisy, "teacher": {"median": pace, "moved": 0.0}, "warm_up_calls": warm}
    return Reading("latency", name, ms, "ms", "lower", "latency/v1", 9, 0.98 * ms, 1.02 * ms, details=details)


def alternated(value: float, noisy: str = "") -> Reading:
    details = {"noisy": noisy}
    ends = (0.97 * value, 1.03 * value)
    return Reading("latency", "latency_ratio", value, "x", "lower", "ratio/v1", 10, *ends, details=details)


def clip(value: float, real: float = 93.0, n: int = 64) -> Reading:
    """A score whose images scatter little, so that a point is a real difference."""
    samples = tuple(value + 0.01 * (i % 7 - 3) for i in range(n))
    details = {"real": real}
    ends = (value - 0.1, value + 0.1)
    return Reading("clip_score", "clip_score", value, "1", "higher", "clip/v1", n, *ends, "", samples, details)


@pytest.fixture
def kept(tmp_path: Path, make_record: Make):
    """Keeps records by (variant, side of the image) and returns what is in the store."""

    def make(readings: dict[tuple[str, int], tuple[Reading, ...]], **changes: object):
        for (variant, side), taken in readings.items():
            metrics = tuple(dict.fromkeys(reading.metric for reading in taken))
            size = Resolution(side, side)
            Store(tmp_path).put(make_record(taken, variant=variant, resolution=size, metrics=metrics, **changes))
        return load(tmp_path).records

    return make


def three_answers(kept, noisy: str = ""):
    """Separate runs say 0.88, the alternation 1.37: the machine's pace moved between them."""
    return kept(
        {
            ("self_attention", 64): (flops(200), timing(100, 100.0), alternated(1.0), clip(90)),
            ("linfusion", 64): (flops(150), timing(88, 64.0, noisy), alternated(1.37, noisy), clip(90.0)),
        }
    )


def test_a_latency_ratio_is_the_alternations_in_verdicts_tables_charts_laws_and_words(kept, tmp_path):
    records = three_answers(kept)
    found = compare.groups(records)
    (brief,) = briefs(found)
    assert "Latency 1.37× (1.33× to 1.41×)" in brief.rows[0].costs
    (block,) = tables.summary(records)
    column = next(i for i, one in enumerate(block.columns) if one.name == "latency")
    cell = dict(block.rows)[Series("linfusion")][column]
    assert (cell.text, cell.tone, cell.small[:2]) == ("1.37×", "worse", ("1.33× to 1.41×", "in alternation"))
    assert "latency_ratio" not in {one.name for one in block.columns}
    chart = next(c for c in pareto.tradeoff_charts(found, PALETTE) if c.choice == "latency")
    places = {trace["name"]: trace["x"] for trace in chart.figure["data"] if trace["mode"] == "markers"}
    assert places == {"self_attention": [1.0], "linfusion": [1.37]}
    text = Page(render(tmp_path)).text + (tmp_path / "summary.md").read_text()
    assert "takes 37 % more time" in text
    assert "0.88" not in re.sub(r"88\.0.ms", "", text)


def test_the_chosen_variant_is_told_once_and_so_is_what_is_left_open(kept, tmp_path):
    cheap = {variant: (timing(50), alternated(0.5)) for variant in ("linfusion", "deltaconv")}
    busy = {variant: (timing(50, noisy="busy"), alternated(0.5, "busy")) for variant in cheap}
    small = {(variant, 64): (*taken, flops(100)) for variant, taken in cheap.items()}
    large = {(variant, 128): (*taken, flops(100)) for variant, taken in busy.items()}
    teacher = {("self_attention", side): (timing(100), alternated(1.0), flops(200)) for side in (64, 128)}
    kept(teacher | small | large)
    render(tmp_path)
    said = (tmp_path / "summary.md").read_text().partition("## ")[0]
    assert said.count("linfusion") == said.count("deltaconv") == 1
    assert said.count("At 64 px") + said.count("at 64 px") == 2
    assert said.count("Time at 128 px is left open: a timing bears ⚠ in the tables.") == 1


def test_where_no_cost_was_taken_the_first_sentence_says_that_and_no_more(kept, tmp_path):
    kept({("self_attention", 64): (clip(90),), ("linfusion", 64): (clip(90),)})
    render(tmp_path)
    said = (tmp_path / "summary.md").read_text()
    assert "tiny_sd: what its variants cost was not taken here (metrics=[flops,latency] takes it)." in said
    assert "is shown to cost less" not in said


def test_a_quotient_of_separate_runs_is_called_so_widened_by_the_drift_and_without_colour(kept):
    records = kept(
        {
            ("self_attention", 64): (timing(100, pace=100.0),),
            ("linfusion", 64): (timing(50, pace=80.0),),
        }
    )
    (block,) = tables.summary(records)
    cell = dict(block.rows)[Series("linfusion")][0]
    assert (cell.text, cell.tone) == ("0.50×", "")
    assert cell.small[:2] == ("0.38× to 0.65×", "separate runs")  # 0.98/1.02 and its inverse, each by 100/80
    (brief,) = briefs(compare.groups(records))
    assert brief.rows[0].costs == ("Latency 0.50× (0.38× to 0.65×, of separate runs)",)


def test_a_number_that_was_disturbed_is_marked_with_its_reason_and_decides_nothing(kept, tmp_path):
    why = "other work kept 1.7 cores busy"
    records = three_answers(kept, noisy=why)
    (block,) = tables.summary(records)
    cell = dict(block.rows)[Series("linfusion")][2 if block.columns[2].name == "latency" else 1]
    assert (cell.tone, cell.disturbed) == ("", why)
    assert why in block.reasons
    chart = next(c for c in pareto.tradeoff_charts(compare.groups(records), PALETTE) if c.choice == "latency")
    symbols = {trace["name"]: trace["marker"]["symbol"] for trace in chart.figure["data"] if "marker" in trace}
    assert symbols["linfusion"].endswith("-open")
    assert not any(trace["name"] == "front" for trace in chart.figure["data"])
    page = Page(render(tmp_path))
    assert "⚠" in page.text
    assert "other work kept … cores busy" in page.text
    assert why in {row[-1] for row in page.readings}
    assert "⚠ 1.37× (1.33× to 1.41×, in alternation, 88.0 ms) [1]" in (tmp_path / "summary.md").read_text()
    assert "slower" not in page.text


def test_a_single_cold_call_is_no_denominator(kept):
    records = kept({("self_attention", 64): (timing(900, warm=0),), ("linfusion", 64): (timing(50),)})
    (group,) = compare.groups(records)
    assert Ratios([group]).of(group, Series("linfusion"), SIZE) is None
    (block,) = tables.summary(records)
    assert dict(block.rows)[Series("self_attention")][0].disturbed == "a single cold call"
    assert "×" not in dict(block.rows)[Series("linfusion")][0].text


def shaped(kept, sides=(64, 128, 256), off: float = 1.0, noisy_at: int = 0, ms: Callable[[int], float] | None = None):
    """FLOPs that grow with the square of the pixels, and a time that follows them."""
    readings = {}
    for side in (*sides, 512, 1024):
        n = side * side
        taken: tuple[Reading, ...] = (flops(10**6 + 1000 * n + 3 * n * n),)
        if side in sides:
            price = taken[0].value
            value = ms(side) if ms else 2.0 + 1e-7 * float(price or 0)
            taken += (timing(value * (off if side == sides[-1] else 1), noisy="busy" if side == noisy_at else ""),)
        readings["self_attention", side] = taken
    records = kept(readings)
    found = compare.groups(records)
    fits = {group.name: laws.laws(found)[group.key] for group in found}
    return fits["latency"][Series("self_attention")], found


def test_a_measured_law_takes_its_shape_from_the_counted_one_and_flies_four_times_at_most(kept):
    fit, found = shaped(kept)
    truth = {side: 2.0 + 1e-7 * (10**6 + 1000 * side**2 + 3 * side**4) for side in (512, 1024)}
    assert fit.held_out == pytest.approx(0, abs=1e-6)
    seen = fit.projected(512**2)
    assert seen.value == pytest.approx(truth[512], rel=1e-6)
    assert fit.projected(513**2) is None
    assert fit.projected(laws.TARGET) is None
    row = law_table(found, laws.laws(found)).parts[-1].rows[0][1]
    assert row[6].small[0] == "projected to 512 px, 4 times the pixels taken"
    chart = next(c for c in charts.cost_charts(found, [], PALETTE, laws.laws(found)) if c.title == "Latency")
    dotted = next(trace for trace in chart.figure["data"] if trace.get("line", {}).get("dash") == "dot")
    assert max(dotted["x"]) <= 512


def test_a_law_whose_unseen_size_was_a_quarter_off_says_nothing(kept):
    fit, found = shaped(kept, off=1.9)
    assert abs(fit.held_out) > 0.25
    assert fit.projected(300**2) is None
    row = law_table(found, laws.laws(found)).parts[-1].rows[0][1]
    assert [row[i].text for i in (0, 6)] == ["–", "–"]
    assert row[6].reason == "its prediction for a size that it had not seen was 47% off: it is not trusted"


def test_disturbed_numbers_have_no_part_in_laws(kept):
    fit, _ = shaped(
        kept, sides=(64, 128, 192, 256), noisy_at=128, ms=lambda side: 500.0 if side == 128 else float(side)
    )
    assert [point.case.resolution.width for point in fit.points] == [64, 192, 256]


def test_laws_of_timings_cross_where_their_alternated_ratios_do(kept):
    """Separate runs would say that the variant is always cheaper; the alternation says from 128 px on."""
    readings = {}
    for side in (64, 128, 256, 512):
        n = side * side
        teacher, mine = 1e3 + 10 * n, 8e4 + 5 * n
        readings["self_attention", side] = (timing(teacher), alternated(1.0))
        readings["linfusion", side] = (timing(0.5 * teacher), alternated(mine / teacher))
    found = compare.groups(kept(readings))
    section = model_section("tiny_sd", load_records(found), found, PALETTE, Path(), Room())
    assert section.answer.sentence.startswith("tiny_sd: linfusion is cheaper. At 512 px a call takes ")
    assert "from 126 px on it is faster" in section.answer.sentence
    assert section.answer.told == ()


@pytest.mark.parametrize(("score", "doubted"), [(90.0, False), (80.0, True)])
def test_the_first_sentence_says_where_no_variant_stands_in(kept, score, doubted):
    teacher = (timing(100), alternated(1.0), clip(90))
    found = compare.groups(
        kept({("self_attention", 64): teacher, ("linfusion", 64): (timing(50), alternated(0.5), clip(score))})
    )
    section = model_section("tiny_sd", load_records(found), found, PALETTE, Path(), Room())
    first = section.answer.sentence.partition(". ")[0]
    doubt = ", though no variant's images are shown to stand in for the teacher's"
    assert first == f"tiny_sd: linfusion is cheaper{doubt * doubted}"


def load_records(found):
    return list({id(point.record): point.record for group in found for point in group.points}.values())


def test_where_the_teacher_fails_there_is_no_verdict(kept):
    records = kept(
        {
            ("self_attention", 128): (flops(200), clip(60)),
            ("linfusion", 128): (flops(150), clip(50)),
            ("self_attention", 64): (flops(200), clip(90)),
            ("linfusion", 64): (flops(150), clip(80)),
        }
    )
    small, large = briefs(compare.groups(records))
    assert (small.rows[0].verdict, small.refused) == ("loses CLIP score", "")
    assert (large.rows[0].verdict, large.rows[0].tone) == ("no verdict", "")
    assert large.refused == "the teacher itself fails at 128 px: CLIP score 60, and 69.8 is what works"


def test_verdicts_are_corrected_for_their_number(kept):
    """One difference of 2.4 standard errors is a loss by itself, and none beside nineteen others."""
    noise = [((i * 37) % 64 - 31.5) / 10 for i in range(64)]
    shift = 2.4 * (sum(x * x for x in noise) / 63 / 64) ** 0.5

    def scores(change: float) -> Reading:
        one = clip(90.0)
        samples = tuple(90 - change * (shift + x) for x in noise)
        return replace(one, value=sum(samples) / 64, samples=samples)

    few = {("self_attention", 64): (scores(0),), ("linfusion", 64): (scores(1),)}
    assert briefs(compare.groups(kept(few)))[0].rows[0].verdict == "loses CLIP score"
    many = few | {(f"mixer{i}", 64): (scores(0.1 * (-1) ** i),) for i in range(19)}
    rows = briefs(compare.groups(kept(many)))[0].rows
    assert len(rows) == 20
    assert {row.verdict for row in rows} == {"not told apart"}


def test_a_number_of_another_protocol_is_not_called_not_asked_for(kept):
    other = replace(flops(7), protocol="flops/v2")
    records = kept({("self_attention", 64): (flops(5),), ("linfusion", 64): (other,), ("deltaconv", 64): (flops(4),)})
    (first, second) = tables.summary(records)
    said = "taken by another protocol or under other settings: see the table of those"
    assert dict(first.rows)[Series("linfusion")][0].reason == said
    assert dict(second.rows)[Series("deltaconv")][0].reason == said


def test_a_run_that_asked_for_less_than_the_folder_holds_says_so_and_comes_first(tmp_path, make_record):
    records = {name: make_record((flops(5),), model=name, metrics=("flops",)) for name in ("aaa", "zzz")}
    for one in records.values():
        Store(tmp_path).put(one)
    page = Page(render(tmp_path, asked={records["zzz"].case.key}))
    said = "The last run in this folder asked for 1 of these 2 records (zzz), which come first"
    assert said in page.text
    assert said in (tmp_path / "summary.md").read_text()
    models = [values["data-hides-model"] for _, values in page.tags if "data-hides-model" in values]
    assert models == ["zzz", "aaa"]
    assert "asked for" not in Page(render(tmp_path)).text.split("Records")[0]


def test_the_papers_numbers_stand_beside_ours_with_the_reason(kept, tmp_path):
    ours = Reading("layer_flops", "layer_flops", 3 * 10**9, "FLOP", "lower", "ours/v1")
    printed = replace(
        ours, name="layer_flops_printed", value=2_820_000_000, better="neither", details={"why": "other form"}
    )
    table_2 = timing(20.0, name="paper_latency")
    table_2 = replace(table_2, details={"published": {"ms": 5.0, "dtype": "fp16", "device": "unknown"}})
    kept({("deltaconv", 512): (ours, printed, table_2)})
    text = Page(render(tmp_path)).text
    assert (
        "Layer FLOPs tiny_sd ▲ deltaconv 512 2.82\u00a0GFLOPs 3.00\u00a0GFLOPs 1.06× other form".replace("\u00a0", " ")
        in text
    )
    assert "5.00 ms 20.0 ms 4.00× printed: fp16 on a device that the paper does not name; ours: fp32 on made up" in text


def test_how_far_a_variant_came_counts_only_what_ran(kept, tmp_path):
    kept({("self_attention", 64): (flops(5), timing(3.0)), ("self_attention", 1024): (flops(50),)})
    text = Page(render(tmp_path)).text
    assert "self_attention 64 px – 1024 px was counted and not run: not asked for, or left out by a limit" in text


@pytest.mark.parametrize(
    ("value", "told"), [(0.59, "takes 41 % less time"), (1.37, "takes 37 % more time"), (0.1, "is 10 times faster")]
)
def test_a_share_of_time_is_told_as_time_and_not_as_speed(value: float, told: str) -> None:
    one = CostRatio(value, 0.98 * value, 1.02 * value, "alternation")
    assert told in _faster(one, "a call", "256")
