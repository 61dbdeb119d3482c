"""What was found, as JSON values for a record: numbers of every site, and small pictures of a few maps."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from harness.locality.mass import smallest_window, uniform_mass, window_sizes
from harness.locality.survey import Place, SiteTallies, position_of
from harness.locality.tally import Tally
from harness.seats.mixer import Grid

PICTURE = 256  # longest side of a picture in pixels
PICTURE_GRID = 32  # longest side of a map that is kept as a picture, in tokens; larger ones are averaged
PICTURED_SITES = 9
BRIEF = ("receptive_field", "raw_receptive_field", "low_frequency", "artefacts", "entropy")
"""What is kept of a single head or time."""


def maps_of(found: Sequence[SiteTallies], window: int) -> list[dict[str, Any]]:
    """Every site: its mean map in full, single times and heads in brief, and a summary of the readings."""
    return [_site(each, window) for each in found]


def _site(found: SiteTallies, window: int) -> dict[str, Any]:
    mean = found.mean.findings()
    sizes, uniform = uniform_curve(found.grid)
    at = min((window - 1) // 2, len(sizes) - 1)
    return {
        "path": found.site.path,
        "grid": list(found.grid),
        "heads": found.site.heads,
        "sizes": sizes,
        "uniform": uniform,
        "mean": mean,
        "decay": found.mean.decay(),
        "times": [{"time": time} | brief(t) for time, t in zip(found.times, found.by_time, strict=True)],
        "by_head": [brief(found.by_head, head) for head in range(found.site.heads)],
        "summary": {
            "locality_receptive_field": mean["receptive_field"],
            "locality_mass": mean["raw"][at],
            "uniform_mass": uniform[at],
            "uniform_receptive_field": smallest_window(
                torch.tensor(uniform, dtype=torch.float64), found.mean.reader.share
            ),
            "locality_low_frequency": mean["low_frequency"],
            "locality_artefacts": mean["artefacts"],
            "locality_entropy": mean["entropy"],
        },
    }


def influence_of(found: Mapping[str, Tally]) -> list[dict[str, Any]]:
    """Every site by its gradients: the same numbers, of the influence instead of the map."""
    return [{"path": path, "grid": list(tally.grid)} | tally.findings() for path, tally in found.items()]


def uniform_curve(grid: Grid) -> tuple[list[int], list[float]]:
    """Windows of 1, 3, 5, ... and the mass of a uniform map within each."""
    sizes = window_sizes(grid)
    return sizes, [uniform_mass(grid, size) for size in sizes]


def pictures(found: Sequence[SiteTallies], image: Tensor, prompt: str, queries: Sequence[Place]) -> dict[str, Any]:
    """The first image and, for a few sites over the depth, the mean map of each query, its largest value beside it."""
    count = min(PICTURED_SITES, len(found))
    chosen = [found[round(i * (len(found) - 1) / max(1, count - 1))] for i in range(count)]
    return {
        "image": data_url(image),
        "prompt": prompt,
        "queries": [list(query) for query in queries],
        "sites": [{"path": each.site.path, "maps": [_shown(each, query) for query in queries]} for each in chosen],
    }


def _shown(found: SiteTallies, query: Place) -> list[list[float]]:
    height, width = found.grid
    map_HW = found.rows[position_of(query, found.grid)].view(height, width)
    step = -(-max(height, width) // PICTURE_GRID)
    if step > 1:
        map_HW = adaptive_avg_pool2d(map_HW[None], (-(-height // step), -(-width // step)))[0]
    return cast(list[list[float]], map_HW.tolist())


def data_url(image: Tensor) -> str:
    """A picture (3, H, W) in [0, 1] as a PNG in a data URL."""
    from torchvision.transforms.functional import to_pil_image

    picture = to_pil_image(image.clamp(0, 1))
    picture.thumbnail((PICTURE, PICTURE))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def brief(tally: Tally, row: int = 0) -> dict[str, Any]:
    """Of one map in brief."""
    found = tally.findings(row)
    return {name: found[name] for name in BRIEF}
