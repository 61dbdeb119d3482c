"""What tests share: no network, the marks with their reasons, a cache and a model of their own, example records."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if "PYTEST_XDIST_WORKER" in os.environ:  # one process for each core: more threads would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from harness.records.case import Case, Resolution
from harness.records.record import Reading, Record

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the tests that take minutes")
    parser.addoption("--hub", action="store_true", help="also the tests that need the network and the model hub")


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Skip what this machine or this command line cannot run, each with its reason."""
    skips = {
        "slow": None if config.getoption("--slow") else "takes minutes: pytest --slow",
        "hub": None if config.getoption("--hub") else "needs the model hub: pytest --hub",
        "browser": None if any(map(shutil.which, BROWSERS)) else f"needs one of {', '.join(BROWSERS)}",
    }
    if any(item.get_closest_marker("gpu") for item in items):
        skips["gpu"] = None if _has_gpu() else "needs a CUDA device"
    for item in items:
        for mark, reason in skips.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of students, and no shipped ones: neither the user's nor the package's own are looked into."""
    from harness.distillation import student

    monkeypatch.setenv("DELTABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(student, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def sd15() -> Any:
    """Stable Diffusion 1.5 without memory: on the meta device."""
    from harness.models.unet import UNetModel

    return UNetModel("sd15", config="sd15").load("meta", "fp32")


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow, which takes seconds to lay out."""
    from harness.tracking.database import make_database

    path = tmp_path_factory.mktemp("laid_out") / "mlflow.db"
    make_database(path)
    return path


@pytest.fixture
def store_folder(tmp_path: Path, laid_out: Path) -> Path:
    """The folder of a store, with such a database beside it."""
    folder = tmp_path / "outputs" / "resolution"
    folder.mkdir(parents=True)
    shutil.copy(laid_out, folder.parent / "mlflow.db")
    return folder


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """A case of the embedded world; keyword arguments change its fields."""

    def make(**changes: object) -> Case:
        fields: dict = {
            "model": "tiny_sd",
            "variant": "self_attention",
            "resolution": Resolution(64, 64),
            "metrics": ("flops", "latency", "clip_score"),
            "world": "shapes",
            "n": 4,
            "steps": 10,
            "guidance": 3.0,
            "seeds": (0,),
            "batch": 4,
            "dtype": "fp32",
            "device": "cpu",
            "weights": "0123456789ab",
        }
        return Case(**(fields | changes))

    return make


@pytest.fixture
def make_record(make_case: Callable[..., Case]) -> Callable[..., Record]:
    """A record of such a case with one reading of each kind; `readings`, `status` and `reason` may be given."""

    def make(
        readings: tuple[Reading, ...] | None = None, status: str = "ok", reason: str = "", **changes: object
    ) -> Record:
        taken = example_readings() if readings is None else readings
        return Record(
            make_case(**changes),
            status,  # type: ignore[arg-type]
            reason,
            readings=taken,
            machine={"cpu": "made up", "threads": 2, "gpu": None},
            started="2026-01-02T03:04:05+00:00",
            elapsed_s=1.5,
            identities=dict.fromkeys(("flops", "latency", "clip_score"), "asked"),
        )

    return make


def example_readings(flops: int = 1_000_000, latency_ms: float = 10.0, clip: float = 27.0) -> tuple[Reading, ...]:
    """An exact price, a timing with its interval, and a score with one sample an image."""
    return (
        Reading("flops", "flops", flops, "FLOP", "lower", "flops/analytic-v1"),
        Reading(
            "latency",
            "latency",
            latency_ms,
            "ms",
            "lower",
            "latency/v1",
            n=5,
            low=latency_ms * 0.98,
            high=latency_ms * 1.02,
        ),
        Reading(
            "clip_score",
            "clip_score",
            clip,
            "1",
            "higher",
            "clip/v1",
            n=4,
            low=clip - 1,
            high=clip + 1,
            samples=(clip - 1, clip - 0.5, clip + 0.5, clip + 1),
        ),
    )
