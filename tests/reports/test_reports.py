"""The page read back: what it shows equals the records, it fetches nothing, and foreign text stays text."""

import base64
import gc
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_page import Page
from report_stores import MACHINE, PROMPTS, case, png, put, record, with_images

from harness.records.record import Reading, Record
from harness.records.units import human, ratio
from reports import pictures, render
from reports.read import load


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, three variants and one that nobody knows, with a failure, a dash and a metric from nowhere."""
    folder = tmp_path_factory.mktemp("made_up") / "resolution"
    strange = Reading("locality", "locality_mass", 0.8125, "1", "neither", "locality/v0 <b>bold</b>")
    dash = Reading("peak_memory", "peak_memory", None, "byte", "lower", "peak/v1", reason="no CUDA device & no room")
    for size in ("64", "128", "256"):
        for variant in ("self_attention", "deltaconv", "neighborhood", "my_mixer"):
            one = record(case("tiny_sd", variant, size))
            put(folder, with_images(folder, replace(one, readings=(*one.readings, strange, dash))))
    put(folder, record(case("sd15", "self_attention", "1024x1536")))
    failed = case("sd15", "deltaconv", "1024x1536")
    put(
        folder,
        Record(
            failed, "out_of_memory", "needed 9.1 GiB, had <7>", machine=MACHINE, started="2025-11-23T15:10:00+00:00"
        ),
    )
    return folder


@pytest.fixture(scope="module")
def page(store: Path) -> Page:
    """Its page, rendered and read back once."""
    return Page(render(store))


def records_of(store: Path) -> list[Record]:
    return [Record.from_json(json.loads(path.read_text())) for path in sorted((store / "records").glob("*.json"))]


def test_every_number_on_the_page_is_the_number_in_its_record(store: Path, page: Page) -> None:
    rows = page.rows()
    for one in records_of(store):
        for reading in one.readings:
            (*_, value, text, _, n, mark, reason, _) = rows[one.case.key, reading.name]
            assert (value, n, reason) == (reading.value, reading.n, reading.reason)
            assert mark in page.text
            assert text.startswith("–" if reading.value is None else text[:1])
            if reading.value is not None and reading.low is None:
                assert text == human(reading.value, reading.unit)
    assert len(rows) == sum(len(one.readings) for one in records_of(store))


def test_the_summary_holds_the_ratio_to_self_attention(page: Page) -> None:
    text = page.text
    mine, other = (
        record(case("tiny_sd", variant, "256")).reading("flops") for variant in ("deltaconv", "self_attention")
    )
    assert mine is not None
    assert other is not None
    assert ratio(mine.value / other.value) in text  # type: ignore[operator]


def test_the_page_fetches_nothing(page: Page) -> None:
    for tag, values in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "srcset", "data", "poster", "background"):
            address = values.get(name, "")
            assert ":" not in address or address.startswith("data:image/")
            assert not address.startswith("//")
    style = (Path(pictures.__file__).parent / "template" / "report.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
    policy = next(
        v["content"] for t, v in page.tags if t == "meta" and v.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_foreign_text_stays_text(page: Page) -> None:
    assert PROMPTS[:3] == [row["prompt"] for row in page.sheets[0]["rows"]]
    for foreign in (PROMPTS[0], "locality/v0 <b>bold</b>", "needed 9.1 GiB, had <7>", "EPYC <7B13>, 2 threads"):
        assert foreign in page.text
    assert sum(tag == "script" and "type" not in values for tag, values in page.tags) == 1
    assert not any("onerror" in values for _, values in page.tags)
    assert "<b>bold" not in page.text or "&lt;b&gt;" not in page.text


def test_unknown_variants_and_metrics_appear_by_themselves(page: Page) -> None:
    assert "Locality mass" in page.text
    chips = [values["data-hides"] for _, values in page.tags if "data-hides" in values]
    assert chips == ["self_attention", "neighborhood", "deltaconv", "my_mixer"]
    assert any(trace.get("name") == "my_mixer" for figure in page.figures for trace in figure["data"])


def test_failures_dashes_and_site_notes_are_told_with_their_reasons(page: Page) -> None:
    text = page.text
    assert "out of memory: needed 9.1 GiB, had <7>" in text
    assert "sd15 deltaconv at 1024x1536" in text
    assert "no CUDA device & no room" in text
    assert "kernel 13 clamped to 7" in text
    assert "python -m harness name=resolution 'models=[tiny_sd]'" in text


def test_laws_devices_and_how_far_each_variant_came_have_their_places(page: Page) -> None:
    text = page.text
    assert {"laws", "devices"} <= {values.get("id", "") for tag, values in page.tags if tag == "section"}
    assert "tiny_sd: FLOPs; FLOPs, mixers only; Projected memory; Latency" in text
    assert "3 sizes always lie on a law" in text
    assert "tiny_sd in fp32: the largest size asked for that fits" in text
    assert "NVIDIA Ada GPU Architecture whitepaper" in text
    assert "How far sd15 came" in text
    assert "1024x1536 px out of memory: needed 9.1 GiB, had <7>" in text


def test_every_figure_is_one_that_plotly_accepts(page: Page) -> None:
    from plotly.graph_objects import Figure

    figures = page.figures
    kinds = {trace["type"] for figure in figures for trace in figure["data"]}
    assert kinds == {"scatter", "bar"}
    for figure in figures:
        Figure(json.loads(json.dumps(figure), object_hook=_painted))


def _painted(values: dict[str, Any]) -> dict[str, Any]:
    return {k: "#123456" if isinstance(v, str) and v.startswith("--") else v for k, v in values.items()}


def test_images_travel_as_webp_and_link_to_their_files(tmp_path: Path) -> None:
    from PIL import Image

    large = with_images(tmp_path, record(case("tiny_sd", "deltaconv", "1280x640")))
    small = with_images(tmp_path, record(case("tiny_sd", "deltaconv", "64")))
    put(tmp_path, large, small)
    cells = {sheet["size"]: [row["cells"][0] for row in sheet["rows"]] for sheet in Page(render(tmp_path)).sheets}
    for size, one, shown in (("64", small, (64, 64)), ("1280x640", large, (320, 160))):
        assert [cell["path"] for cell in cells[size]] == [one.artifacts[f"image/{i}"] for i in range(3)]
        for cell in cells[size]:
            assert cell["src"].startswith("data:image/webp;base64,")
            assert Image.open(io.BytesIO(base64.b64decode(cell["src"].partition(",")[2]))).size == shown
    with Image.open(tmp_path / small.artifacts["image/2"]) as kept:
        small_image = Image.open(io.BytesIO(base64.b64decode(cells["64"][2]["src"].partition(",")[2])))
        assert small_image.convert("RGB").tobytes() == kept.convert("RGB").tobytes()


def test_images_that_have_no_room_in_the_page_are_links(tmp_path: Path) -> None:
    one = with_images(tmp_path, record(case("tiny_sd", "deltaconv", "64")))
    (sheet,) = pictures.sheets(tmp_path, [one], pictures.Room(left=60, images=2))
    sources = [cells[0].src for _, cells in sheet.rows]
    assert sources[0].startswith("data:")
    assert sources[1:] == [one.artifacts["image/1"], one.artifacts["image/2"]]


def test_images_know_their_scores_and_how_far_they_are_from_the_teachers(tmp_path: Path) -> None:
    judged = Reading("clip_score", "clip_score", 20.0, "1", "higher", "clip/v1", 3, samples=(10.0, 20.0, 30.0))
    weighed = Reading("peak_memory", "peak_memory", 2, "byte", "lower", "peak/v1", 3, samples=(2.0, 2.0, 3.0))
    paired = Reading("latency", "latency_ratio", 1.1, "x", "lower", "ratio/v1", 3, samples=(1.0, 1.1, 1.2))
    for variant, shade in (("self_attention", 200), ("deltaconv", 149)):
        taken = (judged, weighed, paired)
        one = with_images(tmp_path, replace(record(case("tiny_sd", variant, "64")), readings=taken))
        for path in one.artifacts.values():
            (tmp_path / path).write_bytes(png(64, 64, (shade, shade, shade)))
        put(tmp_path, one)
    (sheet,) = Page(render(tmp_path)).sheets
    assert [series["label"] for series in sheet["series"]] == ["self_attention", "deltaconv"]
    teacher, variant = sheet["rows"][1]["cells"]
    assert "apart" not in teacher
    assert variant["apart"] == pytest.approx(51 / 255)
    assert variant["scores"] == {"CLIP score": 20.0}


def test_the_first_screen_shows_the_prompt_whose_images_differ_as_they_usually_do(tmp_path: Path) -> None:
    for variant, shades in (("self_attention", (100, 100, 100)), ("deltaconv", (180, 99, 120))):
        one = with_images(tmp_path, record(case("tiny_sd", variant, "64")))
        for index, shade in enumerate(shades):
            (tmp_path / one.artifacts[f"image/{index}"]).write_bytes(png(64, 64, (shade, shade, shade)))
        put(tmp_path, one)
    (shown,) = re.findall(r'<p class="prompt">“(.*?)”', render(tmp_path).read_text())
    assert html.unescape(shown) == PROMPTS[2]


@pytest.mark.parametrize("name", ["images/none.png", "broken.png", "long" * 99])
def test_an_image_that_is_missing_or_broken_is_a_dash(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "store"
    put(folder, replace(record(case("tiny_sd", "deltaconv", "64")), artifacts={"image/0": name}))
    (folder / "broken.png").write_bytes(png(8, 8, (1, 2, 3))[:40])
    page = Page(render(folder))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert page.sheets[0]["rows"][0]["cells"][0]["reason"].startswith(f"{name} is not")


def test_a_store_with_nothing_but_a_failure_still_has_a_page(tmp_path: Path) -> None:
    put(tmp_path, Record(case("sd15", "deltaconv", "1024"), "unavailable", "needs natten: pip install natten"))
    assert "needs natten: pip install natten" in Page(render(tmp_path)).text


def test_a_corrupt_record_is_named_in_a_notice_and_the_others_are_shown(tmp_path: Path) -> None:
    put(tmp_path, record(case("tiny_sd", "deltaconv", "64")))
    (tmp_path / "records" / "feed.json").write_text('{"schema": 1, "case"')
    page = Page(render(tmp_path))
    assert "feed.json cannot be read and is left out: not JSON" in page.text
    assert len(page.rows()) == 8


def test_the_cycle_collector_stands_still_for_a_page_and_goes_on_after_it(tmp_path: Path, monkeypatch: Any) -> None:
    during = []
    monkeypatch.setattr("reports.read.load", lambda folder: during.append(gc.isenabled()) or load(folder))
    put(tmp_path, record(case("tiny_sd", "deltaconv", "64")))
    render(tmp_path)
    assert during == [False]
    assert gc.isenabled()
