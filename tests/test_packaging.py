"""The wheel holds all that the packages need to run, and pyproject.toml names all that they import."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

import pytest
from test_floors import FILES, HOUSE, ROOT, imports

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OPTIONAL = {"natten", "triton", "datasets", "fsspec"}  # what is missing is said; fsspec comes with `datasets`
DISTRIBUTIONS = {"hydra": "hydra-core", "open_clip": "open_clip_torch", "PIL": "pillow"}
DATA = {".yaml", ".html", ".css", ".js", ".json", ".safetensors"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names of the files in a wheel that is built from the checkout, without network or isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def on_disk(package: str) -> set[str]:
    """Code and data of a package, leaving out what the interpreter leaves behind."""
    files = (path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files if path.suffix in DATA | {".py"}}


@pytest.mark.parametrize("package", HOUSE)
def test_the_wheel_holds_every_file_of_the_package(wheel, package):
    assert f"{package}/__init__.py" in wheel
    assert on_disk(package) - wheel == set()


@pytest.mark.parametrize(
    "pattern",
    [
        r"conf/config\.yaml",
        r"conf/variant/\w+\.yaml",
        r"reports/.*\.html",
        r"harness/models/configs/.+\.json",
        r"harness/shapes/.+\.safetensors",
    ],
)
def test_the_wheel_holds_configurations_templates_and_weights(wheel, pattern):
    assert any(re.fullmatch(pattern, name) for name in wheel)


def test_the_wheel_holds_nothing_else(wheel):
    assert {name.split("/")[0] for name in wheel} == {*HOUSE, f"deltabench-{PROJECT['project']['version']}.dist-info"}


def test_whatever_is_imported_is_a_dependency():
    declared = {re.split(r"[<>=\[ ]", line)[0] for line in PROJECT["project"]["dependencies"]}
    foreign = {name.split(".")[0] for path in FILES for name, _ in imports(path)}
    foreign -= {*sys.stdlib_module_names, *HOUSE, *OPTIONAL}
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} - declared == set()


def test_what_is_installed_satisfies_the_bounds():
    from packaging.requirements import Requirement

    for line in PROJECT["project"]["dependencies"]:
        requirement = Requirement(line)
        assert metadata.version(requirement.name) in requirement.specifier
