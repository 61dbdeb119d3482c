"""What published figures of known devices say without the hardware: does it fit, and how fast can it never be?

A denoiser call of batch 1 is no faster than its FLOPs at the device's peak rate, nor than its bytes at the memory's
bandwidth (the roofline of Williams, Waterman and Patterson, 2009).

FLOPs: of the definition, 2 per multiply-add; a forward that does with fewer (the ∆ConvBlock closes its reduced scales
before it enlarges them) may come below the bound. Bytes: those alive at the projected peak, each read or written at
least once; a CPU library's copies there only have to fit. Rates: dense, with fp32 sums, at the published boost clock,
which a card may exceed by a few percent; at fp32 that of TF32, which torch lets convolutions use. A GB is 10^9 bytes,
7 % below 2^30, for the driver; text encoder and autoencoder need their own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.records.by_key import grouped
from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.units import DASH, human
from reports.compare import Series, mixers, series_of, series_order
from reports.tables import Cell

VENDOR = "NVIDIA "
ONE_IMAGE = "batch 1,"
"""So a latency's protocol says that it is of the call that is priced here."""


@dataclass(frozen=True)
class Device:
    """A device by its published figures; `cuda` is the name that its driver gives."""

    name: str
    cuda: str
    memory_gb: float
    bandwidth_gb_s: float
    tflops: Mapping[str, float]
    source: str

    def rate(self, dtype: str) -> float | None:
        """FLOPs a second of matrix products in that format; None where the device has no such arithmetic."""
        known = [self.tflops[name] for name in {"fp32": ("fp32", "tf32")}.get(dtype, (dtype,)) if name in self.tflops]
        return max(known) * 1e12 if known else None

    def drives(self, name: str) -> bool:
        """Whether a driver's name is this device's and no sibling's; drivers before 2021 leave out the vendor's."""
        return name.removeprefix(VENDOR) == self.cuda.removeprefix(VENDOR)


@dataclass(frozen=True)
class Call:
    """A variant's denoiser call of batch 1: FLOPs, bytes that have to fit, bytes that it moves at least, and how many
    milliseconds it took by the name of the GPU, where it was timed.
    """

    series: Series
    resolution: Resolution
    flops: float
    memory: float
    traffic: float
    taken_ms: Mapping[str, float]


@dataclass(frozen=True)
class Bound:
    """The least time of a call, and whether its FLOPs or its bytes set it."""

    ms: float
    by: str


@dataclass(frozen=True)
class DeviceTable:
    """A model at a number format: for each variant the largest size that fits, and all sizes, one column a device."""

    dtype: str
    largest: tuple[tuple[Series, tuple[Cell, ...]], ...]
    sizes: tuple[tuple[Series, Resolution, str, tuple[Cell, ...]], ...]


@cache
def devices() -> tuple[Device, ...]:
    """The devices of devices.json, each figure from the vendor's paper that `source` names."""
    rows = json.loads((Path(__file__).parent / "devices.json").read_text(encoding="utf-8"))
    return tuple(Device(**row) for row in rows)


def bound(flops: float, size: float, dtype: str, device: Device) -> Bound | None:
    """No call that does so many FLOPs on so many bytes is faster; None where the device lacks the number format."""
    rate = device.rate(dtype)
    if rate is None:
        return None
    compute_ms, memory_ms = 1e3 * flops / rate, 1e3 * size / (device.bandwidth_gb_s * 1e9)
    return Bound(compute_ms, "FLOPs") if compute_ms >= memory_ms else Bound(memory_ms, "bytes")


def fits(size: float, device: Device) -> bool:
    """Whether so many bytes go into its memory."""
    return size <= device.memory_gb * 1e9


def device_tables(records: Sequence[Record]) -> list[DeviceTable]:
    """One table a number format of one model's records, where both FLOPs and projected memory are known."""
    words = mixers(records)
    tables = []
    for dtype, same in sorted(grouped(records, lambda r: str(r.case.settings.get("dtype", "fp32"))).items()):
        places = grouped(same, lambda record: (series_of(record, words), record.case.resolution))
        ordered = sorted(places.items(), key=lambda item: (series_order(item[0][0]), item[0][1]))
        if calls := [call for (series, _), held in ordered if (call := _call(series, held))]:
            tables.append(_table(dtype, calls))
    return tables


def _call(series: Series, records: Sequence[Record]) -> Call | None:
    """What records of one series, size and number format say, the latest of each; None where a price is missing."""
    readings = [(str(record.machine.get("gpu")), reading) for record in records for reading in record.readings]
    values = {r.name: r.value for _, r in readings if r.value}
    workspace = {r.name: r.details.get("workspace", 0) for _, r in readings if r.value}
    taken_ms = {gpu: r.value for gpu, r in readings if r.value and r.name == "latency" and ONE_IMAGE in r.protocol}
    if not {"flops", "projected_memory"} <= values.keys():
        return None
    memory = values["projected_memory"]
    copies = workspace["projected_memory"]
    traffic = memory - copies if isinstance(copies, int | float) else memory
    return Call(series, records[0].case.resolution, values["flops"], memory, traffic, taken_ms)


def _table(dtype: str, calls: Sequence[Call]) -> DeviceTable:
    by_series = grouped(calls, lambda call: call.series)
    largest = tuple((s, tuple(_largest(mine, dtype, d) for d in devices())) for s, mine in by_series.items())
    sizes = tuple(
        (call.series, call.resolution, human(call.memory, "byte"), tuple(_cell(call, dtype, d) for d in devices()))
        for call in calls
    )
    return DeviceTable(dtype, largest, sizes)


def _largest(mine: Sequence[Call], dtype: str, device: Device) -> Cell:
    """The largest size that fits, with its bound."""
    within = [call for call in mine if fits(call.memory, device)]
    if not within:
        return Cell(DASH, reason=f"the smallest size asked for is larger than {device.memory_gb:g} GB")
    cell = _cell(within[-1], dtype, device)
    return Cell(f"{within[-1].resolution} px", (cell.text, *cell.small), reason=cell.reason)


def _cell(call: Call, dtype: str, device: Device) -> Cell:
    least = bound(call.flops, call.traffic, dtype, device)
    if least is None:
        return Cell(f"no {dtype}", reason=f"the {device.name} has no {dtype} arithmetic", tone="worse")
    if not fits(call.memory, device):
        return Cell("does not fit", tone="worse")
    small: tuple[str, ...] = ("by bytes",) if least.by == "bytes" else ()
    for gpu, taken_ms in call.taken_ms.items():
        if device.drives(gpu):
            small += (f"measured {human(taken_ms, 'ms')}", f"{least.ms / taken_ms:.1%} of the bound's pace")
    return Cell(f"≥\u00a0{human(least.ms, 'ms')}", small, least.ms)
