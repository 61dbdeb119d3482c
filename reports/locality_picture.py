"""The section on locality as one picture, for trackers that show images and no pages."""

import base64
import io
from typing import TYPE_CHECKING, Any

from harness.records.record import Record
from reports.heatmaps import Sheet, sheet
from reports.locality_charts import DEPTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def picture(record: Record) -> "Figure | None":
    """Curves, receptive fields and decomposition of the maps, and the maps over their image; None without maps."""
    reading = record.number("locality_receptive_field")
    if reading is None:
        return None
    from matplotlib.figure import Figure

    sites, shown = reading.details["sites"], sheet(reading.details["pictures"])
    figure = Figure(figsize=(14, 4 + 1.6 * len(shown.rows)), layout="constrained")
    figure.suptitle(f"{record.case}: what self-attention looks at (sites from violet to red in order of execution)")
    parts: Any = figure.subfigures(2, 1, height_ratios=(4, 1.6 * len(shown.rows)))
    above, below = parts
    raw, sharp, fields, made = above.subplots(1, 4)
    _curves(raw, sites, "raw", "raw mass within a window; dotted: uniform map")
    _curves(sharp, sites, "filtered", "after the high-pass; 80 %: receptive field")
    _fields(fields, sites)
    _decomposition(made, sites)
    _heatmaps(below, shown)
    return figure


def _curves(axes: "Axes", sites: list[dict[str, Any]], kind: str, title: str) -> None:
    for number, site in enumerate(sites):
        if site["mean"][kind] is not None:
            colour = DEPTH[round(number * (len(DEPTH) - 1) / max(1, len(sites) - 1))]
            axes.plot(site["sizes"], site["mean"][kind], color=colour)
        axes.plot(site["sizes"], site["uniform"], color="grey", linestyle=":")
    axes.axhline(0.8, color="grey", linewidth=0.5)
    axes.set(title=title, xlabel="window, tokens a side", ylim=(0, 1.02))


def _fields(axes: "Axes", sites: list[dict[str, Any]]) -> None:
    at = range(1, len(sites) + 1)
    for number, time in enumerate(sites[0]["times"]):
        found = [site["times"][number]["receptive_field"] or float("nan") for site in sites]
        axes.plot(at, found, "o-", label=f"t = {time['time']}")
    axes.plot(at, [site["summary"]["uniform_receptive_field"] for site in sites], "k:", label="uniform map")
    axes.set(title="receptive field by site and time", xlabel="site", ylabel="tokens a side", ylim=(0, None))
    axes.legend()


def _decomposition(axes: "Axes", sites: list[dict[str, Any]]) -> None:
    for shift, (name, label) in enumerate((("low_frequency", "low frequencies"), ("artefacts", "artefact tokens"))):
        places = [number + 0.4 * shift for number in range(1, len(sites) + 1)]
        axes.bar(places, [site["mean"][name] for site in sites], width=0.4, label=label)
    axes.set(title="what attention is made of", xlabel="site", ylim=(0, 1.02))
    axes.legend()


def _heatmaps(figure: Any, shown: Sheet) -> None:
    from PIL import Image

    for row, (words, cells) in zip(
        figure.subplots(len(shown.rows), len(shown.sites), squeeze=False), shown.rows, strict=True
    ):
        for axes, cell in zip(row, cells, strict=True):
            axes.imshow(Image.open(io.BytesIO(base64.b64decode(cell.data.partition(",")[2]))))
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(words.removeprefix("query at "), fontsize=7)
