"""A case that does not fit: an allocation that really fails is a record, larger sizes are spared, the sweep goes on."""

import io
import json
from functools import partial
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from torch import Tensor

from baselines import SelfAttention
from harness.console import Console
from harness.counted.projected_memory import ProjectedMemory
from harness.experiment import Catalog, Experiment
from harness.measured import peak_memory
from harness.measured.peak_memory import PeakMemory
from harness.records.store import Store
from harness.run import run
from harness.seats.mixer import Grid

pytestmark = pytest.mark.skipif(not peak_memory.CLEAR.exists(), reason="the kernel keeps no mark that can be set back")
EXBIBYTE = 2**60


class Insatiable(SelfAttention):
    """Wants an exbibyte from 256 tokens on."""

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        if tokens_BNC.shape[1] >= 256 and not tokens_BNC.is_meta:
            torch.empty(EXBIBYTE, dtype=torch.uint8)
        return super().forward(tokens_BNC, grid)


class World:
    name = "noise"


def test_a_failing_allocation_is_a_record_and_the_next_variant_is_measured(tmp_path: Path) -> None:
    model = tiny_pipelines.model("sd", tmp_path / "sd")
    variants = {"insatiable": partial(Insatiable.for_site), "self_attention": partial(SelfAttention.for_site)}
    metrics = {"projected_memory": ProjectedMemory(), "peak_memory": PeakMemory(seconds=0.0)}
    experiment = Experiment(
        Catalog({"tiny": model}, variants, metrics, {"noise": World()}),  # type: ignore[arg-type, dict-item]
        models=["tiny"],
        variants=list(variants),
        resolutions=[32, 64, 96],
        metrics=list(metrics),
        world="noise",
        out=tmp_path / "out",
    )
    out = io.StringIO()
    assert run(experiment, Console(out, io.StringIO())) == 0

    records = {(r.case.variant, str(r.case.resolution)): r for r in Store(tmp_path / "out").records()}
    assert records["insatiable", "32"].status == "ok"
    full, spared = records["insatiable", "64"], records["insatiable", "96"]
    assert full.status == spared.status == "out_of_memory"
    assert f"tried to allocate {EXBIBYTE} bytes" in full.reason
    assert spared.reason == "not tried: 64 was too large for memory already"
    assert full.reading("projected_memory") is not None
    for size in ("32", "64", "96"):
        reading = records["self_attention", size].reading("peak_memory")
        assert reading is not None
        assert reading.value is not None
    assert json.loads(out.getvalue().splitlines()[-1])["statuses"] == {"ok": 4, "out_of_memory": 2}
