"""The largest size that ran: from statuses, machine by machine, and never from what was only counted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.case import Resolution
from harness.records.record import Reading, Record
from reports import largest_size, load
from reports.compare import Series
from reports.largest_size import LargestSize

TIMED = Reading("latency", "latency", 3.0, "ms", "lower", "latency/v1")


@pytest.fixture
def found(tmp_path: Path, make_record: Callable[..., Record]):
    """The largest_sizes of records of (variant, side, status, reason)."""
    (tmp_path / "records").mkdir()

    def make(*given: tuple[str, int, str, str], machine: str = "one", **changes):
        for variant, side, status, reason in given:
            taken = (TIMED,) if status == "ok" else ()
            one = make_record(taken, status, reason, variant=variant, resolution=Resolution(side, side), **changes)
            one = replace(one, machine={"gpu": machine})
            (tmp_path / "records" / f"{one.case.key}.json").write_text(json.dumps(one.to_json()))
        return largest_size.largest_sizes(load(tmp_path).records)

    return make


def test_the_largest_size_that_ran_and_the_smallest_that_did_not(found):
    (device,) = found(
        ("self_attention", 512, "ok", ""),
        ("self_attention", 1024, "out_of_memory", "31 GiB"),
        ("self_attention", 2048, "out_of_memory", "not tried: 1024 was too large for memory already"),
        ("deltaconv", 512, "ok", ""),
        ("deltaconv", 2048, "ok", ""),
        ("linfusion", 512, "timeout", "an hour"),
    )
    assert device.rows == (
        LargestSize(Series("self_attention"), "512", "1024", "out of memory: 31 GiB"),
        LargestSize(Series("linfusion"), "", "512", "timeout: an hour"),
        LargestSize(Series("deltaconv"), "2048", "", ""),
    )


def test_a_variant_that_could_not_run_or_crashed_did_not_run_everywhere(found):
    (device,) = found(
        ("deltaconv", 1024, "ok", ""),
        ("deltaconv", 2048, "failed", "ValueError: no such grid"),
        ("deltaconv", 4096, "out_of_memory", "31 GiB"),
        ("neighborhood", 512, "unavailable", "NATTEN is not installed"),
    )
    assert device.rows == (
        LargestSize(Series("neighborhood"), "", "512", "unavailable: NATTEN is not installed"),
        LargestSize(Series("deltaconv"), "1024", "2048", "failed: ValueError: no such grid"),
    )


def test_what_was_counted_on_shapes_did_not_run(found):
    assert found(("deltaconv", 16384, "ok", ""), weights="shapes") == []


def test_machines_and_number_formats_are_kept_apart(found):
    found(("deltaconv", 512, "ok", ""))
    found(("deltaconv", 1024, "ok", ""), dtype="bf16")
    largest_sizes = found(("deltaconv", 2048, "ok", ""), dtype="fp16", machine="two")
    assert {device.rows[0].largest for device in largest_sizes} == {"512", "1024", "2048"}
    assert any("dtype bf16" in device.where and device.where.endswith("one") for device in largest_sizes)


def test_two_settings_of_a_variant_came_as_far_as_each_did(found):
    spelled = '{{"mixer": "deltaconv.DeltaConvBlock.for_site", "parameters": {{"kernel_size": {}}}}}'.format
    found(("deltaconv", 512, "ok", ""), ("deltaconv", 1024, "out_of_memory", "31 GiB"), mixer=spelled(13))
    (device,) = found(("deltaconv", 1024, "ok", ""), mixer=spelled(5))
    assert device.rows == (
        LargestSize(Series("deltaconv", mixer="kernel_size 13"), "512", "1024", "out of memory: 31 GiB"),
        LargestSize(Series("deltaconv", mixer="kernel_size 5"), "1024", "", ""),
    )
