"""Imports go down the floors of the house, and what is heavy waits until it is needed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("harness", "conf", "baselines", "deltaconv", "reports")
FILES = sorted(path for package in HOUSE for path in (ROOT / package).rglob("*.py"))
DATA = {f"harness.{name}" for name in ("case", "record", "mixer", "machine")}
HEAVY = {"mlflow", "diffusers", "plotly", "timm", "open_clip", "transformers", "pandas", "natten"}
ENTRANCES = {"hydra", "omegaconf"}
ROOF = ("harness.__main__", "conf")


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
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for name, at_once in imports(path):
        top = name.split(".")[0]
        if floor == "reports" and top in {
            "torch",
            "diffusers",
            "harness",
            "conf",
            "baselines",
            "deltaconv",
            *ENTRANCES,
        }:
            yield f"reports stand in the cellar, without {top}"
        if floor == "harness" and top in {"conf", "baselines", "deltaconv"} and (own, top) != ROOF:
            yield f"harness knows {top} by the strings of conf alone"
        if (
            floor in ("baselines", "deltaconv")
            and top in HOUSE
            and top != floor
            and not f"{name}.".startswith(("harness.mixer.", "harness.door."))
        ):
            yield f"{floor} knows harness.mixer and harness.door alone of the house, not {name}"
        if own in DATA and top in HOUSE and ".".join(name.split(".")[:2]) not in DATA:
            yield f"{own} is data and imports no {name}"
        if top in ENTRANCES and path.name != "__main__.py":
            yield f"{top} stays in __main__ files"
        if top in HEAVY and at_once:
            yield f"{top} is imported in the function that needs it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_and_heavy_ones_wait(path):
    assert sorted(set(breaches(path))) == []


@pytest.mark.parametrize(
    ("file", "source", "count"),
    [
        ("reports/x.py", "def f():\n    import torch", 1),
        ("harness/x.py", "from baselines.linfusion import LinFusionAttention", 1),
        ("deltaconv/x.py", "from harness.mixer import Site\nfrom .block import DeltaConvBlock\nimport torch", 0),
        ("deltaconv/x.py", "from harness import mixer\nfrom harness.case import Case\nimport baselines", 2),
        ("harness/record.py", "from harness.case import Case\nfrom harness import store", 1),
        ("harness/x.py", "import hydra", 1),
        ("harness/__main__.py", "import hydra, conf", 0),
        ("harness/__main__.py", "import baselines", 1),
        ("harness/x.py", "class A:\n    import mlflow", 1),
        ("harness/x.py", "if TYPE_CHECKING:\n    import mlflow\ndef f():\n    import pandas", 0),
        ("harness/metrics/x.py", "from ..store import Store\nfrom ...conf import x", 1),
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
