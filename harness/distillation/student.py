"""A student: the trained weights of one variant on one model, where they lie, and whether they are there.

A student is named by a hash of all that made it: the recipe, the model's weights, the variant with its settings, what
it was taught on. It is looked for in the cache and among the shipped ones; published weights stand for one as well.
Shipped ones were trained for longer than the default recipe trains, and stand in for that one's students.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.records.files import write_whole
from harness.records.machine import describe
from harness.records.spelled import ONLY_SPEED, spelled
from harness.seats import checkpoint
from harness.seats.checkpoint import Checkpoint
from harness.seats.mixer import TokenMixer
from harness.seats.sources import header_of

SHIPPED = Path(__file__).resolve().parents[1] / "shapes" / "weights" / "students"


def cache_folder() -> Path:
    """Where students that were trained on demand are kept: $DELTABENCH_CACHE, or the user's cache folder."""
    named = os.environ.get("DELTABENCH_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deltabench"


def cached_by(key: str) -> Path | None:
    """The cached student of a key, or None."""
    return next((cache_folder() / "students").glob(f"*-{key}.safetensors"), None)


@dataclass(frozen=True)
class Student:
    """Weights of a variant on a model. `exact`: the variant needs none, it is the teacher itself.

    Without ingredients it is a student that nobody has trained. published: a file, a folder or a hub id that holds it.
    """

    model: str
    variant: str
    ingredients: str = ""
    exact: bool = False
    published: str | None = None

    @property
    def key(self) -> str:
        """Twelve hex digits over everything that made it."""
        return hashlib.sha256(self.ingredients.encode()).hexdigest()[:12]

    @property
    def shipped(self) -> Path:
        return SHIPPED / f"{self.model}-{self.variant}.safetensors"

    @property
    def cached(self) -> Path:
        return cache_folder() / "students" / f"{self.model}-{self.variant}-{self.key}.safetensors"

    @property
    def curve(self) -> Path:
        return self.cached.with_suffix(".json")

    @property
    def path(self) -> Path | None:
        """The file that holds it, or None."""
        if self.published is not None:
            return checkpoint.find(self.published)
        return next((file for file in (self.cached, self.shipped) if header_of(file).get("key") == self.key), None)

    def stand_in(self) -> "Student":
        """The shipped student that is taken for this one of the default recipe; itself where there is none."""
        if _stands_for(self.shipped) != self.key:
            return self
        return replace(self, ingredients=header_of(self.shipped).get("ingredients", self.ingredients))

    @property
    def available(self) -> bool:
        return not self.exact and self.path is not None

    def learning_curve(self) -> dict[str, Any] | None:
        """How it learnt, as `Curve.keep` wrote it; None where nothing was kept that can be read."""
        if self.path != self.cached:
            return None
        try:
            kept: dict[str, Any] = json.loads(self.curve.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return kept

    def checkpoint(self) -> Checkpoint:
        path = self.path
        if path is None:
            raise FileNotFoundError(f"the student {self.variant} of {self.model} has not been trained yet")
        return checkpoint.read(self.published or path)

    def save(self, mixers: Mapping[str, TokenMixer], path: Path, facts: Mapping[str, str]) -> None:
        """Write what the mixers learnt as fp16 safetensors with the key and the recipe in the header."""
        from safetensors.torch import save

        tensors = {
            f"{site}.{name}": value.detach().half().contiguous().cpu()
            for site, mixer in mixers.items()
            if not mixer.exact
            for name, value in mixer.state_dict().items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".md").write_text(self.card(facts), encoding="utf-8")
        write_whole(path, save(tensors, {"key": self.key, "ingredients": self.ingredients, **facts}))

    def card(self, facts: Mapping[str, str]) -> str:
        """What it is and what made it, as a model card: words for people, the ingredients for programs."""
        made_of = json.dumps(json.loads(self.ingredients or "{}"), indent=1)
        told = {"key": self.key, "commit": str(describe()["commit"]), **facts}
        lines = "\n".join(f"- {name}: {value}" for name, value in told.items())
        return (
            f"# {self.variant} of {self.model}\n\nA student: it stands in for the self-attention of {self.model}, its "
            f"teacher, of which nothing else was changed.\n\n{lines}\n\n## What made it\n\n```json\n{made_of}\n```\n"
        )


def ingredients(recipe: object, fingerprint: str, factory: partial[TokenMixer], data: str) -> str:
    """Everything that makes a student what it is, as sorted JSON: what only changes speed is left out.

    fingerprint: of the model's weights. data: what it is taught on.
    """
    made_of = {"recipe": spelled(recipe, ONLY_SPEED), "model": fingerprint, "data": data}
    return json.dumps(made_of | spelled(factory, ONLY_SPEED), sort_keys=True)


def _stands_for(shipped: Path) -> str | None:
    """The key of the default recipe's student in whose place a shipped file is taken; None where none is."""
    listed = shipped.with_name("students.json")
    found = json.loads(listed.read_text(encoding="utf-8")).get(shipped.stem) if listed.is_file() else None
    return None if found is None else str(found["stands_for"])
