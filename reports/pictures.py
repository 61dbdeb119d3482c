"""Image grids: the same prompt and seed in a row, one variant a column, one block for each model and resolution.

Images that differ in anything else (steps, guidance, seeds, ...) stand in blocks of their own. Small images travel in
the page as they are; large ones as thumbnails, with a link to the file beside the page.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.store import PROMPTS
from harness.records.typed import parsed
from reports.compare import Series, in_words, variant_order

THUMBNAIL = 320
"""Longest side, in pixels, of an image inside the page."""


@dataclass(frozen=True)
class Picture:
    """One image as a data URL, or the reason why there is none."""

    data: str = ""
    path: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Sheet:
    """One block: a row is (prompt, pictures), a picture for each series."""

    model: str
    resolution: Resolution
    settings: tuple[str, ...]
    series: tuple[Series, ...]
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]
    total: int


def sheets(folder: Path, records: Sequence[Record]) -> list[Sheet]:
    """All blocks, in order of model and size."""
    blocks: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if _indices(record):
            settings = in_words({k: v for k, v in record.case.settings.items() if k not in ("batch", "n")})
            key = (record.case.model, record.case.resolution, settings)
            blocks.setdefault(key, []).append(record)
    return [_sheet(folder, settings, block) for (_, _, settings), block in sorted(blocks.items(), key=lambda b: b[0])]


def _sheet(folder: Path, settings: tuple[str, ...], block: list[Record]) -> Sheet:
    columns = {Series(r.case.variant, r.case.weights): r for r in block}
    often = [series.variant for series in columns]
    ordered = sorted(columns, key=lambda s: (variant_order(s.variant), s.weights))
    every = sorted({index for record in block for index in _indices(record)})
    first = block[0]
    prompts = next((found for record in block if (found := _prompts(folder, record, every[0]))), [])
    rows = []
    for index in every[: _rows(first.case.pixels)]:
        words = prompts[index] if index < len(prompts) and prompts[index].strip() else f"prompt {index}"
        rows.append((words, tuple(_picture(folder, columns[series], index) for series in ordered)))
    shown = tuple(s if often.count(s.variant) > 1 else Series(s.variant) for s in ordered)
    return Sheet(
        first.case.model,
        first.case.resolution,
        settings,
        shown,
        tuple(rows),
        len(every),
    )


def _rows(pixels: int) -> int:
    """Fewer rows of larger images: decoding them is most of the time that a page takes."""
    return 8 if pixels <= 256**2 else 4 if pixels <= 1024**2 else 2


def _indices(record: Record) -> list[int]:
    names = (name.split("/", 1) for name in record.artifacts if name.startswith("image/"))
    return [int(index) for _, index in names if index.isdecimal()]


def _prompts(folder: Path, record: Record, index: int) -> list[str]:
    """The prompts of a case: a list beside its images, an entry an image."""
    image = inside(folder, record.artifacts.get(f"image/{index}", ""))
    if image is None:
        return []
    try:
        found = parsed((image.parent / PROMPTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(prompt) for prompt in found] if isinstance(found, list) else []


def inside(folder: Path, name: str) -> Path | None:
    """The file of that name under the folder; None where it is missing or leads outside."""
    if not name:
        return None
    path = folder / name
    try:
        return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None
    except OSError:
        return None


def _picture(folder: Path, record: Record, index: int) -> Picture:
    name = record.artifacts.get(f"image/{index}", "")
    path = inside(folder, name)
    if path is None:
        return Picture(reason=f"{name or 'this image'} is not in the folder")
    from PIL import Image

    try:
        raw = path.read_bytes()
        with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG", "WEBP")) as image:
            if max(image.size) <= THUMBNAIL:
                image.verify()
                return Picture(_data_url(raw, (image.format or "PNG").lower()), name)
            small = image.convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Picture(reason=f"{name} is not an image that can be read ({type(error).__name__})")
    out = io.BytesIO()
    small.save(out, "WEBP", quality=85, method=2)
    return Picture(_data_url(out.getvalue(), "webp"), name)


def _data_url(raw: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
