"""Laws of cost: what is counted lies on them to the last digit, what is noisy near them, what is unknown is a dash."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.records.case import Resolution
from harness.records.record import Reading, Record
from reports import charts, compare, crossings, laws, load
from reports.compare import Point, Series
from reports.law_tables import law_table

SIZES = (512, 1024, 2048, 4096, 8192, 16384)
Make = Callable[..., Record]


def price(value: int) -> Reading:
    return Reading("flops", "flops", value, "FLOP", "lower", "flops/v1")


def timing(middle_ms: float, noise: float, seed: int) -> Reading:
    """Twenty samples around a time."""
    source = random.Random(seed)
    samples = sorted(middle_ms * (1 + noise * source.gauss(0, 1)) for _ in range(21))
    return Reading("latency", "latency", samples[10], "ms", "lower", "latency/v1", 21, samples=tuple(samples))


@pytest.fixture
def fitted(tmp_path: Path, make_record: Make):
    """Fits by variant of readings by (variant, side), through files as in a run; and the groups they are from."""

    def make(readings: dict[tuple[str, int], Reading]):
        (tmp_path / "records").mkdir(exist_ok=True)
        for (variant, size), reading in readings.items():
            one = make_record((reading,), variant=variant, resolution=Resolution(size, size))
            (tmp_path / "records" / f"{one.case.key}.json").write_text(json.dumps(one.to_json()))
        found = compare.groups(load(tmp_path).records)
        (fits,) = laws.laws(found).values()
        return {series.variant: fit for series, fit in fits.items()}, found

    return make


def counted(law: Callable[[int], int], sizes: Sequence[int] = SIZES, variant: str = "linfusion"):
    return {(variant, size): price(law(size * size)) for size in sizes}


@pytest.mark.parametrize(
    ("fixed", "linear", "quadratic"),
    [(10**9, 3_000_000, 31), (0, 2_793_321, 0), (123_456_789, 0, 7), (10**8, 5_000_001, 0)],
)
def test_a_law_of_whole_numbers_is_found_exactly_and_predicts_the_unseen_exactly(fitted, fixed, linear, quadratic):
    fits, _ = fitted(counted(lambda n: fixed + linear * n + quadratic * n * n))
    fit = fits["linfusion"]
    assert fit.exact
    assert fit.law.linear == pytest.approx(linear, rel=1e-9)
    assert fit.law.quadratic == pytest.approx(quadratic, rel=1e-9)
    assert fit.law.fixed == pytest.approx(fixed, rel=1e-5)  # a thousandth of the cost: fewer digits are left of it
    seen = fit.projected(32768**2)
    n = 32768**2
    assert seen.low == pytest.approx(seen.high, rel=1e-9) == pytest.approx(fixed + linear * n + quadratic * n * n)


def test_sizes_that_are_not_on_the_law_yet_are_named_and_left_out(fitted):
    fits, found = fitted(counted(lambda n: 10**9 + 10**6 * n + (5 * 10**11 if n == 512**2 else 0)))
    fit = fits["linfusion"]
    assert fit.exact
    assert [str(p.case.resolution) for p in fit.before] == ["512"]
    book = law_table(found, laws.laws(found))
    assert "512 not on it yet" in book.parts[0].rows[0][1][3].small


def test_no_coefficient_is_negative_and_no_better_support_was_missed():
    source = np.random.default_rng(0)
    pixels_N = np.array([1.0, 4.0, 16.0, 64.0])
    costs_DN = source.uniform(0.5, 2.0, (200, 4)) * (1 + 0.1 * pixels_N)
    found_D3 = laws.coefficients(pixels_N, costs_DN)
    assert (found_D3 >= 0).all()

    def loss(coefficients_D3):
        return ((coefficients_D3 @ (pixels_N[None] ** np.arange(3)[:, None]) / costs_DN - 1) ** 2).sum(axis=1)

    for _ in range(50):
        nearby_D3 = np.maximum(found_D3 + source.normal(0, 0.02, found_D3.shape), 0)
        assert (loss(nearby_D3) >= loss(found_D3) - 1e-12).all()


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_sizes_make_no_law(fitted, count):
    fits, found = fitted(counted(lambda n: n, SIZES[:count]))
    fit = fits["linfusion"]
    assert fit.law is None
    assert fit.reason == f"a law needs numbers at 3 sizes, {count} {'has' if count == 1 else 'have'} one"
    assert law_table(found, laws.laws(found)) is None


def test_three_sizes_make_a_law_that_nothing_has_checked_and_so_no_projection(fitted):
    fits, found = fitted(counted(lambda n: 5 + n, SIZES[:3]))
    assert fits["linfusion"].law is not None
    assert fits["linfusion"].projected(laws.TARGET) is None
    cells = law_table(found, laws.laws(found)).parts[0].rows[0][1]
    assert [cell.text for cell in cells[4:7]] == ["–", "–", "–"]
    assert cells[6].reason == "3 sizes always lie on a law: to check it, to project and to compare takes 4"


def test_a_noisy_law_is_found_near_and_its_ranges_hold_the_truth(fitted):
    sides = (64, 128, 192, 256, 384, 512)
    readings = {("self_attention", s): timing(5 + 3e-4 * s**2 + 2e-9 * s**4, 0.03, s) for s in sides}
    readings |= {("linfusion", s): timing(6 + 4e-4 * s**2, 0.03, s + 1) for s in sides}
    fits, found = fitted(readings)
    truth = 5 + 3e-4 * 1024**2 + 2e-9 * 1024**4
    seen = fits["self_attention"].projected(1024**2)
    assert seen.low < truth < seen.high
    assert abs(fits["self_attention"].held_out) < 0.1
    assert fits["self_attention"].held_out != 0
    (crossing,) = crossings.compared(fits["linfusion"], fits["self_attention"]).crossings
    root = (1e-4 + np.sqrt(1e-8 + 4 * 2e-9)) / (2 * 2e-9)  # 1 + 1e-4 N - 2e-9 N² = 0
    assert crossing.cheaper
    assert crossing.low < root < crossing.high
    assert crossing.low > 0.5 * root
    assert crossing.high < 2 * root
    assert not crossing.projected
    row = dict(law_table(found, laws.laws(found)).parts[0].rows)[Series("linfusion")]
    assert row[7].text == f"from {crossing.pixels**0.5:.0f} px"
    assert row[6].small[0] == "projected to 1024 px, 4 times the pixels taken"
    assert fits["self_attention"].projected(1025**2) is None


def without_samples(value_ms: float, spread: float = 1.0) -> Reading:
    """As the latency of all mixers comes: a sum, with its interval."""
    return Reading("m", "mixers_latency", value_ms, "ms", "lower", "m/v1", 9, value_ms / spread, value_ms * spread)


def test_a_timing_without_samples_is_no_count_and_all_its_sizes_are_on_the_law(fitted):
    readings = {("linfusion", s): without_samples(5e-4 * s**2 + (1 if s == 512 else 0)) for s in SIZES}
    fits, _ = fitted(readings)
    fit = fits["linfusion"]
    assert (len(fit.points), fit.before, fit.exact) == (len(SIZES), (), False)


def test_an_interval_without_samples_widens_the_refits_as_it_is_wide(fitted):
    law = (4.0, 1e-6, 0.25e-12)
    truth = {side: law[0] + law[1] * side**2 + law[2] * side**4 for side in (1000, 2000, 4000)}
    spreads = {"linfusion": 1.0, "deltaconv": 1.2}
    fits, _ = fitted({(v, s): without_samples(truth[s], spread) for s in truth for v, spread in spreads.items()})
    assert fits["linfusion"].refits_D3 == pytest.approx(np.array([law]))
    for side, cost in truth.items():
        costs_D = fits["deltaconv"].refits_D3 @ [1, side**2, side**4] / cost
        low, middle, high = np.quantile(costs_D, [0.025, 0.5, 0.975])
        assert middle == pytest.approx(1, abs=0.03)  # the median of 400 draws that scatter by 9 %
        assert (low, high) == pytest.approx((1 / 1.2, 1.2), rel=0.06)


def test_the_draws_of_a_peak_are_about_the_least_of_its_samples(fitted):
    peaks = {s: 10**6 + 40.0 * s * s for s in SIZES}
    fits, _ = fitted(
        {
            ("linfusion", s): Reading(
                "p", "peak_memory", peak, "byte", "lower", "p/v1", 3, samples=(peak, 1.1 * peak, 1.2 * peak)
            )
            for s, peak in peaks.items()
        }
    )
    fit = fits["linfusion"]
    for side, peak in peaks.items():
        assert np.median(fit.refits_D3 @ [1, side**2, side**4]) == pytest.approx(peak, rel=0.02)
    seen = fit.projected(laws.TARGET)
    assert seen.low < 0.97 * seen.value < seen.value < seen.high


def test_a_refit_is_the_same_at_every_call(fitted):
    fits, found = fitted({("linfusion", s): timing(s, 0.1, s) for s in SIZES})
    again = laws.fit(Series("linfusion"), found[0].points)
    assert (again.refits_D3 == fits["linfusion"].refits_D3).all()


@pytest.mark.parametrize(
    ("mine", "other", "said"),
    [
        (lambda n: 2 * 10**6 + n, lambda n: 10**6 + 2 * n, "from 1000 px"),
        (lambda n: 10**6 + 2 * n, lambda n: 2 * 10**6 + n, "up to 1000 px"),
        (lambda n: 10**6 + n, lambda n: 10**6 + n, "same cost"),
        (lambda n: 10**6 + n, lambda n: 10**7 + 2 * n, "at every size"),
        (lambda n: 10**7 + 2 * n, lambda n: 10**6 + n, "at no size"),
        (lambda n: 4 * 10**12 + n * n, lambda n: 5 * 10**6 * n, "from 1000 px to 2000 px"),
        (lambda n: 5 * 10**6 * n, lambda n: 4 * 10**12 + n * n, "up to 1000 px, from 2000 px"),
    ],
)
def test_where_two_laws_cross_is_said_in_words(fitted, mine, other, said):
    _, found = fitted(counted(mine, variant="deltaconv") | counted(other, variant="self_attention"))
    rows = dict(law_table(found, laws.laws(found)).parts[0].rows)
    assert rows[Series("deltaconv")][7].text == said
    assert rows[Series("deltaconv")][7].small == ()


def test_a_crossing_beyond_what_was_taken_is_marked_as_projected(fitted):
    sides = (64, 128, 256, 512)
    _, found = fitted(
        counted(lambda n: 2 * 10**6 + n, sides, "deltaconv") | counted(lambda n: 10**6 + 2 * n, sides, "self_attention")
    )
    cell = dict(law_table(found, laws.laws(found)).parts[0].rows)[Series("deltaconv")][7]
    assert (cell.text, cell.small) == ("from 1000 px", ("projected",))


def test_what_was_taken_at_16384_pixels_is_not_called_projected(fitted):
    _, found = fitted(counted(lambda n: 7 + 3 * n))
    cell = law_table(found, laws.laws(found)).parts[0].rows[0][1][6]
    assert cell.raw == 7 + 3 * 16384**2
    assert cell.small == ("taken, not projected",)


def test_the_laws_are_dotted_lines_that_reach_the_sizes_that_were_lost(fitted, make_record: Make, tmp_path: Path):
    readings = counted(lambda n: 7 + 3 * n, SIZES[:5])
    _, found = fitted(readings)
    lost = make_record((), "out_of_memory", "full", variant="linfusion", resolution=Resolution(16384, 16384))
    (tmp_path / "records" / f"{lost.case.key}.json").write_text(json.dumps(replace(lost).to_json()))
    records = load(tmp_path).records
    (chart,) = charts.cost_charts(found, records, charts.palette(["linfusion"]), laws.laws(found))
    line = next(trace for trace in chart.figure["data"] if trace.get("line", {}).get("dash") == "dot")
    assert (line["x"][0], line["x"][-1]) == pytest.approx((512, 16384))
    assert line["y"][-1] == pytest.approx(7 + 3 * 16384**2)
    assert 10 ** chart.figure["layout"]["yaxis"]["range"][1] > line["y"][-1]


def test_a_law_that_nothing_has_checked_ends_at_the_last_size_that_was_taken(fitted, make_record: Make, tmp_path: Path):
    _, found = fitted(counted(lambda n: 7 + 3 * n, SIZES[:3]))
    lost = make_record((), "out_of_memory", "full", variant="linfusion", resolution=Resolution(16384, 16384))
    (tmp_path / "records" / f"{lost.case.key}.json").write_text(json.dumps(lost.to_json()))
    records = load(tmp_path).records
    (chart,) = charts.cost_charts(found, records, charts.palette(["linfusion"]), laws.laws(found))
    line = next(trace for trace in chart.figure["data"] if trace.get("line", {}).get("dash") == "dot")
    assert (line["x"][0], line["x"][-1]) == pytest.approx((512, 2048))


def test_a_law_of_two_sizes_is_linear():
    law = laws.through([100, 400], [1000.0, 1600.0])
    assert (law.fixed, law.linear, law.quadratic) == pytest.approx((800.0, 2.0, 0.0))


def test_points_without_a_number_take_no_part(fitted):
    readings: dict[tuple[str, int], Reading] = counted(lambda n: 7 + 3 * n)
    readings["linfusion", 1024] = replace(price(1), value=None, reason="too hot")
    fits, _ = fitted(readings)
    assert fits["linfusion"].exact
    assert isinstance(fits["linfusion"].points[0], Point)
    assert len(fits["linfusion"].points) == 5
