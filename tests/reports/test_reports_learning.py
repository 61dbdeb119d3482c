"""The section on learning: a line a seed, and how soon the new recipe is where the old one ends."""

from dataclasses import replace
from pathlib import Path

from report_stores import case, put, record

from harness.records.record import Reading, Record
from reports import render
from reports.learning import parts

MIXER = '{"mixer": "deltaconv.block.DeltaConvBlock.for_site", "parameters": {}}'


def learnt(recipe: str, seed: int, *errors: float) -> Record:
    """A student of six minutes, watched equally often."""
    points = [
        {
            "steps": 10 * i,
            "images": 160 * i,
            "minutes": 6 * i / (len(errors) - 1),
            "features": error,
            "prediction": error,
        }
        for i, error in enumerate(errors)
    ]
    reading = Reading(
        *("feature_error", "feature_error", errors[-1], "share", "lower", "feature_error/v1"),
        details={"seed": seed, "points": points},
    )
    return replace(record(case("tiny_sd", f"deltaconv-{recipe}", "64", mixer=MIXER)), readings=(reading,))


OLD = [learnt("paper", 5, 1.5, 0.9, 0.6, 0.5), learnt("paper-6", 6, 1.5, 0.9, 0.7, 0.3)]


def test_it_is_said_how_soon_ours_is_as_near_as_the_paper_ends() -> None:
    new = [learnt("ours", 5, 0.6, 0.4, 0.2, 0.1), learnt("ours-6", 6, 0.3, 0.2, 0.2, 0.1)]
    (part,) = parts([*OLD, *new])
    assert (part.model, part.mixer) == ("tiny_sd", "DeltaConvBlock")
    assert part.sentences == (
        "paper ends at an error of features of 0.4 after 6 min; ours is as near after 1 min (0.0 s to 2 min of 2 "
        "seeds), 16.7% of that time.",
    )
    assert {row[0]: row[-1] for row in part.rows} == {
        "deltaconv-ours": "2.00 min",
        "deltaconv-ours-6": "0.00 min",
        "deltaconv-paper": "–",
        "deltaconv-paper-6": "6.00 min",
    }
    assert [(line["name"], line["line"]["width"], line["showlegend"]) for line in part.figures[0].figure["data"]] == [
        ("deltaconv-ours", 1, True),
        ("deltaconv-ours", 1, False),
        ("deltaconv-paper", 1, True),
        ("deltaconv-paper", 1, False),
    ]


def test_it_is_said_that_ours_never_comes_as_near() -> None:
    (part,) = parts([*OLD, learnt("ours", 5, 1.5, 0.6, 0.5, 0.5)])
    assert part.sentences[0].endswith("; 1 of 1 students of ours never come as near.")


def test_without_either_recipe_nothing_is_said_and_without_curves_there_is_no_section() -> None:
    (part,) = parts(OLD)
    assert part.sentences == ()
    assert parts([record(case("tiny_sd", "deltaconv", "64"))]) == []


def test_the_page_has_the_section_where_there_are_curves(tmp_path: Path) -> None:
    for one in OLD:
        put(tmp_path / "run", one)
    page = render(tmp_path / "run").read_text()
    assert "tiny_sd: self_attention was not taken here" in page
    assert "deltaconv-paper-6" in page.partition('<section id="learning">')[2].partition("</section>")[0]


def test_where_only_recipes_are_compared_the_page_begins_with_them(tmp_path: Path) -> None:
    new = [learnt(f"ours-{seed}", seed, 0.6, 0.4, 0.2, 0.1) for seed in range(6)]
    teacher = learnt("ours", 5, 0.0, 0.0)
    for one in (replace(teacher, case=replace(teacher.case, variant="self_attention")), *OLD, *new):
        put(tmp_path / "run", one)
    render(tmp_path / "run")
    lead = "tiny_sd: with DeltaConvBlock, paper ends at an error of features of 0.4 after 6 min; ours is as near"
    assert lead in (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert lead in page
    assert "<summary>and 2 more</summary>" in page
