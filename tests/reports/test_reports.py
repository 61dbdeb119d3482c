"""The page read back: what it shows equals the records, it fetches nothing, and foreign text stays text."""

import base64
import io
import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import BROWSERS
from report_stores import MACHINE, PROMPTS, case, png, put, record, with_images

from harness.records.record import Reading, Record
from harness.records.units import human, ratio
from reports import render


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


class Page(HTMLParser):
    """The page as its tags, its visible text, its JSON figures, and the rows of the table of all readings."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.figures: list[dict[str, Any]] = []
        self.rows: dict[tuple[str, str], dict[str, str]] = {}
        self._row: dict[str, str] = {}
        self._kind = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        if tag in ("script", "style"):
            self._kind = values.get("type", tag)
        if tag == "tr":
            self._row = {"text": ""}
            if "data-reading" in values:
                self.rows[values["data-key"], values["data-reading"]] = self._row
        if tag == "data":
            self._row["raw"] = values["value"]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._kind = ""

    def handle_data(self, data: str) -> None:
        if self._kind == "application/json":
            self.figures.append(json.loads(data))
        elif not self._kind:
            self.text += data
            if self._row:
                self._row["text"] += data


@pytest.fixture(scope="module")
def page(store: Path) -> Page:
    """Its page, rendered and read back once."""
    return Page(render(store))


def records_of(store: Path) -> list[Record]:
    return [Record.from_json(json.loads(path.read_text())) for path in sorted((store / "records").glob("*.json"))]


def test_every_number_on_the_page_is_the_number_in_its_record(store: Path, page: Page) -> None:
    for one in records_of(store):
        for reading in one.readings:
            row = page.rows[one.case.key, reading.name]
            if reading.value is None:
                assert "–" in row["text"]
                assert reading.reason in row["text"]
            else:
                assert json.loads(row["raw"]) == reading.value
                digits = human(reading.value, reading.unit) if reading.low is None else ""
                assert digits in row["text"]
    assert len(page.rows) == sum(len(one.readings) for one in records_of(store))


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
    style = (Path(render.__code__.co_filename).parent / "report.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
    policy = next(
        v["content"] for t, v in page.tags if t == "meta" and v.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_foreign_text_stays_text(page: Page) -> None:
    for foreign in (*PROMPTS[:3], "locality/v0 <b>bold</b>", "needed 9.1 GiB, had <7>", "EPYC <7B13>, 2 threads"):
        assert foreign in page.text
    assert sum(tag == "script" and "type" not in values for tag, values in page.tags) == 2
    assert not any(tag == "b" or "onerror" in values for tag, values in page.tags)


def test_unknown_variants_and_metrics_appear_by_themselves(page: Page) -> None:
    assert "Locality mass" in page.text
    chips = [values["data-variant"] for _, values in page.tags if "data-variant" in values]
    assert chips == ["self_attention", "neighborhood", "deltaconv", "my_mixer"]
    assert any(trace["name"] == "my_mixer" for figure in page.figures for trace in figure["data"])


def test_failures_dashes_and_site_notes_are_told_with_their_reasons(page: Page) -> None:
    text = page.text
    assert "out of memory: needed 9.1 GiB, had <7>" in text
    assert "sd15 deltaconv at 1024x1536" in text
    assert "no CUDA device & no room" in text
    assert "kernel 13 clamped to 7" in text
    assert "python -m harness name=resolution 'models=[tiny_sd]'" in text


def test_laws_devices_and_how_far_each_variant_came_have_their_places(page: Page) -> None:
    text = " ".join(page.text.split())
    assert {"laws", "devices"} <= {values.get("id", "") for tag, values in page.tags if tag == "section"}
    assert "tiny_sd: FLOPs; FLOPs, mixers only; Projected memory; Latency" in text
    assert "3 sizes always lie on a law" in text
    assert "tiny_sd in fp32: the largest size asked for that fits" in text
    assert "NVIDIA Ada GPU Architecture whitepaper" in text
    assert "How far sd15 came" in text
    assert "1024x1536 pxout of memory: needed 9.1 GiB, had <7>" in text


def test_every_figure_is_one_that_plotly_accepts(page: Page) -> None:
    from plotly.graph_objects import Figure

    figures = page.figures
    kinds = {trace["type"] for figure in figures for trace in figure["data"]}
    assert kinds == {"scatter", "bar"}
    for figure in figures:
        Figure(json.loads(json.dumps(figure), object_hook=_painted))


def _painted(values: dict[str, Any]) -> dict[str, Any]:
    return {k: "#123456" if isinstance(v, str) and v.startswith("--") else v for k, v in values.items()}


def test_small_images_travel_as_they_are_and_large_ones_as_thumbnails_with_a_link(tmp_path: Path) -> None:
    from PIL import Image

    large = with_images(tmp_path, record(case("sd15", "deltaconv", "1024x512")))
    small = with_images(tmp_path, record(case("tiny_sd", "deltaconv", "64")))
    put(tmp_path, large, small)
    page = Page(render(tmp_path))
    sources = [values["src"] for tag, values in page.tags if tag == "img"]
    raw = (tmp_path / small.artifacts["image/1"]).read_bytes()
    assert f"data:image/png;base64,{base64.b64encode(raw).decode()}" in sources
    thumbnails = [source for source in sources if source.startswith("data:image/webp")]
    sizes = [Image.open(io.BytesIO(base64.b64decode(t.partition(",")[2]))).size for t in thumbnails]
    assert sizes == [(320, 160)] * 3
    assert large.artifacts["image/2"] in [values.get("href") for _, values in page.tags]


@pytest.mark.parametrize("name", ["images/none.png", "broken.png", "long" * 99])
def test_an_image_that_is_missing_or_broken_is_a_dash(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "store"
    put(folder, replace(record(case("tiny_sd", "deltaconv", "64")), artifacts={"image/0": name}))
    (folder / "broken.png").write_bytes(png(8, 8, (1, 2, 3))[:40])
    page = Page(render(folder))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert f"– {name} is not" in page.text


def test_a_store_with_nothing_but_a_failure_still_has_a_page(tmp_path: Path) -> None:
    put(tmp_path, Record(case("sd15", "deltaconv", "1024"), "unavailable", "needs natten: pip install natten"))
    assert "needs natten: pip install natten" in Page(render(tmp_path)).text


def test_a_corrupt_record_is_named_in_a_notice_and_the_others_are_shown(tmp_path: Path) -> None:
    put(tmp_path, record(case("tiny_sd", "deltaconv", "64")))
    (tmp_path / "records" / "feed.json").write_text('{"schema": 1, "case"')
    page = Page(render(tmp_path))
    assert "feed.json cannot be read and is left out: not JSON" in page.text
    assert len(page.rows) == 8


@pytest.mark.browser
def test_a_browser_draws_every_chart_that_is_shown(store: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    command = [browser, "--headless", "--no-sandbox", *quiet, "--disable-component-update", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=60000", render(store).as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    shown = dom.count("<figure") - dom.count('hidden=""')
    assert shown > 5
    assert dom.count('data-drawn="yes"') == shown
    assert dom.count('class="main-svg"') >= shown
