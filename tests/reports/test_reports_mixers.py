"""One variant with several settings is several series, told apart by what differs; with one it bears its bare name."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records.case import Resolution
from harness.records.record import Reading, Record
from harness.records.record import Record as Read
from reports import charts, compare, files, laws, load, pareto, render, tables
from reports.law_tables import law_table

Make = Callable[..., Record]
KERNELS = [["mid_block", 3], ["up_blocks.3", 11]]


def spelled(**settings: Any) -> str:
    return json.dumps({"mixer": "deltaconv.block.for_site", "parameters": {"gate": "scaled", **settings}})


def price(flops: int) -> Reading:
    return Reading("flops", "flops", flops, "FLOP", "lower", "flops/v1")


def score(value: float) -> Reading:
    return Reading("clip_score", "clip_score", value, "1", "higher", "clip/v1", 64, value - 1, value + 1)


@pytest.fixture
def read(tmp_path: Path, make_record: Make) -> Callable[..., tuple[Read, ...]]:
    """Records, from files, of (mixer, readings); keyword arguments change all of them."""

    def make(*taken: tuple[str, tuple[Reading, ...]], **changes: Any) -> tuple[Read, ...]:
        (tmp_path / "records").mkdir(exist_ok=True)
        for mixer, readings in taken:
            one = make_record(readings, **({"variant": "deltaconv"} | changes), mixer=mixer)
            (tmp_path / "records" / f"{one.case.key}.json").write_text(json.dumps(one.to_json()))
        return load(tmp_path).records

    return make


@pytest.mark.parametrize(
    ("mixers", "labels"),
    [
        ([spelled(kernel_size=13)], {"deltaconv"}),
        ([spelled(kernel_size=13), spelled(kernel_size=5)], {f"deltaconv (kernel_size {k})" for k in (5, 13)}),
        ([spelled(kernel_size=5), spelled(kernel_size=5, dilation=2)], {"deltaconv", "deltaconv (dilation 2)"}),
        (["", spelled(kernel_size=5)], {"deltaconv", "deltaconv (settings unknown)"}),
        ([""], {"deltaconv"}),
    ],
)
def test_only_the_settings_that_differ_are_told(read, mixers, labels):
    (group,) = compare.groups(read(*((mixer, (price(index),)) for index, mixer in enumerate(mixers))))
    assert {series.label for series in group.series} == labels


def test_a_long_setting_is_told_by_a_digest_that_fits_a_legend(read):
    records = read((spelled(kernel_size=KERNELS * 4), (price(1),)), (spelled(kernel_size=KERNELS), (price(2),)))
    (group,) = compare.groups(records)
    labels = {series.label for series in group.series}
    assert len(labels) == 2
    assert all(len(label) <= 40 for label in labels)
    assert any(label.startswith("deltaconv (kernel_size #") for label in labels)


def test_presets_that_differ_between_models_split_nothing(read):
    read((spelled(kernel_size=13), (price(1),)), model="sd15")
    found = compare.groups(read((spelled(kernel_size=5), (price(2),)), model="pixart"))
    assert [[series.label for series in group.series] for group in found] == [["deltaconv"], ["deltaconv"]]


def test_each_setting_has_its_own_law_line_row_and_loss(read):
    for side in (64, 128, 256, 512):
        taken = [(spelled(kernel_size=k), (price(10**6 + k * side**2),)) for k in (5, 13)]
        read(*taken, resolution=Resolution(side, side))
    read((spelled(kernel_size=13), ()), resolution=Resolution(1024, 1024), status="out_of_memory", reason="full")
    records = read((spelled(kernel_size=5), (price(10**6 + 5 * 1024**2),)), resolution=Resolution(1024, 1024))
    (group,) = found = compare.groups(records)
    fits = laws.laws(found)
    slopes = {series.mixer: fit.law.linear for series, fit in fits[group.key].items()}
    assert slopes == pytest.approx({"kernel_size 5": 5.0, "kernel_size 13": 13.0})
    assert [record.case.mixer for record, _ in compare.lost(group, records)] == [spelled(kernel_size=13)]
    (chart,) = charts.cost_charts(found, records, charts.palette(["deltaconv"]))
    first, second = chart.figure["data"][:2]
    assert [first["name"], second["name"]] == ["deltaconv (kernel_size 13)", "deltaconv (kernel_size 5)"]
    assert {f"{symbol}-open" for symbol in first["marker"]["symbol"]} == set(second["marker"]["symbol"])
    (said,) = law_table(found, fits).parts[0].pairs
    assert said == "deltaconv (kernel_size 13) is cheaper than deltaconv (kernel_size 5) at no size"
    last = tables.summary(records)[-1]
    cells = {series.label: cell.reason or cell.raw for series, (cell,) in last.rows}
    assert cells["deltaconv (kernel_size 13)"] == "out of memory: full"
    assert cells["deltaconv (kernel_size 5)"] == 10**6 + 5 * 1024**2


def test_a_score_is_set_against_the_cost_of_its_own_settings(read):
    records = read(
        (spelled(kernel_size=5), (price(50), score(20.0))),
        (spelled(kernel_size=13), (price(130), score(30.0))),
    )
    (chart,) = pareto.tradeoff_charts(compare.groups(records), charts.palette(["deltaconv"]))
    points = {trace["name"]: (*trace["x"], *trace["y"]) for trace in chart.figure["data"] if "marker" in trace}
    assert points == {"deltaconv (kernel_size 5)": (50, 20.0), "deltaconv (kernel_size 13)": (130, 30.0)}


def test_the_page_and_the_files_beside_it_tell_the_settings(read, tmp_path):
    read(*((spelled(kernel_size=k), (price(k),)) for k in (5, 13)))
    page = render(tmp_path).read_text(encoding="utf-8")
    assert "deltaconv <small>kernel_size 5</small>" in page
    assert "deltaconv (kernel_size 13)" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert {row["mixer"] for row in files.rows(load(tmp_path).records)} == {spelled(kernel_size=k) for k in (5, 13)}


def test_weights_are_told_only_within_one_setting(read):
    read((spelled(kernel_size=5), (score(20.0), price(5))), weights="aaaa")
    read((spelled(kernel_size=13), (score(30.0), price(13))), weights="bbbb")
    records = read((spelled(kernel_size=13), (score(31.0), price(13))), weights="cccc")
    (block,) = tables.summary(records)
    rows = {series.label: [cell.raw for cell in cells] for series, cells in block.rows}
    assert rows == {
        "deltaconv (kernel_size 5)": [5, 20.0],
        "deltaconv (kernel_size 13, bbbb)": [13, 30.0],
        "deltaconv (kernel_size 13, cccc)": [13, 31.0],
    }


@pytest.mark.parametrize("mixer", ["{", "[]", '{"mixer": "x"}', '{"parameters": {}}', '{"mixer": 1, "parameters": []}'])
def test_a_mixer_that_says_nothing_is_told_by_a_digest(tmp_path, make_record, mixer):
    (tmp_path / "records").mkdir()
    for one in (make_record(mixer=spelled(kernel_size=5)), make_record(mixer=mixer)):
        (tmp_path / "records" / f"{one.case.key}.json").write_text(json.dumps(one.to_json()))
    records = load(tmp_path).records
    words = [series.mixer for group in compare.groups(records) for series in group.series]
    assert [word for word in words if re.fullmatch("settings #[0-9a-f]{6}", word)]
    assert len(set(words)) == 2
