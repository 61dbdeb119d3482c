"""Bounds for known devices: by hand on round figures, never above what is possible, each figure with its source."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from report_page import Page

from harness.records.case import Resolution
from harness.records.record import Reading, Record
from reports import load, render, roofline
from reports.compare import Series
from reports.roofline import Device

DEVICE = Device("made up", "NVIDIA MADE UP 9000", 10, 100, {"fp16": 50, "tf32": 20, "fp32": 10}, "nowhere")
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


DRIVERS = {
    "T4": "Tesla T4",
    "RTX 3060 12GB": "NVIDIA GeForce RTX 3060",
    "RTX 3090": "NVIDIA GeForce RTX 3090",
    "RTX 4090": "NVIDIA GeForce RTX 4090",
    "RTX 5090": "NVIDIA GeForce RTX 5090",
    "A10": "NVIDIA A10",
    "L4": "NVIDIA L4",
    "L40S": "NVIDIA L40S",
    "A100 40GB": "NVIDIA A100-SXM4-40GB",
    "A100 80GB SXM": "NVIDIA A100-SXM4-80GB",
    "H100 SXM": "NVIDIA H100 80GB HBM3",
    "H200 SXM": "NVIDIA H200",
    "B200": "NVIDIA B200",
}
"""What torch.cuda.get_device_name says on each."""
SIBLINGS = (
    *("NVIDIA GeForce RTX 3060 Ti", "NVIDIA GeForce RTX 3060 Laptop GPU", "NVIDIA GeForce RTX 3090 Ti", "NVIDIA T4G"),
    *("NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 5090 Laptop GPU"),
    *(
        "NVIDIA A10G",
        "NVIDIA A10M",
        "NVIDIA A100-PCIE-40GB",
        "NVIDIA A100 80GB PCIe",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
    ),
    *("NVIDIA L40", "NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GB200", "NVIDIA GH200 480GB"),
)
"""Other figures, names that hold one of the above."""


def test_a_drivers_name_is_that_of_one_device_and_of_no_sibling():
    for driver in DRIVERS.values():
        assert [DRIVERS[device.name] for device in roofline.devices() if device.drives(driver)] == [driver]
    assert not [(device.name, name) for device in roofline.devices() for name in SIBLINGS if device.drives(name)]
    assert [device.name for device in roofline.devices() if device.drives("A100-SXM4-40GB")] == ["A100 40GB"]


@pytest.fixture
def tables(tmp_path: Path, make_record: Make, monkeypatch):
    """The device tables of records of (variant, side, FLOPs, bytes) on the made-up device."""
    monkeypatch.setattr(roofline, "devices", lambda: (DEVICE,))

    def make(*given, gpu: str | None = None, ms: float = 4000.0, workspace: int = 0, **changes):
        changes = {"dtype": "fp16", "batch": 1} | changes
        call = f"latency/v1: one denoiser call, batch {changes['batch']}, eager"
        (tmp_path / "records").mkdir(exist_ok=True)
        for variant, side, flops, size in given:
            readings = (
                Reading("flops", "flops", flops, "FLOP", "lower", "flops/v1"),
                Reading(*("projected_memory",) * 2, size, "byte", "lower", "p/v1", details={"workspace": workspace}),
                Reading("latency", "latency", ms, "ms", "lower", call),
            )
            one = make_record(readings, variant=variant, resolution=Resolution(side, side), **changes)
            started = f"2026-01-01T00:00:{len(list(tmp_path.glob('records/*'))):02d}"
            one = replace(one, machine={"gpu": gpu}, started=started)
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
    (cell,) = rows[Series("self_attention")]
    assert (cell.text, cell.small) == ("1024 px", ("≥\u00a02.00\u00a0s",))
    (cell,) = rows[Series("linfusion")]
    assert (cell.text, cell.reason) == ("–", "the smallest size asked for is larger than 10 GB")
    assert [cells[0].raw for _, _, _, cells in table.sizes] == [200.0, 2000.0, None, None]
    assert [cells[0].text for _, _, _, cells in table.sizes] == ["≥\u00a0200\u00a0ms", "≥\u00a02.00\u00a0s"] + [
        "does not fit"
    ] * 2


def test_what_was_measured_on_that_device_stands_beside_its_bound(tables):
    (table,) = tables(("linfusion", 512, 10**14, 10**9), gpu="NVIDIA MADE UP 9000")
    assert table.sizes[0][3][0].small == ("measured 4.00\u00a0s", "50.0% of the bound's pace")
    (table,) = tables(("linfusion", 512, 10**14, 10**9), gpu="another")
    assert table.sizes[0][3][0].small == ()


def test_only_a_call_of_one_image_stands_beside_the_bound_of_one(tables):
    tables(("linfusion", 512, 10**14, 10**9), gpu="NVIDIA MADE UP 9000")
    (table,) = tables(("linfusion", 512, 10**14, 10**9), gpu="NVIDIA MADE UP 9000", batch=10, ms=9000.0)
    assert table.sizes[0][3][0].small == ("measured 4.00\u00a0s", "50.0% of the bound's pace")
    (table,) = tables(("deltaconv", 512, 10**14, 10**9), gpu="NVIDIA MADE UP 9000", batch=10, ms=9000.0)
    assert [row[3][0].small for row in table.sizes if row[0] == Series("deltaconv")] == [()]


def test_a_later_record_of_another_machine_does_not_hide_what_was_measured(tables):
    tables(("linfusion", 512, 10**14, 10**9), gpu="NVIDIA MADE UP 9000")
    (table,) = tables(("linfusion", 512, 10**14, 10**9), gpu=None, batch=2)
    assert table.sizes[0][3][0].small[0] == "measured 4.00\u00a0s"


def test_workspace_has_to_fit_and_is_no_traffic(tables):
    """8 of 10 GB at 100 GB a second are 80 ms; 11 GB do not fit, whatever they are for."""
    (table,) = tables(("linfusion", 512, 1, 10 * 10**9), workspace=2 * 10**9)
    assert (table.sizes[0][3][0].raw, table.sizes[0][3][0].small) == (80.0, ("by bytes",))
    (table,) = tables(("linfusion", 512, 1, 11 * 10**9), workspace=3 * 10**9)
    assert table.sizes[0][3][0].text == "does not fit"


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


def test_two_settings_of_a_variant_have_a_row_each(tables):
    spelled = '{{"mixer": "deltaconv.DeltaConvBlock.for_site", "parameters": {{"kernel_size": {}}}}}'.format
    tables(("deltaconv", 512, 10**13, 10**9), mixer=spelled(5))
    (table,) = tables(("deltaconv", 512, 10**14, 10**9), mixer=spelled(13))
    assert [(row[0].mixer, row[3][0].raw) for row in table.sizes] == [
        ("kernel_size 13", 2000.0),
        ("kernel_size 5", 200.0),
    ]


def test_on_the_page_a_number_carries_its_raw_value_and_a_word_carries_none(tables, tmp_path):
    tables(("self_attention", 512, 10**13, 10**9), ("self_attention", 1024, 10**14, 11 * 10**9))
    page = Page(render(tmp_path))
    assert ("data", {"value": "200.0", "title": "200.0"}) in page.tags
    assert ("td", {"class": "worse"}) in page.tags
    assert "does not fit" in page.text
    assert not any("None" in values.get("title", "") for _, values in page.tags)
