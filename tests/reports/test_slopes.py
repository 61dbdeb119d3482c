"""As images grow: slopes with intervals, each variant's beside its teacher's, and one prompt's images at every size."""

import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import report_stores as stores
from report_page import Page

from harness.records.case import Resolution
from harness.records.record import Reading, Record
from reports import page, read
from reports.compare import Series, groups
from reports.slopes import slopes

SIZES = (64, 128, 256)
DOUBLINGS = {64: 0, 128: 2, 256: 4}
N = 40
BASE = [random.Random(image).gauss(90, 5) for image in range(N)]


def clip(size: int, loss: float, noise: float = 0.0) -> Reading:
    """Every image loses so much a doubling, and the noise that it has at that size."""
    draw = random.Random(size)
    samples = tuple(value - loss * DOUBLINGS[size] + draw.gauss(0, noise) for value in BASE)
    half = 2 * statistics.stdev(samples) / N**0.5
    mean = statistics.fmean(samples)
    return Reading("clip_score", "clip_score", mean, "1", "higher", "clip/v1", N, mean - half, mean + half, "", samples)


def of_parts(name: str, size: int, values: list[float], better: str) -> Reading:
    return Reading(name, name, statistics.fmean(values), "1", better, f"{name}/v1", N, details={"parts": values})


@pytest.fixture
def grown(tmp_path: Path, make_case: Callable) -> Callable:
    """A store of two variants, with readings that a function gives of variant and size."""

    def make(taken: Callable[[str, int], tuple[Reading, ...]], sizes: tuple[int, ...] = SIZES) -> Path:
        for variant in ("self_attention", "linfusion"):
            for size in sizes:
                case = make_case(variant=variant, resolution=Resolution(size, size), n=N)
                record = Record(case, "ok", readings=taken(variant, size), machine={"cpu": "x"})
                stores.put(tmp_path, replace(record, started="2026-01-01T00:00:00+00:00"))
        return tmp_path

    return make


def read_slopes(folder: Path):
    return slopes(groups(read.load(folder).records))


def test_the_slope_is_the_change_a_doubling_of_the_pixels_and_is_compared_with_the_teachers_prompt_by_prompt(grown):
    losses = {"self_attention": 0.5, "linfusion": 0.8}
    (found,) = read_slopes(grown(lambda variant, size: (clip(size, losses[variant], noise=0.2),)))
    teacher, student = found.rows
    assert (teacher.series, student.series) == (Series("self_attention"), Series("linfusion"))
    assert teacher.own.value == pytest.approx(-0.5, abs=0.05)
    assert teacher.apart is None
    assert student.apart.value == pytest.approx(-0.3, abs=1e-9)  # both have the same noise, which pairs take away
    assert student.apart.half_width < 1e-9 < teacher.own.half_width < 0.05
    assert student.real
    assert found.tone(student) == "worse"
    assert found.words(student)[0] == "64 to 256 px"
    assert found.words(student)[2].startswith("−0.30 (")


def test_parts_are_paired_and_a_distance_that_grows_less_is_better(grown):
    draw = random.Random(1)
    parts = {size: [5 + draw.gauss(0, 0.01) for _ in range(10)] for size in SIZES}

    def taken(variant: str, size: int) -> tuple[Reading, ...]:
        rise = {"self_attention": 0.2, "linfusion": 0.1}[variant] * DOUBLINGS[size]
        return (of_parts("fdd", size, [value + rise for value in parts[size]], "lower"),)

    (found,) = read_slopes(grown(taken))
    assert found.rows[1].apart.value == pytest.approx(-0.1)
    assert found.tone(found.rows[1]) == "better"
    assert found.rows[0].own.freedom == 9


def test_what_is_not_told_apart_has_no_colour_and_one_size_no_slope(grown):
    draw = random.Random(2)

    def taken(variant: str, size: int) -> tuple[Reading, ...]:
        one = clip(size, 0.5)
        return (replace(one, samples=tuple(value + draw.gauss(0, 3) for value in one.samples)),)

    (found,) = read_slopes(grown(taken))
    assert not found.rows[1].real
    assert found.tone(found.rows[1]) == ""


def test_one_size_has_no_slope_and_no_section(grown):
    folder = grown(lambda variant, size: (clip(size, 0.5),), sizes=(64,))
    assert read_slopes(folder) == []
    page.render(folder)
    assert 'id="slopes"' not in (folder / "report.html").read_text()


def test_sizes_that_only_one_of_both_has_count_for_its_own_slope_alone(grown):
    def taken(variant: str, size: int) -> tuple[Reading, ...]:
        bent = 10.0 if size == 256 else 0.0
        one = clip(size, 0.5)
        lacking = Reading("clip_score", "clip_score", None, "1", "higher", "clip/v1", reason="too large")
        moved = replace(one, value=one.value - bent, samples=tuple(value - bent for value in one.samples))
        return (lacking if (variant, size) == ("self_attention", 256) else moved,)

    (found,) = read_slopes(grown(taken))
    assert found.words(found.rows[0])[0] == "64 to 128 px"
    assert found.words(found.rows[1])[0] == "64 to 256 px"
    assert found.rows[1].own.value == pytest.approx(-0.5 - 2.5)
    assert found.rows[1].apart.value == pytest.approx(0, abs=1e-9)


def test_the_page_and_the_summary_tell_slopes_and_show_images_of_one_prompt_at_every_size(grown):
    folder = grown(lambda variant, size: (clip(size, 0.5 + (variant != "self_attention")),), sizes=(64, 128))
    for record in read.load(folder).records:
        stores.put(folder, stores.with_images(folder, record))
    page.render(folder)
    summary = (folder / "summary.md").read_text()
    assert "## tiny_sd as images grow" in summary
    assert "| CLIP score | linfusion | 64 to 128 px | −1.5 (−1.5 to −1.5) | −1.0 (−1.0 to −1.0) |" in summary
    text = (folder / "report.html").read_text()
    section = text[text.index('<section id="slopes">') :].split("</section>")[0]
    assert section.count("<img") == 2 * 2 * 2
    assert f"“{stores.PROMPTS[0]}” at 64 px" in section
    assert "<script>alert" not in section
    Page(folder / "report.html")
