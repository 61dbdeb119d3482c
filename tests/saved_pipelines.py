"""Fixtures of the tests of models: the tiny pipelines on disk, and loaded. A plugin of the modules that name it."""

import shutil
from pathlib import Path

import pytest
import tiny_pipelines
from tiny_pipelines import KINDS
from transformers.utils import logging as transformers_logging

from harness.models.model import Model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One saved pipeline of each kind."""
    transformers_logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: tiny_pipelines.save(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> dict[str, Model]:
    return {kind: KINDS[kind](kind, str(folders[kind])).load() for kind in KINDS}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A pipeline that a test may break."""
    return Path(shutil.copytree(folders["sd"], tmp_path / "broken"))
