"""Image sheets: the same prompt and seed in a row, one variant a column, one sheet for each model, size and settings.

Images lie in the page as WebP as long as there is room, and are links to their files after that. Beside each stand its
own scores, and how far it is from the teacher's image of the same prompt and seed.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.records.by_key import grouped
from harness.records.case import Resolution
from harness.records.record import Record
from harness.records.store import PROMPTS
from harness.records.typed import parsed
from harness.records.units import is_cost, spoken
from reports.compare import REFERENCE, Series, in_words, variant_order

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = 320
"""Longest side, in pixels, of an image inside the page."""
LOSSLESS = 128
REAL = Series("real images")


@dataclass
class Room:
    """Bytes that images may still take in the page, and images that may still be opened for it."""

    left: int = 3_500_000
    images: int = 1500

    def takes(self, size: int) -> bool:
        """Whether so many bytes fit; then they are taken."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


@dataclass(frozen=True)
class Picture:
    """One image as a data URL or a link, or the reason why there is none.

    scores: of this image alone, by reading; apart: mean difference from the teacher's image, 0 to 1.
    """

    src: str = ""
    path: str = ""
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    apart: float | None = None


@dataclass(frozen=True)
class Sheet:
    """One block: a row is (prompt, pictures), a picture for each series."""

    model: str
    resolution: Resolution
    settings: tuple[str, ...]
    series: tuple[Series, ...]
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]


def sheets(folder: Path, records: Sequence[Record], room: Room) -> list[Sheet]:
    """All sheets, in order of model and size."""
    blocks = grouped(filter(_indices, records), _block_of)
    return [_sheet(folder, blocks[key], key[-1], room) for key in sorted(blocks)]


def _block_of(record: Record) -> tuple[str, Resolution, tuple[str, ...]]:
    """Model, size, and the settings in which images beside each other may not differ."""
    alike = {name: value for name, value in record.case.settings.items() if name not in ("batch", "n")}
    return record.case.model, record.case.resolution, in_words(alike)


def _sheet(folder: Path, block: list[Record], settings: tuple[str, ...], room: Room) -> Sheet:
    columns = {Series(r.case.variant, r.case.weights): r for r in block}
    often = [series.variant for series in columns]
    ordered = sorted(columns, key=lambda s: (variant_order(s.variant), s.weights))
    every = sorted({index for record in block for index in _indices(record)})
    prompts = next((found for record in block if (found := _prompts(folder, record, every[0]))), [])
    real = next((record for record in block if any(name.startswith("real/") for name in record.artifacts)), None)
    rows = []
    for index in every:
        words = prompts[index] if index < len(prompts) and prompts[index].strip() else f"prompt {index}"
        rows.append((words, _row(folder, [columns[series] for series in ordered], real, index, room)))
    shown = tuple(s if often.count(s.variant) > 1 else Series(s.variant) for s in ordered)
    head = (REAL, *shown) if real else shown
    return Sheet(block[0].case.model, block[0].case.resolution, settings, head, tuple(rows))


def _row(folder: Path, records: Sequence[Record], real: Record | None, index: int, room: Room) -> tuple[Picture, ...]:
    """Real image where there is one, teacher, variants."""
    made, teacher = [], None
    if real is not None:
        made.append(_picture(folder, real, f"real/{index}", room, None, {})[0])
    for record in records:
        scores = {
            spoken(r.name): r.samples[index]
            for r in record.readings
            if index < len(r.samples) == r.n and not is_cost(r.unit, r.better)
        }
        picture, image = _picture(folder, record, f"image/{index}", room, teacher, scores)
        teacher = image if record.case.variant == REFERENCE else teacher
        made.append(picture)
    return tuple(made)


def _indices(record: Record) -> list[int]:
    names = (name.split("/", 1) for name in record.artifacts if name.startswith("image/"))
    return [int(index) for _, index in names if index.isdecimal() and len(index) < 10]


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
    """The file of that name under the folder; None where it is missing or a link leads outside."""
    if not name:
        return None
    path = folder / name
    try:
        return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None
    except OSError:
        return None


def _picture(
    folder: Path, record: Record, name: str, room: Room, teacher: "Image | None", scores: dict[str, float]
) -> tuple[Picture, "Image | None"]:
    """A picture, and the opened image where it was small enough to be compared with others."""
    file = record.artifacts.get(name, "")
    path = inside(folder, file)
    if path is None:
        return Picture(reason=f"{file or 'this image'} is not in the folder"), None
    if room.images <= 0 or room.left <= 0:
        return Picture(src=file, path=file, scores=scores), None
    room.images -= 1
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Picture(reason=f"{file} is not an image that can be read ({type(error).__name__})"), None
    raw = _webp(image)
    src = f"data:image/webp;base64,{base64.b64encode(raw).decode()}" if room.takes(4 * len(raw) // 3) else file
    return Picture(src, file, scores=scores, apart=_apart(image, teacher)), image


def _webp(image: "Image") -> bytes:
    """Without loss where it is small, else a thumbnail."""
    out, small = io.BytesIO(), image
    if max(image.size) > THUMBNAIL:
        small = image.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
    if max(image.size) <= LOSSLESS:
        small.save(out, "WEBP", lossless=True, quality=30, method=1)
    else:
        small.save(out, "WEBP", quality=85, method=2)
    return out.getvalue()


def _apart(image: "Image", teacher: "Image | None") -> float | None:
    """Mean absolute difference of two images of one size, as a share of the whole range."""
    if teacher is None or teacher.size != image.size:
        return None
    from PIL import ImageChops, ImageStat

    means = ImageStat.Stat(ImageChops.difference(image, teacher)).mean
    return float(sum(means) / len(means) / 255)
