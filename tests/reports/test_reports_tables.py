"""Tables and charts: only like is set beside like, numbers are exact in the files and human on the page."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records import units
from harness.records.case import Resolution
from harness.records.record import Reading, Record, SiteAccount
from reports import charts, compare, load, pareto, provenance, render, sites, tables
from reports.read import Store

Make = Callable[..., Record]


def store(folder: Path, *records: Record) -> Store:
    """These records as read from disk."""
    (folder / "records").mkdir(exist_ok=True)
    for record in records:
        (folder / "records" / f"{record.case.key}.json").write_text(json.dumps(record.to_json()))
    return load(folder)


def price(flops: int, protocol: str = "flops/v1") -> Reading:
    return Reading("flops", "flops", flops, "FLOP", "lower", protocol)


def latency(value: float, protocol: str = "latency/v1") -> Reading:
    return Reading("latency", "latency", value, "ms", "lower", protocol, 9, value * 0.9, value * 1.1)


def score(value: float, protocol: str = "clip/v1") -> Reading:
    return Reading("clip_score", "clip_score", value, "1", "higher", protocol, 64, value - 1, value + 1)


def test_unlike_protocols_never_meet_in_a_row_or_a_chart(tmp_path: Path, make_record: Make) -> None:
    records = store(
        tmp_path,
        make_record((score(30.0),), variant="self_attention"),
        make_record((score(29.0),), variant="linfusion"),
        make_record((score(0.9, "clip/v2"),), variant="deltaconv"),
    ).records
    for block in tables.summary(records):
        assert len(block.columns) == 1
        shown = {s.variant: cell.raw for s, (cell,) in block.rows if cell.raw is not None}
        assert shown in ({"self_attention": 30.0, "linfusion": 29.0}, {"deltaconv": 0.9})
    drawn = charts.score_charts(compare.groups(records), charts.palette(["self_attention", "linfusion", "deltaconv"]))
    assert [len(chart.figure["data"]) for chart in drawn] == [2, 1]
    assert [chart.protocols for chart in drawn] == [("clip/v1",), ("clip/v2",)]


def test_timings_of_other_machines_or_devices_make_no_ratio(tmp_path: Path, make_record: Make) -> None:
    here, there = make_record((latency(10.0),)), make_record((latency(1.0),), variant="deltaconv")
    records = store(tmp_path, here, replace(there, machine={"cpu": "another"})).records
    cells = [cell for block in tables.summary(records) for _, row in block.rows for cell in row if cell.raw is not None]
    assert sorted(cell.text for cell in cells) == ["1.00\u00a0ms", "10.0\u00a0ms"]
    assert not any("×" in cell.text for cell in cells)


def test_flops_are_compared_across_machines_and_settings(tmp_path: Path, make_record: Make) -> None:
    there = make_record((price(250_000),), variant="deltaconv", dtype="fp16", n=9)
    records = store(tmp_path, make_record((price(1_000_000),)), replace(there, machine={"cpu": "another"})).records
    (block,) = tables.summary(records)
    assert [row[0].text for _, row in block.rows] == ["1.00\u00a0MFLOPs", "0.25×"]


def test_a_ratio_whose_interval_holds_one_is_called_neither_better_nor_worse(tmp_path: Path, make_record: Make) -> None:
    records = store(tmp_path, make_record((latency(10.0),)), make_record((latency(9.5),), variant="deltaconv")).records
    assert tables.summary(records)[0].rows[1][1][0].tone == ""


def test_scores_of_other_weights_are_rows_of_their_own_and_costs_are_not(tmp_path: Path, make_record: Make) -> None:
    records = store(
        tmp_path,
        make_record((score(30.0), price(100))),
        make_record((score(10.0), price(50)), variant="deltaconv", weights="untrained"),
        make_record((score(29.0), price(50)), variant="deltaconv", weights="77aa"),
    ).records
    (block,) = tables.summary(records)
    rows = {(s.variant, s.weights): [cell.text for cell in row] for s, row in block.rows}
    assert rows["deltaconv", "untrained"][1] != rows["deltaconv", "77aa"][1]
    assert rows["deltaconv", "untrained"][0] == rows["deltaconv", "77aa"][0] == "0.50×"
    (chart,) = charts.score_charts(compare.groups(records), charts.palette(["self_attention", "deltaconv"]))
    assert [trace["name"] for trace in chart.figure["data"]] == [
        "self_attention",
        "deltaconv (77aa)",
        "deltaconv (untrained)",
    ]


def test_a_number_that_was_not_taken_is_a_dash_with_its_reason(tmp_path: Path, make_record: Make) -> None:
    dash = Reading("latency", "latency", None, "ms", "lower", "latency/v1", reason="too hot")
    records = store(
        tmp_path,
        make_record((latency(3.0), price(7))),
        make_record((dash, price(5)), variant="linfusion"),
        make_record((price(5),), variant="neighborhood"),
        make_record((), "out_of_memory", "9 GiB", variant="deltaconv"),
    ).records
    (block,) = tables.summary(records)
    reasons = {s.variant: row[1].reason for s, row in block.rows}
    assert reasons == {
        "self_attention": "",
        "linfusion": "too hot",
        "neighborhood": "not asked for in this case",
        "deltaconv": "out of memory: 9 GiB",
    }
    latencies = next(g for g in compare.groups(records) if g.name == "latency")
    told = {record.case.variant: reason for record, reason in compare.lost(latencies, records)}
    assert told == {"linfusion": "too hot", "deltaconv": "out of memory: 9 GiB"}


def test_growth_is_the_exponent_in_the_number_of_pixels(tmp_path: Path, make_record: Make) -> None:
    sizes = (Resolution(64, 64), Resolution(128, 64), Resolution(256, 256))
    records = store(tmp_path, *(make_record((price((s.width * s.height) ** 2),), resolution=s) for s in sizes)).records
    (chart,) = charts.cost_charts(compare.groups(records), records, charts.palette(["self_attention"]))
    assert chart.growth == (("self_attention", "2.00"),)
    assert chart.figure["data"][0]["x"] == pytest.approx([64.0, (128 * 64) ** 0.5, 256.0])
    assert chart.figure["layout"]["xaxis"]["ticktext"] == ["64", "128x64", "256"]


def test_the_frontier_leaves_out_what_is_beaten_on_both(tmp_path: Path, make_record: Make) -> None:
    taken = {"self_attention": (100, 30.0), "linfusion": (50, 28.0), "deltaconv": (40, 29.0)}
    records = store(tmp_path, *(make_record((price(c), score(s)), variant=v) for v, (c, s) in taken.items())).records
    (chart,) = pareto.tradeoff_charts(compare.groups(records), charts.palette(taken))
    frontier = chart.figure["data"][0]
    assert (frontier["x"], frontier["y"]) == ([0.4, 1.0], [29.0, 30.0])


def test_a_variant_keeps_its_colour_whatever_else_is_shown() -> None:
    few, many = (
        charts.palette(["deltaconv", "mine"]),
        charts.palette(["self_attention", "linfusion", "deltaconv", "mine"]),
    )
    assert few["deltaconv"] == many["deltaconv"]
    assert few["mine"] == many["mine"]
    assert len(set(charts.palette(f"v{i}" for i in range(6)).values())) == 6


def test_the_csv_holds_every_reading_exactly(tmp_path: Path, make_record: Make) -> None:
    huge = 2**63 + 12345
    record = make_record((price(huge), latency(1 / 3)), variant="deltaconv")
    store(tmp_path, record, make_record((), "failed", 'a, "b"', variant="linfusion"))
    render(tmp_path)
    with (tmp_path / "readings.csv").open(newline="") as file:
        rows = {(row["variant"], row["reading"]): row for row in csv.DictReader(file)}
    assert int(rows["deltaconv", "flops"]["value"]) == huge
    assert float(rows["deltaconv", "latency"]["value"]) == 1 / 3
    assert rows["linfusion", ""]["reason"] == 'a, "b"'


def test_names_that_a_spreadsheet_would_run_stay_text(tmp_path: Path, make_record: Make) -> None:
    store(tmp_path, make_record((price(-0),), variant="=cmd|' /C calc'!A0"), make_record((), "failed", "@SUM(1)"))
    render(tmp_path)
    with (tmp_path / "readings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["variant"] for row in rows} == {"'=cmd|' /C calc'!A0", "self_attention"}
    assert "'@SUM(1)" in {row["reason"] for row in rows}


def test_the_markdown_has_one_table_a_model_and_resolution(tmp_path: Path, make_record: Make) -> None:
    store(tmp_path, make_record((latency(10.0),)), make_record((), "failed", "odd | reason", variant="deltaconv"))
    render(tmp_path)
    lines = (tmp_path / "summary.md").read_text().splitlines()
    start = lines.index("## tiny_sd at 64 px")
    assert lines[start + 2 : start + 6] == [
        "| variant | Latency |",
        "| --- | ---: |",
        "| self_attention | 10.0 ms (9.0 to 11.0) |",
        "| deltaconv | – [1] |",
    ]


def test_the_commands_take_exactly_the_cases_again(tmp_path: Path, make_record: Make) -> None:
    records = store(
        tmp_path,
        *(make_record((price(1),), variant=v, resolution=Resolution(s, s)) for v in ("a", "b") for s in (64, 128)),
        make_record((price(1),), variant="c", resolution=Resolution(64, 96)),
    ).records
    first, second = provenance.commands("mine", records)
    assert "name=mine 'models=[tiny_sd]' 'variants=[a,b]' 'resolutions=[64,128]'" in first
    assert "'variants=[c]' 'resolutions=[64x96]'" in second
    assert "steps=10" in first


def test_a_hybrid_says_which_sites_keep_attention(make_record: Make, tmp_path: Path) -> None:
    def seated(variant: str, *mixers: str) -> Record:
        accounts = (SiteAccount(f"up.{at}.attn1", 48, 4, (8, 8), mixer, 10, 9) for at, mixer in enumerate(mixers))
        return replace(make_record(variant=variant), sites=tuple(accounts))

    kept = seated("hybrid-k", "DeltaConvBlock", "DeltaConvBlock", "SelfAttention")
    alike = seated("deltaconv", *["DeltaConvBlock"] * 3)
    model, line = kept.case.model, "of 3 sites, DeltaConvBlock at 2, SelfAttention at 1 (up.2.attn1)"
    assert sites.mixtures([alike, kept]) == [(f"hybrid-k on {model}", line)]
    halves = seated("hybrid", *["DeltaConvBlock"] * 4, *["SelfAttention"] * 4)
    assert "up." not in sites.mixtures([halves])[0][1]
    assert line in render(store(tmp_path, alike, kept).folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1_234_567_890, "FLOP", "1.23 GFLOPs"),
        (999, "FLOP", "999 FLOPs"),
        (0, "byte", "0 B"),
        (1536, "byte", "1.50 KiB"),
        (52_428_800, "byte", "50.0 MiB"),
        (12.3456, "ms", "12.3 ms"),
        (0.0123, "ms", "12.3 µs"),
        (83_000.0, "ms", "1.38 min"),
        (2_412_345, "parameter", "2.41 M"),
        (0.91234, "share", "91.2%"),
        (31.23456, "1", "31.23"),
        (-0.00012346, "1", "−0.0001235"),
        (27.5, "dB", "27.5 dB"),
        (12_345_678, "token", "12.3 M token"),
        (None, "ms", "–"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, unit: str, text: str) -> None:
    assert units.human(value, unit).replace("\u00a0", " ") == text


def test_an_interval_decides_the_digits() -> None:
    assert units.with_interval(31.23456, 30.98, 31.49, "1") == ("31.23", "30.98 to 31.49")
    assert units.with_interval(1234.5, 1100.0, 1400.0, "ms") == ("1.23\u00a0s", "1.10 to 1.40")
    assert units.with_interval(5.0, 5.0, 5.0, "1") == ("5.000", "5.000 to 5.000")
