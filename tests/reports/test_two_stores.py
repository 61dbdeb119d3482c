"""Two stores side by side: planted changes are found, equal ones are none, and times of two runs conclude nothing."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from report_page import Page

from harness.records.record import Reading
from harness.records.store import Store
from reports import load
from reports.__main__ import main
from reports.comparison_tables import compared


def flops(value: int) -> Reading:
    return Reading("flops", "flops", value, "FLOP", "lower", "flops/v1")


def time(ms: float, name: str = "latency", unit: str = "ms", **details: object) -> Reading:
    ends = (0.99 * ms, 1.01 * ms)
    return Reading("latency", name, ms, unit, "lower", f"{name}/v1", 9, *ends, details=details)


def clip(shift: float, noise: float = 0.5, seed: int = 0) -> Reading:
    """Images that differ much from one another and little from the same image of the other store."""
    source, extra = random.Random(7), random.Random(seed)
    samples = tuple(source.gauss(90, 8) + shift + extra.gauss(0, noise) for _ in range(64))
    mean = sum(samples) / 64
    return Reading("clip_score", "clip_score", mean, "1", "higher", "clip/v1", 64, mean - 2, mean + 2, "", samples)


@pytest.fixture
def stores(tmp_path: Path, make_record):
    """Two stores of one case each, or of cases by variant."""

    def make(before, after, **changed):
        for name, readings, changes in (("before", before, {}), ("after", after, changed)):
            by_variant = readings if isinstance(readings, dict) else {"deltaconv": readings}
            for variant, taken in by_variant.items():
                Store(tmp_path / name).put(make_record(taken, variant=variant, **changes))
        return tmp_path / "before", tmp_path / "after"

    return make


def changes(folders) -> dict[str, str]:
    return {change.name: change.verdict for change in compared(*map(load, folders)).changes}


def test_counts_are_equal_to_the_last_digit_or_changed(stores):
    folders = stores((flops(100), time(2.0)), (flops(101), time(2.0)))
    assert changes(folders)["flops"] == "worse"
    assert changes(stores((flops(100),), (flops(100),)))["flops"] == "same"


def test_a_store_beside_its_copy_has_nothing_open(stores):
    taken = (flops(100), clip(0.0), time(2.0), time(1.0, "latency_ratio", "x"))
    assert set(changes(stores(taken, taken)).values()) == {"same"}


def test_a_planted_loss_of_weights_is_found_in_pairs_and_the_weights_are_named(stores):
    folders = stores((clip(0.0),), (clip(-1.0, seed=1),), weights="other")
    (change,) = compared(*map(load, folders)).changes
    assert change.verdict == "worse"
    assert change.said.startswith(("−1.", "−0.9"))
    unlike = {name: (one, other) for name, one, other in compared(*map(load, folders)).unlike}
    assert unlike == {"weights of tiny_sd deltaconv": ("0123456789ab", "other")}


def test_twenty_pairs_of_equals_make_no_change(stores):
    before = {f"mixer{i}": (clip(0.0, seed=i),) for i in range(20)}
    after = {f"mixer{i}": (clip(0.0, seed=100 + i),) for i in range(20)}
    found = compared(*map(load, stores(before, after))).changes
    assert {change.verdict for change in found} == {"open"}


def test_times_of_two_runs_conclude_nothing_and_their_alternated_ratios_do(stores):
    before = (time(100.0), time(1.0, "latency_ratio", "x"))
    after = (time(50.0), time(0.5, "latency_ratio", "x"))
    folders = stores(before, after)
    assert changes(folders) == {"latency": "open", "latency_ratio": "better"}
    quiet = compared(*map(load, folders)).changes[0]
    assert (quiet.said, quiet.note) == ("0.50×", "separate runs: their quotient concludes nothing")


def test_a_disturbed_number_decides_nothing(stores):
    after = (time(0.5, "latency_ratio", "x", noisy="busy"),)
    folders = stores((time(1.0, "latency_ratio", "x"),), after)
    (change,) = compared(*map(load, folders)).changes
    assert (change.verdict, change.note) == ("open", "disturbed: busy")


def test_the_command_writes_page_and_summary_with_the_same_sentence(stores, capsys):
    hostile = {"<b>|x": (flops(1),), "linfusion": (flops(7),)}
    before, after = stores(hostile, {**hostile, "linfusion": (flops(5),), "new": (flops(1),)})
    assert main([str(before), str(after)]) == 0
    assert capsys.readouterr().out == f"{after / 'comparison.html'}\n"
    said = "Of 2 readings that both hold: 0 worse, 1 better, 0 changed, 1 same, 0 open."
    page = Page(after / "comparison.html")
    assert said in page.text
    assert "<b>|x" in page.text
    assert f"Only in {after} tiny_sd new at 64: FLOPs" in page.text
    text = (after / "comparison.md").read_text()
    assert said in text
    assert "| better | tiny_sd | linfusion | 64 | FLOPs | 7 FLOPs | 5 FLOPs | 0.71× |" in text


def test_two_stores_with_nothing_in_common_are_one_sentence_and_status_2(stores, capsys):
    other = replace(flops(1), protocol="flops/v2")
    before, after = stores((flops(1),), (other,))
    assert main([str(before), str(after)]) == 2
    told = capsys.readouterr().err
    assert "have no reading in common (same model, variant, size, protocol and settings)" in told
    assert told.count("\n") == 1
