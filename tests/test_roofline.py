"""Bounds for known devices: by hand on round figures, never above what is possible, each figure with its source."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import Resolution
from harness.record import Reading, Record
from reports import load, roofline
from reports.roofline import Device

DEVICE = Device("made up", "MADE UP 9000", 10, 100, {"fp16": 50, "tf32": 20, "fp32": 10}, "nowhere")
Make = Callable[..., Record]


@pytest.mark.parametrize(
    ("flops", "size", "dtype", "ms", "by"),
    [
        (50e12, 1e9, "fp16", 1000.0, "FLOPs"),
        (50e9, 1e9, "fp16", 10.0, "bytes"),
        (20e12, 0, "fp32", 1000.0, "FLOPs"),  # by TF32, which torch lets convolutions use
    ],
)
def test_a_call_is_no_faster_than_its_flops_and_no_faster_than_its_bytes(flops, size, dtype, ms, by):
    least = roofline.bound(flops, size, dtype, DEVICE)
    assert (least.ms, least.by) == (pytest.approx(ms), by)


def test_a_number_format_that_the_device_lacks_has_no_bound():
    assert roofline.bound(1, 1, "bf16", DEVICE) is None


def test_a_gigabyte_is_ten_to_the_ninth():
    assert roofline.fits(10e9, DEVICE)
    assert not roofline.fits(10e9 + 1, DEVICE)


@pytest.mark.parametrize("device", roofline.devices(), ids=lambda device: device.name)
def test_every_device_has_a_source_and_figures_that_agree_with_one_another(device):
    rates = device.tflops
    assert any(year in device.source for year in map(str, range(2018, 2027)))
    assert rates["fp16"] >= rates.get("tf32", 0) >= 0
    assert rates.get("bf16", rates["fp16"]) == rates["fp16"]
    assert rates["fp16"] > rates["fp32"]
    if "tf32" in rates:
        assert rates["fp16"] / rates["tf32"] == pytest.approx(2, rel=0.03)
    assert 8 <= device.memory_gb <= 300
    assert 10 < rates["fp16"] * 1e3 / device.bandwidth_gb_s < 500  # FLOPs a byte at the ridge


@pytest.mark.parametrize(
    ("name", "rate", "bandwidth", "memory"),
    [("RTX 4090", 165.2, 1008, 24), ("A100 80GB SXM", 312, 2039, 80), ("H100 SXM", 989.4, 3350, 80)],
)
def test_well_known_figures_are_dense_and_not_sparse(name, rate, bandwidth, memory):
    (device,) = [device for device in roofline.devices() if device.name == name]
    assert (device.tflops["bf16"], device.bandwidth_gb_s, device.memory_gb) == (rate, bandwidth, memory)


@pytest.fixture
def tables(tmp_path: Path, make_record: Make, monkeypatch):
    """The device tables of records of (variant, side, FLOPs, bytes) on the made-up device."""
    monkeypatch.setattr(roofline, "devices", lambda: (DEVICE,))

    def make(*given, dtype: str = "fp16", gpu: str | None = None):
        (tmp_path / "records").mkdir(exist_ok=True)
        for variant, side, flops, size in given:
            readings = (
                Reading("flops", "flops", flops, "FLOP", "lower", "flops/v1"),
                Reading("projected_memory", "projected_memory", size, "byte", "lower", "projected_memory/v1"),
                Reading("latency", "latency", 4000.0, "ms", "lower", "latency/v1"),
            )
            one = make_record(readings, variant=variant, resolution=Resolution(side, side), dtype=dtype)
            one = replace(one, machine={"gpu": gpu})
            (tmp_path / "records" / f"{one.case.key}.json").write_text(json.dumps(one.to_json()))
        return roofline.device_tables(load(tmp_path).records)

    return make


def test_the_largest_size_that_fits_stands_with_its_bound(tables):
    (table,) = tables(
        ("self_attention", 512, 10**13, 10**9),
        ("self_attention", 1024, 10**14, 9 * 10**9),
        ("self_attention", 2048, 10**15, 11 * 10**9),
        ("linfusion", 2048, 10**12, 11 * 10**9),
    )
    rows = dict(table.largest)
    (cell,) = rows["self_attention"]
    assert (cell.text, cell.small, cell.raw) == ("1024 px", ("≥\u00a02.00\u00a0s",), 2000.0)
    (cell,) = rows["linfusion"]
    assert (cell.text, cell.reason) == ("–", "the smallest size asked for is larger than 10 GB")
    assert [cells[0].text for _, _, _, cells in table.sizes] == ["≥\u00a0200\u00a0ms", "≥\u00a02.00\u00a0s"] + [
        "does not fit"
    ] * 2


def test_what_was_measured_on_that_device_stands_beside_its_bound(tables):
    (table,) = tables(("linfusion", 512, 10**14, 10**9), gpu="NVIDIA MADE UP 9000 10GB")
    assert table.sizes[0][3][0].small == ("measured 4.00\u00a0s", "50.0% of the bound's pace")
    (table,) = tables(("linfusion", 512, 10**14, 10**9), gpu="another")
    assert table.sizes[0][3][0].small == ()


def test_each_number_format_has_its_own_table(tables):
    tables(("linfusion", 512, 10**14, 10**9))
    found = tables(("linfusion", 512, 10**14, 2 * 10**9), dtype="bf16")
    assert [table.dtype for table in found] == ["bf16", "fp16"]
    assert found[0].sizes[0][3][0].reason == "the made up has no bf16 arithmetic"


def test_records_without_both_prices_have_no_table(make_record, tmp_path):
    one = make_record((Reading("flops", "flops", 7, "FLOP", "lower", "flops/v1"),))
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / f"{one.case.key}.json").write_text(json.dumps(one.to_json()))
    assert roofline.device_tables(load(tmp_path).records) == []
