"""The page in a real browser: every number that it shows is its record's, and what can be clicked does what it says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from browser import errors, opened
from report_stores import case, png, put, record, with_images

from harness.records.record import Reading, Record
from reports import render

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SETTLE = """
const done = arguments[arguments.length - 1];
for (const details of document.querySelectorAll("details")) details.open = true;
const settled = async () => {
  await page.data;
  for (const details of document.querySelectorAll("details[data-part]:not([data-filled])")) details.open = true;
  if (document.querySelector("details[data-part]:not([data-filled])") || !document.querySelector("#long-table table"))
    return setTimeout(settled, 50);
  for (const more of document.querySelectorAll(".more")) while (!more.hidden) more.click();
  document.querySelector(".choice button")?.click();
  await page.drawAll();
  done(true);
};
settled();
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three variants at four sizes with images, timings of which some were disturbed, a dash, and a failure."""
    folder = tmp_path_factory.mktemp("browsed") / "resolution"
    dash = Reading("peak_memory", "peak_memory", None, "byte", "lower", "peak/v1", reason="no room")
    for size in ("64", "128", "256", "512"):
        for place, variant in enumerate(("self_attention", "linfusion", "deltaconv")):
            one = record(case("tiny_sd", variant, size))
            value = {"self_attention": 1.0, "linfusion": 0.5, "deltaconv": 0.25}[variant]
            noisy = {"noisy": "busy <b>" if (variant, size) == ("linfusion", "256") else ""}
            ends = (0.98 * value, 1.02 * value)
            beside = Reading("latency", "latency_ratio", value, "x", "lower", "r/v1", 10, *ends, details=noisy)
            judged = tuple(60.0 + 10 * i + place for i in range(3))
            score = Reading("judge", "judge", 70.0 + place, "1", "higher", "judge/v1", 3, 69.0, 75.0, "", judged)
            one = with_images(folder, replace(one, readings=(*one.readings, beside, score, dash)))
            for index, path in enumerate(one.artifacts.values()):
                shade = 90 + 40 * place * (index == 1)
                (folder / path).write_bytes(png(64, 64, (shade, 90, 200)))
            put(folder, one)
    put(folder, Record(case("tiny_sd", "linfusion", "1024"), "out_of_memory", "needed <7> GiB"))
    render(folder)
    return folder


@pytest.fixture(scope="module")
def window(store: Path):
    """The page, opened, with every part laid out and every chart drawn."""
    with opened() as one:
        one.get((store / "report.html").as_uri())
        one.execute_async_script(SETTLE)
        yield one


def records_of(store: Path) -> dict[str, Record]:
    return {path.stem: Record.read(path) for path in (store / "records").glob("*.json")}


def test_every_number_of_the_table_of_all_readings_is_its_records(window, store):
    shown = window.execute_script(
        "return [...document.querySelectorAll('#long-table tbody tr')].map((row) => [row.dataset.key, "
        "row.dataset.reading, row.querySelector('data')?.value ?? null, row.cells[4].textContent])"
    )
    found = {(key, name): (raw, text) for key, name, raw, text in shown}
    expected = {(key, r.name): r for key, one in records_of(store).items() for r in one.readings}
    assert found.keys() == expected.keys()
    for place, reading in expected.items():
        raw, text = found[place]
        if reading.value is None:
            assert (raw, text) == (None, "–")
        else:
            assert float(raw) == reading.value
            assert text.startswith("⚠") == bool(reading.details.get("noisy"))


def test_every_number_of_the_other_tables_is_one_of_the_record_that_it_links_to(window, store):
    shown = window.execute_script(
        "return [...document.querySelectorAll('table.summary data')].map((one) => [one.value, "
        "one.querySelector('a')?.getAttribute('href')])"
    )
    assert len(shown) > 60
    known = records_of(store)
    for raw, link in shown:
        values = [reading.value for reading in known[Path(link).stem].readings]
        assert float(raw) in values


def test_every_chart_is_drawn_with_the_numbers_of_the_records(window, store):
    count, drawn = window.execute_script(
        "const plots = [...document.querySelectorAll('.plot')].filter((plot) => plot.offsetParent);"
        "return [plots.length, plots.filter((plot) => plot.querySelector('.main-svg')).length]"
    )
    assert count == drawn
    assert count > 10
    values = window.execute_script(
        "return [...document.querySelectorAll('#quality .plot')].flatMap((plot) => plot.data"
        ".filter((trace) => trace.type === 'bar').flatMap((trace) => trace.y))"
    )
    known = {reading.value for one in records_of(store).values() for reading in one.readings}
    assert values
    assert set(values) <= known


def test_the_page_is_quiet_and_fetches_nothing(window):
    assert errors(window) == []
    fetched = window.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
    width, screen = window.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= screen


def test_every_link_of_the_contents_leads_to_a_section_that_holds_something(window):
    empty = window.execute_script(
        "return [...document.querySelectorAll('nav a')].filter((link) => "
        "!document.querySelector(link.getAttribute('href'))?.querySelector('table, figure, img, p, pre')).length"
    )
    assert empty == 0


def test_a_click_on_a_head_sorts_and_a_chip_hides_a_variant_everywhere(window):
    table = "document.querySelector('#summary table')"
    column = f"[...{table}.tBodies[0].rows].map((row) => row.cells[1].querySelector('data').value)"
    for expected in (lambda values: sorted(values), lambda values: sorted(values, reverse=True)):
        window.execute_script(f"{table}.tHead.rows[0].cells[1].click()")
        values = [float(value) for value in window.execute_script(f"return {column}")]
        assert values == expected(values)
    shown = "return [...document.querySelectorAll('[data-variant=deltaconv]')].filter((one) => !one.hidden).length"
    assert window.execute_script(shown) > 5
    window.execute_script("document.querySelector('[data-hides=deltaconv]').click()")
    assert window.execute_script(shown) == 0
    assert "deltaconv" not in window.execute_script("return document.querySelector('#image-sheet').textContent")
    window.execute_script("document.querySelector('[data-hides=deltaconv]').click()")
    assert window.execute_script(shown) > 5


def test_a_table_copies_as_csv_markdown_and_latex(window):
    window.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => (window.copied = text)}})"
    )
    copied = {}
    for label in ("CSV", "Markdown", "LaTeX"):
        window.execute_script(
            "[...document.querySelectorAll('#summary .tools button')]"
            ".find((one) => one.title.endsWith(arguments[0])).click()",
            label,
        )
        copied[label] = window.execute_script("return window.copied")
    assert copied["CSV"].splitlines()[0].startswith("variant,FLOPs")
    assert copied["Markdown"].splitlines()[1].startswith("| --- | ---")
    assert copied["LaTeX"].startswith("\\begin{tabular}{lrr")
    assert "self\\_attention" in copied["LaTeX"]
    assert all("deltaconv" in text for text in copied.values())


def test_images_are_sorted_by_what_they_lost_and_looked_at_with_the_keyboard(window):
    choose = (
        "const box = [...document.querySelectorAll('#image-controls select')][arguments[0]];"
        "box.value = arguments[1]; box.dispatchEvent(new Event('change'))"
    )
    window.execute_script(choose, 2, "deltaconv")
    window.execute_script(choose, 1, "most unlike the teacher")
    first = window.execute_script("return document.querySelector('#image-sheet .prompt').textContent")
    assert first == "</script><script>alert(1)</script>"
    window.execute_script("document.querySelector('#image-sheet .tile').click()")
    dialog = "return document.querySelector('#viewer').textContent"
    assert "self_attention" in window.execute_script(dialog)
    from selenium.webdriver.common.keys import Keys

    viewer = window.find_element("id", "viewer")
    viewer.send_keys(Keys.ARROW_RIGHT)
    assert "linfusion" in window.execute_script(dialog)
    viewer.send_keys("d")
    assert window.execute_script("return document.querySelectorAll('#viewer .differs img').length") == 2
    viewer.send_keys(Keys.ARROW_DOWN)
    assert first not in window.execute_script(dialog)
    window.execute_script("document.querySelector('#viewer').close()")


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1400, True)])
def test_narrow_and_dark_the_first_screen_is_whole(store, width, dark):
    with opened(width, 900, dark) as window:
        window.get((store / "report.html").as_uri())
        found = window.execute_async_script(
            "const done = arguments[0]; page.data.then(() => setTimeout(() => done({"
            "wide: document.documentElement.scrollWidth - innerWidth,"
            "paper: getComputedStyle(document.body).backgroundColor,"
            "words: document.querySelector('.lead').textContent.trim(),"
            "images: [...document.querySelectorAll('.images-row img')]"
            ".filter((one) => one.naturalWidth).length}), 300))"
        )
        assert found["wide"] <= 0
        assert (found["paper"] == "rgb(16, 19, 24)") == dark
        assert found["words"].startswith("tiny_sd: ")
        assert found["images"] == 3
        assert errors(window) == []


def test_two_stores_compared_sort_and_copy_too(store, tmp_path):
    from reports import render_comparison

    for path in (store / "records").glob("*.json"):
        one = Record.read(path)
        put(tmp_path, replace(one, readings=tuple(r for r in one.readings if r.metric == "flops")))
    path = render_comparison(store, tmp_path)
    with opened() as window:
        window.get(path.as_uri())
        rows = window.execute_script("return document.querySelectorAll('#same tbody tr').length")
        assert rows == sum(len(Record.read(p).readings) for p in (tmp_path / "records").glob("*.json"))
        assert errors(window) == []
        assert json.dumps(window.execute_script("return document.querySelectorAll('.tools button').length")) != "0"
