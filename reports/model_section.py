"""Everything the page says of one model: its answer, its tables and charts, its laws, its images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.records.record import Record
from reports import charts, largest_size, learning, pareto, pictures, provenance, roofline, slopes, tables
from reports.answers import Answer, answer
from reports.compare import Group
from reports.findings import ENOUGH, Brief, briefs
from reports.law_tables import LawTable, law_table
from reports.laws import laws

PRIMARY = ("clip_score", "attributes", "fdd", "ds")
PAID = ("latency", "image_latency", "flops", "flops_image", "projected_memory")


@dataclass(frozen=True)
class ModelSection:
    """One model; `picture` is quality against cost at the size that decides, `row` the images shown with the answer."""

    name: str
    answer: Answer
    picture: charts.Chart | None
    row: tuple[pictures.Sheet, int] | None
    briefs: tuple[Brief, ...]
    advice: tuple[str, ...]
    blocks: tuple[tables.Block, ...]
    other_blocks: tuple[tables.Block, ...]
    costs: tuple[charts.Chart, ...]
    largest_sizes: tuple[largest_size.LargestSizes, ...]
    laws: LawTable | None
    on_devices: tuple[roofline.DeviceTable, ...]
    scores: tuple[charts.Chart, ...]
    tradeoffs: tuple[charts.Chart, ...]
    growth: tuple[slopes.Slopes, ...]
    ladders: tuple[slopes.Ladder, ...]
    sheets: tuple[pictures.Sheet, ...]
    taught: tuple[learning.Part, ...]


def model_section(
    name: str, held: Sequence[Record], own: Sequence[Group], colours: charts.Palette, folder: Path, room: pictures.Room
) -> ModelSection:
    """`held` are the model's records, `own` its groups; `room` is what its images may take of the page."""
    blocks = [block for block in tables.summary(held, own) if block.columns]
    fullest = max(blocks, key=lambda b: (b.layer == 0, len(b.columns), b.resolution.pixels), default=None)
    largest = max(blocks, key=lambda b: (b.layer == 0, b.filled > 0, b.resolution.pixels), default=None)
    first = tuple(b for b in dict.fromkeys((fullest, largest)) if b is not None)
    fitted = laws(own)
    told = tuple(briefs(own))
    taught = tuple(learning.parts(held))
    said = answer(name, own, told, fitted, [sentence for part in taught for sentence in part.told])
    tradeoffs = pareto.tradeoff_charts(own, colours)
    sheets = pictures.sheets(folder, held, room)
    return ModelSection(
        name=name,
        answer=said,
        picture=shown_first(tradeoffs, said),
        row=_images(sheets, said),
        briefs=told,
        advice=tuple(_advice(brief, held, folder) for brief in told if brief.open),
        blocks=first,
        other_blocks=tuple(b for b in blocks if b not in first),
        costs=tuple(charts.cost_charts(own, held, colours, fitted)),
        largest_sizes=tuple(largest_size.largest_sizes(held)),
        laws=law_table(own, fitted),
        on_devices=tuple(roofline.device_tables(held)),
        scores=tuple(charts.score_charts(own, colours)),
        tradeoffs=tuple(tradeoffs),
        growth=tuple(slopes.slopes(own)),
        ladders=tuple(slopes.ladders(sheets)),
        sheets=tuple(sheets),
        taught=taught,
    )


def shown_first(tradeoffs: Sequence[charts.Chart], said: Answer) -> charts.Chart | None:
    """Quality against cost at the size that decides: of the best known score and the price that people feel."""
    here = [one for one in tradeoffs if said.size is not None and one.size == str(said.size)]

    def rank(one: charts.Chart) -> tuple[int, int]:
        score = PRIMARY.index(one.name) if one.name in PRIMARY else len(PRIMARY)
        paid = PAID.index(one.choice) if one.choice in PAID else len(PAID)
        return score, paid

    return min(here, key=rank, default=None)


def _images(sheets: Sequence[pictures.Sheet], said: Answer) -> tuple[pictures.Sheet, int] | None:
    """At the size that decides, of the prompts for which every variant has its image: the one whose images are neither
    unusually near the teacher's nor far from it.
    """
    here = [sheet for sheet in sheets if said.size is None or sheet.resolution == said.size] or list(sheets)
    for sheet in here[::-1]:
        apart = {
            index: sum(cell.apart or 0 for cell in cells)
            for index, (_, cells) in enumerate(sheet.rows)
            if all(cell.src for cell in cells)
        }
        if apart:
            return sheet, sorted(apart, key=apart.__getitem__)[len(apart) // 2]
    return None


def _advice(brief: Brief, held: Sequence[Record], folder: Path) -> str:
    """The command that takes the scores of a size again with more images."""
    here = [record for record in held if record.case.resolution == brief.resolution]
    scores = {one.name for row in brief.rows for one in row.differences}
    taken = {r.metric for record in here for r in record.readings if r.name in scores}
    again = [replace(r, case=replace(r.case, n=ENOUGH, metrics=tuple(sorted(taken)))) for r in here]
    (command, *_) = provenance.commands(f"{folder.resolve().name}_{ENOUGH}", again)
    return f"What {brief.images} images leave open at {brief.resolution} px, {ENOUGH} may tell: {command}"
