"""`python -m harness students`: the trained students that are here, shipped and cached, with what is known of them."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.distillation.student import SHIPPED, cache_folder
from harness.records.case import BadInput
from harness.records.files import is_locked
from harness.records.units import human
from harness.seats.sources import header_of

WAYS = (
    "python -m harness students lists them, students remove KEY ... (or all) deletes cached ones, students remove "
    "unfinished and students remove encoded what trainings left behind"
)
LEFT = {"unfinished": "trainings that were stopped", "encoded": "images and captions"}
"""Folder of the cache -> what trainings leave in it, each in a folder of its own."""


@dataclass(frozen=True)
class Shelved:
    """One student's file. facts: what its header, or the list of shipped ones, says of its training and figures."""

    path: Path
    key: str
    shipped: bool
    facts: dict[str, Any]

    @property
    def keys(self) -> tuple[str, str]:
        """Its own, and that of the student for which a shipped one stands."""
        return self.key, self.facts.get("stands for", "").partition(" ")[0]

    @property
    def line(self) -> str:
        """Key, name, where it is from, size, date and figures."""
        status = self.path.stat()
        day = datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%d")
        name = self.path.stem if self.shipped else self.path.stem.removesuffix(f"-{self.key}")
        said = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        where = "shipped" if self.shipped else "cached"
        return f"{self.key}  {name:<28}  {where:<7}  {human(status.st_size, 'byte'):>8}  {day}  {said}"


def kept() -> Iterator[Shelved]:
    """Every student that is here; a file that is none is passed over."""
    listed = json.loads((SHIPPED / "students.json").read_text(encoding="utf-8"))
    for name, facts in sorted(listed.items()):
        path = SHIPPED / f"{name}.safetensors"
        if path.is_file():
            told = {"made by": facts.pop("settings"), "stands for": f"{facts.pop('stands_for')} (the default recipe's)"}
            yield Shelved(path, facts.pop("key"), True, told | facts)
    for path in sorted((cache_folder() / "students").glob("*.safetensors")):
        header = header_of(path)
        if "key" in header:
            facts = {name: value for name, value in header.items() if name not in ("key", "ingredients")}
            yield Shelved(path, header["key"], False, facts)


def students(words: Sequence[str]) -> int:
    """List, or `remove KEY ...`; BadInput for another word or a key that is not there."""
    verb, *keys = words or ["list"]
    if verb in ("list", "--help") and not keys:
        print(*(each.line for each in kept()), *map(_told, filter(_left, LEFT)), sep="\n")
        if verb == "--help":
            print(WAYS)
        return 0
    if verb != "remove" or not keys:
        raise BadInput(f"students {' '.join(words)} is not understood: {WAYS}")
    _remove_named(keys)
    return 0


def _remove_named(keys: Sequence[str]) -> None:
    """Remove students by their keys, and what trainings left; BadInput for another word, before any is removed."""
    shipped = {key: each.path.stem for each in kept() if each.shipped for key in each.keys}
    here = {each.key: each.path for each in kept() if not each.shipped}
    for key in keys:
        if key in {*here, *LEFT, "all"}:
            continue
        if key in shipped:
            raise BadInput(f"{key} is {shipped[key]}, which is shipped and stays: {WAYS}")
        raise BadInput(f"no cached student has the key {key}: {WAYS}")
    chosen = [path for key, path in here.items() if key in keys or "all" in keys]
    found = [folder for place in LEFT if place in keys for folder in _left(place)]
    if not chosen and not found:
        print(f"nothing of that is in {cache_folder()}: nothing was removed")
    for path in chosen:
        _remove(path, *(path.with_suffix(suffix) for suffix in (".md", ".json", ".lock")))
    running = [path.stem for path in (cache_folder() / "students").glob("*.lock") if found and is_locked(path)]
    for folder in found:
        if any(_uses(student, folder) for student in running):
            print(f"{folder} stays: a training uses it")
        else:
            _remove(folder)


def _left(place: str) -> list[Path]:
    return sorted(path for path in (cache_folder() / place).glob("*") if path.is_dir())


def _told(place: str) -> str:
    """How much there is in such a folder of the cache."""
    bytes_ = 0
    for file in (cache_folder() / place).rglob("*"):
        with suppress(FileNotFoundError):  # a training that runs puts a new one in its place
            bytes_ += file.stat().st_size if file.is_file() else 0
    count = f"{len(_left(place))} x {LEFT[place]}"
    return f"{place:<12}  {count:<28}  {'cached':<7}  {human(bytes_, 'byte'):>8}  {cache_folder() / place}"


def _uses(student: str, folder: Path) -> bool:
    """Whether a training of MODEL-VARIANT-KEY may use a folder that is named KEY, or MODEL-DIGEST where encoded."""
    if folder.parent.name == "unfinished":
        return student.endswith(f"-{folder.name}")
    return student.startswith(folder.name.rpartition("-")[0])


def _remove(*paths: Path) -> None:
    try:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{paths[0]} cannot be removed ({error.strerror}): make {paths[0].parent} writable") from error
    print(f"removed {paths[0]}")
