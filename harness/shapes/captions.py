"""The grammar of the embedded world: scenes of coloured shapes, and the captions that describe them.

A scene is of one of eight categories: attribute binding (colour, shape, size), position (place, mixed), counting
(count), and two relations that need long range: a matching pair, whose common colour the caption leaves open, and
mirror symmetry. A caption whose checksum is divisible by 16 is held out: training never draws it.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
SIZES = ("small", "large")
BACKGROUNDS = ("white", "gray", "black")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
CATEGORIES = ("place", "mixed", "colour", "shape", "size", "count", "pair", "mirror")

LINES = {
    "top row": (0, 1, 2),
    "middle row": (3, 4, 5),
    "bottom row": (6, 7, 8),
    "left column": (0, 3, 6),
    "middle column": (1, 4, 7),
    "right column": (2, 5, 8),
}
"""Where a counted group stands: three things fill the line, two leave its middle free."""

HELD_OUT_SHARE = 16
GLUE = {"a", "an", "and", "at", "in", "on", "the", "two", "three", "matching", "pair", "of", "mirrored", "background"}
"""Words that join the others."""


@dataclass(frozen=True)
class Thing:
    """One shape: indices into COLOURS, SHAPES, SIZES, PLACES. `named`: whether the caption says the colour."""

    colour: int
    shape: int
    size: int
    place: int
    named: bool = True


Things = tuple[Thing, ...]


@dataclass(frozen=True)
class Scene:
    """What one image shows. `mirrored`: the right column repeats the left one, jitter included."""

    category: str
    caption: str
    background: int
    things: Things
    mirrored: bool = False

    @property
    def held_out(self) -> bool:
        return zlib.crc32(self.caption.encode()) % HELD_OUT_SHARE == 0


def scenes(seed: int, held_out: bool = False) -> Iterator[Scene]:
    """Scenes without end, of the training captions or of the held-out ones; categories take turns."""
    source = random.Random(seed)
    turn = 0
    while True:
        scene = _DRAW[CATEGORIES[turn % len(CATEGORIES)]](source)
        if scene.held_out == held_out:
            yield scene
            turn += 1


def held_out_scenes(n: int) -> list[Scene]:
    """The first n of the fixed test set: held-out captions, none twice."""
    return list(_held_out(1 << max(0, n - 1).bit_length())[:n])


@cache
def _held_out(n: int) -> tuple[Scene, ...]:
    found: dict[str, Scene] = {}
    for scene in scenes(seed=2504_21292, held_out=True):
        found.setdefault(scene.caption, scene)
        if len(found) >= n:
            return tuple(found.values())
    raise AssertionError("scenes() never ends")


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, sorted."""
    phrases = (*COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES), "crosses", *SIZES, *BACKGROUNDS, *PLACES, *LINES)
    words = {word for phrase in phrases for word in phrase.split()}
    return tuple(sorted(words | GLUE))


def _noun(thing: Thing) -> str:
    return f"a {SIZES[thing.size]} {COLOURS[thing.colour]} {SHAPES[thing.shape]} at the {PLACES[thing.place]}"


def _plural(shape: int) -> str:
    return "crosses" if SHAPES[shape] == "cross" else f"{SHAPES[shape]}s"


def _listed(things: Things) -> str:
    return " and ".join(_noun(thing) for thing in things)


def _thing(source: random.Random, place: int) -> Thing:
    return Thing(source.randrange(6), source.randrange(6), source.randrange(2), place)


def _finish(category: str, phrase: str, source: random.Random, things: Things, mirrored: bool = False) -> Scene:
    background = source.randrange(len(BACKGROUNDS))
    return Scene(category, f"{phrase} on a {BACKGROUNDS[background]} background", background, things, mirrored)


def _place(source: random.Random) -> Scene:
    things = (_thing(source, source.randrange(9)),)
    return _finish("place", _listed(things), source, things)


def _mixed(source: random.Random) -> Scene:
    first, second = source.sample(range(9), 2)
    things = (_thing(source, first), _thing(source, second))
    return _finish("mixed", _listed(things), source, things)


def _contrast(category: str, source: random.Random) -> Scene:
    """Two things that differ in one attribute alone (and in place)."""
    one, other = source.sample(range(9), 2)
    first = _thing(source, one)
    choices = range({"colour": 6, "shape": 6, "size": 2}[category])
    unlike: dict[str, Any] = {category: source.choice([i for i in choices if i != getattr(first, category)])}
    things = (first, replace(first, place=other, **unlike))
    return _finish(category, _listed(things), source, things)


def _count(source: random.Random) -> Scene:
    line = source.choice(list(LINES))
    number = source.choice((2, 3))
    places = LINES[line] if number == 3 else (LINES[line][0], LINES[line][2])
    like = _thing(source, 0)
    things = tuple(replace(like, place=place) for place in places)
    words = f"{('two', 'three')[number - 2]} {SIZES[like.size]} {COLOURS[like.colour]} {_plural(like.shape)}"
    return _finish("count", f"{words} in the {line}", source, things)


def _pair(source: random.Random) -> Scene:
    places = sorted(source.sample(range(9), 2))
    like = _thing(source, 0)
    things = tuple(replace(like, place=place, named=False) for place in places)
    words = f"a matching pair of {SIZES[like.size]} {_plural(like.shape)}"
    return _finish("pair", f"{words} at the {PLACES[places[0]]} and the {PLACES[places[1]]}", source, things)


def _mirror(source: random.Random) -> Scene:
    rows = sorted(source.sample(range(3), source.choice((1, 2))))
    left = tuple(_thing(source, 3 * row) for row in rows)
    right = tuple(replace(thing, place=thing.place + 2) for thing in left)
    return _finish("mirror", f"{_listed(left)} mirrored", source, left + right, mirrored=True)


_DRAW = {
    "place": _place,
    "mixed": _mixed,
    "colour": lambda source: _contrast("colour", source),
    "shape": lambda source: _contrast("shape", source),
    "size": lambda source: _contrast("size", source),
    "count": _count,
    "pair": _pair,
    "mirror": _mirror,
}
