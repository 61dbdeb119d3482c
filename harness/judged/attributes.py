"""Obedience in the embedded world: the share of what captions ask for that the probe finds in the images.

Of each thing: is something at its place, has it the shape, has it the colour. A matching pair whose colour the caption
leaves open has the colour right where both share one. The chance level is that of the images of other captions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.features.kept import Reader
from harness.features.source import fingerprint_of
from harness.judged.margin import Margin
from harness.judged.means import mean_score
from harness.judged.refusal import refusal
from harness.records.record import Reading
from harness.shapes.captions import Scene, held_out_scenes
from harness.shapes.probe import NOTHING, Sight, load
from harness.trial import Trial

KINDS = ("place", "shape", "colour")
LONG_RANGE = ("count", "place", "pair", "mirror")
"""Categories of captions that are readings of their own: what they ask for lies far apart in the image."""
PROBE = Path(__file__).parents[1] / "shapes" / "weights" / "probe"


def right(scene: Scene, sight: Sight, row: int) -> dict[str, float]:
    """Share of the scene's things with place, shape and colour right in image `row`; and `all`: nothing is wrong."""
    places = [thing.place for thing in scene.things]
    shapes, colours = sight.shape[row].tolist(), sight.colour[row].tolist()
    there = [shapes[place] != NOTHING for place in places]
    shaped = [shapes[thing.place] == thing.shape for thing in scene.things]
    wanted = [thing.colour if thing.named else colours[places[0]] for thing in scene.things]
    coloured = [here and colours[place] == ink for here, place, ink in zip(there, places, wanted, strict=True)]
    extra = any(shape != NOTHING for place, shape in enumerate(shapes) if place not in places)
    shares = {kind: sum(marks) / len(marks) for kind, marks in zip(KINDS, (there, shaped, coloured), strict=True)}
    return shares | {"all": float(all(share == 1 for share in shares.values()) and not extra)}


def scores(scenes: Sequence[Scene], sight: Sight) -> dict[str, Tensor]:
    """Per image (N,): `place`, `shape`, `colour`, their mean `attributes`, and `all`."""
    marks = [right(scene, sight, row) for row, scene in enumerate(scenes)]
    found = {kind: torch.tensor([mark[kind] for mark in marks]) for kind in (*KINDS, "all")}
    return found | {"attributes": torch.stack([found[kind] for kind in KINDS]).mean(dim=0)}


@dataclass(frozen=True)
class Attributes:
    """Share of attributes right, and share of scenes with nothing wrong."""

    name: str = "attributes"
    least: int = 8
    margin: Margin = field(default=Margin(points=1.0))
    needs: ClassVar[str] = "weights"

    def fingerprints(self) -> dict[str, str]:
        return {"probe": fingerprint_of(PROBE)}

    def readers(self, trial: Trial) -> list[Reader]:
        return [_probe()] if trial.world.name == "shapes" else []

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """attributes, scenes_right and attributes_<category>; one dash outside the embedded world."""
        protocol = f"attributes/v1: probe on 64 px, place, shape and colour of each thing, n={trial.case.n}"
        reason = refusal(trial, self.least) if trial.world.name == "shapes" else "only the embedded world has a probe"
        if reason:
            yield Reading(self.name, "attributes", None, "share", "higher", protocol, reason=reason)
            return
        scenes = [scene for scene in held_out_scenes(trial.case.n) for _ in trial.case.seeds][: trial.case.n]
        captions = [scene.caption for scene in scenes]
        seen = trial.rows(_probe())
        found = scores(scenes, Sight(*seen.unbind(1)))
        shuffled = Sight(*seen.roll(len(trial.case.seeds), 0).unbind(1))
        chance = scores(scenes, shuffled)["attributes"].mean()
        rows_of: dict[str, list[int]] = {}
        for row, scene in enumerate(scenes):
            rows_of.setdefault(scene.category, []).append(row)
        share_N = found["attributes"]
        details: dict[str, Any] = {kind: float(found[kind].mean()) for kind in KINDS} | {"chance": float(chance)}
        details["categories"] = {category: float(share_N[rows].mean()) for category, rows in rows_of.items()}
        told: list[tuple[str, Tensor, list[str], dict[str, Any]]] = [
            ("attributes", share_N, captions, details),
            ("scenes_right", found["all"], captions, {}),
        ]
        told += [
            (f"attributes_{category}", share_N[rows], [captions[row] for row in rows], {})
            for category, rows in rows_of.items()
            if category in LONG_RANGE and len({captions[row] for row in rows}) > 1
        ]
        for name, values, asked, more in told:
            reading = mean_score(self.name, name, "share", "higher", protocol, values.tolist(), asked, more, 0.0, 1.0)
            yield self.margin.beside(reading) if name == "attributes" else reading


@cache
def _probe() -> Reader:
    """What the probe sees in images, (N, 3, 9): shape, colour and size at each place."""
    probe = cache(lambda: load(PROBE))
    return Reader(f"probe/v1@{fingerprint_of(PROBE)}", lambda images: torch.stack(probe().read(images), dim=1))
