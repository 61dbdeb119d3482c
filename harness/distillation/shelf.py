"""`python -m harness students`: the trained students that are here, shipped and cached, with what is known of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.distillation.student import SHIPPED, cache_folder
from harness.records.case import BadInput
from harness.records.units import human
from harness.seats.sources import header_of

WAYS = "python -m harness students lists them, students remove KEY ... (or all) deletes cached ones"


@dataclass(frozen=True)
class Shelved:
    """One student's file. facts: what its header, or the list of shipped ones, says of its training and figures."""

    path: Path
    key: str
    shipped: bool
    facts: dict[str, Any]

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
    if not words:
        for each in kept():
            print(each.line)
        return 0
    verb, *keys = words
    if verb != "remove" or not keys:
        raise BadInput(f"students {' '.join(words)} is not understood: {WAYS}")
    here = {each.key: each for each in kept() if not each.shipped}
    unknown = [key for key in keys if key not in here and key != "all"]
    if unknown:
        raise BadInput(f"no cached student has the key {unknown[0]}: {WAYS}")
    for key in here if "all" in keys else keys:
        _remove(here[key].path)
    return 0


def _remove(path: Path) -> None:
    try:
        for each in (path, *(path.with_suffix(suffix) for suffix in (".md", ".json", ".lock"))):
            each.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path} cannot be removed ({error.strerror}): make {path.parent} writable") from error
    print(f"removed {path}")
