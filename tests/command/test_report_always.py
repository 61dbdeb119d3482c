"""The report is rendered from what exists: also when a run is interrupted, or asks for less than its folder holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest
import tiny_pipelines

from baselines import SelfAttention
from harness.console import Console
from harness.experiment import Catalog, Experiment
from harness.records.record import Reading
from harness.run import run

pytestmark = pytest.mark.usefixtures("cache")


@dataclass(frozen=True)
class Counts:
    """A price; at 64 pixels something ends the run."""

    ends: type[BaseException] | None = None
    needs: str = "shapes"

    def __call__(self, trial) -> Iterator[Reading]:
        if self.ends and trial.case.resolution.width == 64:
            raise self.ends("told in one sentence")
        yield Reading("counts", "counts", trial.case.resolution.width, "FLOP", "lower", "counts/v1")


@pytest.fixture
def made(tmp_path):
    """An experiment that counts at two sizes."""
    models = {"tiny": tiny_pipelines.model("sd", tmp_path / "sd")}

    def make(ends=None, **settings):
        variants = {"self_attention": partial(SelfAttention.for_site)}
        catalog = Catalog(models, variants, {"counts": Counts(ends)}, {"none": object()})
        chosen = {"models": ["tiny"], "variants": ["self_attention"], "resolutions": [32, 64], "world": "none"}
        return Experiment(catalog, **(chosen | {"metrics": ["counts"], "out": tmp_path / "out"} | settings))

    return make


def test_after_an_interruption_the_page_shows_what_was_taken(made, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(made(KeyboardInterrupt), Console())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 ok" in page
    assert "told in one sentence" not in page


def test_an_interruption_before_anything_was_taken_leaves_no_page(made, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(made(KeyboardInterrupt, resolutions=[64]), Console())
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_run_in_the_folder_of_another_says_so(made, tmp_path, capsys):
    run(made(), Console())
    run(made(resolutions=[96]), Console())
    assert "'out' holds 2 more records of earlier runs: the report shows them last" in capsys.readouterr().err
    assert "asked for 1 of these 3 records (tiny)" in (tmp_path / "out" / "report.html").read_text()
