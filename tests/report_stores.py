"""Made-up stores for the tests of the reports: records as the harness would write them, images and foreign text too."""

import json
import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.records.case import Case, Resolution
from harness.records.record import Reading, Record, SiteAccount

PROMPTS = [
    "a red circle left of a blue square",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "è ∆",
]
GROWTH = {"self_attention": 2.0, "neighborhood": 1.0, "linfusion": 1.0, "deltaconv": 1.0}
FACTOR = {"self_attention": 1.0, "neighborhood": 2.4, "linfusion": 3.1, "deltaconv": 1.7}
MACHINE = {
    "cpu": "EPYC <7B13>",
    "threads": 2,
    "memory": 8 * 2**30,
    "gpu": None,
    "packages": {"torch": "2.9.0"},
    "load": 0.5,
}


def case(model: str, variant: str, size: str, **changed: Any) -> Case:
    """A case of the embedded world."""
    settings: dict[str, Any] = {"world": "shapes", "n": 512, "steps": 12, "guidance": 3.0, "seeds": (0,), "batch": 1}
    settings |= {
        "dtype": "fp32",
        "device": "cpu",
        "weights": f"5f3a{len(variant):02d}",
        "metrics": ("flops", "latency", "fdd"),
    }
    return Case(model=model, variant=variant, resolution=Resolution.parse(size), **(settings | changed))


def costs(one: Case) -> tuple[Reading, ...]:
    """FLOPs that grow as they should, and a latency with an interval."""
    pixels = one.resolution.width * one.resolution.height
    growth, factor = GROWTH.get(one.variant, 1.0), FACTOR.get(one.variant, 2.0)
    mixers = int(3 * factor * 1.3e6 * (pixels / 4096) ** growth)
    body = int(4.1e7 * pixels / 4096)
    milliseconds = (body / 2e7 + mixers / 1e7) * random.Random(str(one)).uniform(0.95, 1.05)
    return (
        Reading(
            "flops", "flops", body + mixers, "FLOP", "lower", "flops/analytic-v1, 2 per multiply-add, one call, batch 1"
        ),
        Reading(
            "flops", "flops_mixers", mixers, "FLOP", "lower", "flops/analytic-v1, 2 per multiply-add, one call, batch 1"
        ),
        Reading("flops", "parameters", 2412345 + 100 * len(one.variant), "parameter", "lower", "parameters/v1"),
        Reading(
            "projected_memory",
            "projected_memory",
            4 * 2412345 + 64 * pixels * 40,
            "byte",
            "lower",
            "projected/v1 liveness",
        ),
        Reading(
            "latency",
            "latency",
            milliseconds,
            "ms",
            "lower",
            "latency/v2 median of 30, batch 1",
            30,
            milliseconds * 0.97,
            milliseconds * 1.02,
            samples=(milliseconds,) * 30,
        ),
    )


def scores(one: Case) -> tuple[Reading, ...]:
    """Scores of 512 images."""
    worse = {"self_attention": 0.0, "neighborhood": 0.06, "linfusion": 0.11, "deltaconv": 0.04}.get(one.variant, 0.3)
    worse += 0.2 if one.resolution.width > 64 else 0.0
    clip, fdd = 31.234567891 - 9 * worse, 21.5 + 160 * worse
    return (
        Reading(
            "clip_score",
            "clip_score",
            clip,
            "1",
            "higher",
            "clip/shapes 9a1c, 64 px, n 512",
            512,
            clip - 0.21,
            clip + 0.22,
        ),
        Reading(
            "fdd",
            "fdd",
            fdd,
            "1",
            "lower",
            "fdd/shapes-vit 77de, n 512",
            512,
            fdd - 1.9,
            fdd + 2.1,
            details={"floor": 9.75},
        ),
        Reading(
            "attributes",
            "attributes",
            0.912 - worse / 2,
            "share",
            "higher",
            "probe/v1",
            512,
            0.89 - worse / 2,
            0.93 - worse / 2,
        ),
    )


def sites(one: Case) -> tuple[SiteAccount, ...]:
    """Three layers, one with a clamped kernel."""
    side_h, side_w = one.resolution.height // 4, one.resolution.width // 4
    accounts = []
    for level, path in enumerate(("down_blocks.0.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.0")):
        grid = (max(1, side_h >> level % 2), max(1, side_w >> level % 2))
        note = "kernel 13 clamped to 7" if one.variant == "deltaconv" and level == 1 else ""
        price = 1000 * grid[0] * grid[1] * len(one.variant)
        accounts.append(
            SiteAccount(f"{path}.transformer_blocks.0.attn1", 48, 4, grid, one.variant.title(), price, 9000, note)
        )
    return tuple(accounts)


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A plain picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def record(one: Case, **changed: Any) -> Record:
    """A record that went well."""
    readings = costs(one) + (scores(one) if one.resolution.width <= 128 and one.model.startswith("tiny") else ())
    values: dict[str, Any] = {
        "status": "ok",
        "readings": readings,
        "sites": sites(one),
        "machine": MACHINE,
        "elapsed_s": 3.25,
    }
    return Record(one, **(values | {"started": "2025-11-23T15:00:00+00:00"} | changed))


def put(folder: Path, *records: Record) -> None:
    """Write records as the harness does."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for one in records:
        (folder / "records" / f"{one.case.key}.json").write_text(json.dumps(one.to_json()))


def with_images(folder: Path, one: Record, count: int = 3) -> Record:
    """The record with images and prompts on disk."""
    base = f"images/{one.case.key}"
    (folder / base).mkdir(parents=True, exist_ok=True)
    size = one.case.resolution
    for i in range(count):
        (folder / base / f"{i}.png").write_bytes(png(size.width, size.height, (40 * i % 256, 90, 200)))
    (folder / base / "prompts.json").write_text(json.dumps(PROMPTS[:count]))
    return replace(one, artifacts={f"image/{i}": f"{base}/{i}.png" for i in range(count)})
