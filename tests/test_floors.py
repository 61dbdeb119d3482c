"""Imports go down the floors of the house, nothing goes in a circle, and what is heavy waits until it is needed."""

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ("harness", "conf", "baselines", "deltaconv", "reports")
FILES = sorted(path for package in HOUSE for path in (ROOT / package).rglob("*.py"))
HEAVY = {"mlflow", "diffusers", "plotly", "timm", "open_clip", "transformers", "pandas", "natten"}
ENTRANCES = {"hydra", "omegaconf"}
MODELS = {"torch", "diffusers", "torchvision", "safetensors"}
"""What the ground and the cellar do without."""
ROOF = ("harness.__main__", "conf")


def name_of(path: Path) -> str:
    """`harness.seats.mixer`; a package is named by its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether that happens when the file itself is imported."""
    package = [*path.relative_to(ROOT).parent.parts]

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*package[: len(package) - node.level + 1], node.module or ""] if node.level else [node.module]
            )
            yield from ((f"{base.rstrip('.')}.{alias.name}", at_once) for alias in node.names)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            at_once = False
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_once = False
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_once)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


def breaches(path: Path) -> Iterator[str]:
    """What a file imports against the rules, as sentences."""
    floor = path.relative_to(ROOT).parts[0]
    own = name_of(path)
    on_ground = own.startswith("harness.records")
    for name, at_once in imports(path):
        top = name.split(".")[0]
        if floor == "reports" and top in HOUSE and not name.startswith(("reports", "harness.records")):
            yield f"reports stand in the cellar, and know harness.records alone of the house, not {name}"
        if on_ground and top in HOUSE and not name.startswith("harness.records"):
            yield f"harness.records is the ground and knows nothing above it, not {name}"
        if (floor == "reports" or on_ground) and top in MODELS and at_once:
            yield f"{own} is read without {top}"
        if floor == "harness" and top in {"conf", "baselines", "deltaconv"} and (own, top) != ROOF:
            yield f"harness knows {top} by the strings of conf alone"
        if (
            floor in ("baselines", "deltaconv")
            and top in HOUSE
            and top != floor
            and not f"{name}.".startswith(("harness.seats.mixer.", "harness.seats.door.", "harness.locality.door."))
        ):
            yield f"{floor} knows harness.seats.mixer and the two doors alone of the house, not {name}"
        if top in ENTRANCES and path.name != "__main__.py":
            yield f"{top} stays in __main__ files"
        if top in HEAVY and at_once:
            yield f"{top} is imported in the function that needs it"


def circle(paths: Iterable[Path], by_folder: bool) -> list[str]:
    """Files, or folders of the house, that import one another in a circle; the first such circle."""
    known = {name_of(path): path for path in paths}
    graph: dict[str, set[str]] = {}
    for own, path in known.items():
        found = (name if name in known else name.rpartition(".")[0] for name, _ in imports(path))
        for other in (name for name in found if name in known):
            mine, theirs = (_folder(own, known), _folder(other, known)) if by_folder else (own, other)
            if mine != theirs:
                graph.setdefault(mine, set()).add(theirs)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _folder(name: str, known: dict[str, Path]) -> str:
    """The folder that a file stands in; a file at the top of harness stands by itself."""
    parts = name.split(".")
    if parts[0] == "harness":
        return name if len(parts) == 2 and known[name].name != "__init__.py" else ".".join(parts[:2])
    return parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_and_heavy_ones_wait(path):
    assert sorted(set(breaches(path))) == []


@pytest.mark.parametrize("by_folder", [False, True], ids=["files", "folders"])
def test_nothing_imports_in_a_circle(by_folder):
    assert circle(FILES, by_folder) == []


@pytest.mark.parametrize("by_folder", [False, True], ids=["files", "folders"])
def test_a_planted_circle_is_found(tmp_path, monkeypatch, by_folder):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    for file, source in (
        ("harness/a/x.py", "def f():\n    from harness.b import y"),
        ("harness/b/y.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.a.x import f"),
    ):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(source)
    assert len(circle(tmp_path.rglob("*.py"), by_folder)) == 3


@pytest.mark.parametrize(
    ("file", "source", "count"),
    [
        ("reports/x.py", "import torch", 1),
        ("reports/x.py", "from harness.records.units import human\nfrom harness.seats import mixer", 1),
        ("harness/x.py", "from baselines.linfusion import LinFusionAttention", 1),
        ("deltaconv/x.py", "from harness.seats.mixer import Site\nfrom .block import DeltaConvBlock\nimport torch", 0),
        ("deltaconv/x.py", "from harness.seats import mixer\nfrom harness.run import run\nimport baselines", 2),
        ("harness/records/x.py", "from harness.records.case import Case\nfrom harness import run\nimport torch", 2),
        ("harness/x.py", "import hydra", 1),
        ("harness/__main__.py", "import hydra, conf", 0),
        ("harness/__main__.py", "import baselines", 1),
        ("harness/x.py", "class A:\n    import mlflow", 1),
        ("harness/x.py", "if TYPE_CHECKING:\n    import mlflow\ndef f():\n    import pandas", 0),
        ("harness/seats/x.py", "from ..store import Store\nfrom ...conf import x", 1),
    ],
)
def test_the_rules_catch_what_is_planted(tmp_path, monkeypatch, file, source, count):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert len(set(breaches(path))) == count


def test_every_package_of_the_house_was_looked_at():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(HOUSE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_a_reader_can_hold(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
