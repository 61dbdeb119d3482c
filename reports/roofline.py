"""What published figures of known devices say without the hardware: does it fit, and how fast can it never be?

A denoiser call is no faster than its FLOPs at the device's peak rate, nor than its bytes at the memory's bandwidth
(the roofline of Williams, Waterman and Patterson, 2009). As bytes count those that are alive at the projected peak:
each was read or written at least once. FLOPs are 2 per multiply-add, as vendors count. Rates are dense, with fp32 sums,
at the published boost clock, which a card may exceed by a few percent. At fp32 the rate is that of TF32 where there is
one, since torch lets convolutions use it. A GB is 10^9 bytes here, the tenth that this is below 2^30 left for the
driver; text encoder and autoencoder need their own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reports.compare import variant_order
from reports.read import Record
from reports.tables import Cell
from reports.units import DASH, human


@dataclass(frozen=True)
class Device:
    """A device by its published figures; `cuda` is part of the name that its driver gives."""

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


@dataclass(frozen=True)
class Bound:
    """The least time of a call, and whether its FLOPs or its bytes set it."""

    ms: float
    by: str


@dataclass(frozen=True)
class DeviceTable:
    """A model at a number format: for each variant the largest size that fits, and all sizes, one column a device."""

    dtype: str
    largest: tuple[tuple[str, tuple[Cell, ...]], ...]
    sizes: tuple[tuple[str, str, str, tuple[Cell, ...]], ...]


@cache
def devices() -> tuple[Device, ...]:
    """The devices of devices.json, each figure from the vendor's paper that `source` names."""
    rows = json.loads((Path(__file__).parent / "devices.json").read_text(encoding="utf-8"))
    return tuple(Device(**row) for row in rows)


def bound(flops: float, size: float, dtype: str, device: Device) -> Bound | None:
    """No call of so many FLOPs over so many bytes is faster; None where the device lacks the number format."""
    rate = device.rate(dtype)
    if rate is None:
        return None
    compute_ms, memory_ms = 1e3 * flops / rate, 1e3 * size / (device.bandwidth_gb_s * 1e9)
    return Bound(compute_ms, "FLOPs") if compute_ms >= memory_ms else Bound(memory_ms, "bytes")


def fits(size: float, device: Device) -> bool:
    """Whether so many bytes go into its memory."""
    return size <= device.memory_gb * 1e9


def device_tables(records: Sequence[Record]) -> list[DeviceTable]:
    """One table a number format of one model's records, from those that hold both FLOPs and projected memory."""
    formats: dict[str, dict[tuple[tuple[int, str], int, str], Record]] = {}
    for record in records:
        if _value(record, "flops") and _value(record, "projected_memory"):
            place = (variant_order(record.variant), record.pixels, record.resolution)
            formats.setdefault(str(record.settings.get("dtype", "fp32")), {})[place] = record
    return [_table(dtype, [found[place] for place in sorted(found)]) for dtype, found in sorted(formats.items())]


def _table(dtype: str, records: Sequence[Record]) -> DeviceTable:
    by_variant: dict[str, list[Record]] = {}
    for record in records:
        by_variant.setdefault(record.variant, []).append(record)
    largest = tuple((v, tuple(_largest(mine, dtype, d) for d in devices())) for v, mine in by_variant.items())
    sizes = tuple(
        (
            r.variant,
            r.resolution,
            human(_value(r, "projected_memory"), "byte"),
            tuple(_cell(r, dtype, d) for d in devices()),
        )
        for r in records
    )
    return DeviceTable(dtype, largest, sizes)


def _largest(mine: Sequence[Record], dtype: str, device: Device) -> Cell:
    """The largest size that fits, with its bound."""
    within = [record for record in mine if fits(_value(record, "projected_memory"), device)]
    if not within:
        return Cell(DASH, reason=f"the smallest size asked for is larger than {device.memory_gb:g} GB")
    cell = _cell(within[-1], dtype, device)
    return Cell(f"{within[-1].resolution} px", (cell.text, *cell.small), cell.raw, reason=cell.reason)


def _cell(record: Record, dtype: str, device: Device) -> Cell:
    flops, size = _value(record, "flops"), _value(record, "projected_memory")
    least = bound(flops, size, dtype, device)
    if least is None:
        return Cell(f"no {dtype}", reason=f"the {device.name} has no {dtype} arithmetic", tone="worse")
    if not fits(size, device):
        return Cell("does not fit", raw=size, tone="worse")
    small: tuple[str, ...] = ("by bytes",) if least.by == "bytes" else ()
    if device.cuda in str(record.machine.get("gpu") or "") and (taken := _value(record, "latency")):
        small += (f"measured {human(taken, 'ms')}", f"{least.ms / taken:.1%} of the bound's pace")
    return Cell(f"≥\u00a0{human(least.ms, 'ms')}", small, least.ms)


def _value(record: Record, name: str) -> float:
    """The value of a reading; 0 where there is none."""
    return next((r.value for r in record.readings if r.name == name and r.value is not None), 0)
