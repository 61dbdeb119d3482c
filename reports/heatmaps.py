"""Attention maps laid over the image that they belong to, as small pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HEAT = (255, 96, 0)
"""Colour of attention: one hue, whose strength is the value over the largest of the map."""
SIDE = 128


@dataclass(frozen=True)
class Cell:
    """One map over its image; `peak`: its largest value in units of a uniform map."""

    data: str
    peak: float


@dataclass(frozen=True)
class Sheet:
    """A row for each query, a column for each site."""

    prompt: str
    sites: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def sheet(pictures: dict[str, Any]) -> Sheet:
    """The pictures of a reading's details."""
    from PIL import Image

    raw = base64.b64decode(pictures["image"].partition(",")[2])
    with Image.open(io.BytesIO(raw), formats=("PNG",)) as file:
        image = file.convert("RGB").resize((SIDE, round(SIDE * file.height / file.width)))
    rows = []
    for number, query in enumerate(pictures["queries"]):
        cells = tuple(_cell(image, site["maps"][number], query) for site in pictures["sites"])
        rows.append((f"query at {query[0]:.0%} down, {query[1]:.0%} right", cells))
    return Sheet(pictures["prompt"], tuple(site["path"] for site in pictures["sites"]), tuple(rows))


def _cell(image: Any, map_HW: Sequence[Sequence[float]], query: Sequence[float]) -> Cell:
    """The image greyed, the map over it as heat, and a frame around the query's token."""
    from PIL import Image, ImageDraw

    height, width = len(map_HW), len(map_HW[0])
    values = [value for row in map_HW for value in row]
    peak = max(values)
    strength = Image.new("L", (width, height))
    strength.putdata([round(255 * value / peak) if peak > 0 else 0 for value in values])
    ground = image.convert("L").convert("RGB")
    ground.paste(Image.new("RGB", image.size, HEAT), mask=strength.resize(image.size, Image.Resampling.NEAREST))
    down, right = int(query[0] * height), int(query[1] * width)
    step = image.width / width, image.height / height
    box = (right * step[0], down * step[1], (right + 1) * step[0] - 1, (down + 1) * step[1] - 1)
    ImageDraw.Draw(ground).rectangle(box, outline=(0, 200, 255), width=2)
    out = io.BytesIO()
    ground.save(out, "PNG")
    return Cell(
        f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}", peak * len(values) / (sum(values) or 1)
    )
