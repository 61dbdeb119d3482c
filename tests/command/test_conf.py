"""Every file of conf composes and instantiates, and the catalogue is what the folders hold."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate

import conf
from harness.__main__ import GROUPS, catalog, give_way, names, settle
from harness.experiment import Experiment
from harness.job import NEEDS, runs

ROOT = Path(conf.__path__[0])
SWEEPS = sorted(path.stem for path in (ROOT / "sweep").glob("*.yaml"))
CHOICES = [
    (path.parent.name, path.stem)
    for group in ("gate", "tracker", "executor", "train")
    for path in sorted((ROOT / group).glob("*.yaml"))
]


@pytest.fixture
def composed():
    ConfigStore.instance().store(name="catalog", node=catalog([]), package="catalog")
    with initialize_config_module("conf", version_base="1.3"):
        yield lambda *overrides: compose("config", overrides=list(overrides))


@pytest.mark.parametrize("group", GROUPS)
def test_the_catalogue_holds_every_file_under_its_own_name(composed, group):
    held = composed()["catalog"][GROUPS[group]]
    assert sorted(held) == names(group, []) == sorted(path.stem for path in (ROOT / group).glob("*.yaml"))


def test_every_entry_of_the_catalogue_instantiates_without_loading_anything(composed):
    made = instantiate(composed(), _convert_="all")
    assert isinstance(made, Experiment)
    assert all(model.pipeline is None for model in made.catalog.models.values())
    assert all(metric.needs in NEEDS for metric in made.catalog.metrics.values())
    counted = {name for name, metric in made.catalog.metrics.items() if not runs(metric)}
    assert counted == {"flops", "layer_flops", "paper_quality", "projected_memory", "site_costs"}


@pytest.mark.parametrize("name", [name for group in ("model", "metric", "worlds") for name in names(group, [])])
def test_every_entry_bears_the_name_of_its_file(composed, name):
    groups = composed()["catalog"]
    entry = next(groups[place][name] for place in ("models", "metrics", "worlds") if name in groups[place])
    assert entry["name"] == name


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_composes_to_cases(composed, sweep):
    experiment = instantiate(composed(f"+sweep={sweep}", "dry_run=true"), _convert_="all")  # which fetches no weights
    assert experiment.name == sweep
    assert experiment.jobs()


@pytest.mark.parametrize("chosen", [["metrics=[ds,fdd]"], *([f"+sweep={sweep}"] for sweep in SWEEPS)], ids=str)
def test_every_sweep_asks_for_the_images_that_its_metrics_need_and_for_equal_splits_of_ds(composed, chosen):
    experiment = instantiate(composed(*chosen, "dry_run=true"), _convert_="all")
    metrics = [experiment.catalog.metrics[name] for name in experiment.metrics]
    assert {
        metric.name for metric in metrics if experiment.n < getattr(metric, "least", 0) and metric.needs == "weights"
    } == set()
    assert {metric.name for metric in metrics if experiment.n % getattr(metric, "splits", 1)} == set()


@pytest.mark.parametrize("lifted_by", ["cpu_limits=null", "device=cuda"])
def test_the_limits_that_spare_a_laptop_are_lifted_by_a_setting_and_by_another_device(composed, lifted_by, monkeypatch):
    monkeypatch.setattr("harness.experiment._check_device", lambda device, dtype: None)
    chosen = ("+sweep=resolution", "models=[tiny_sd]", "resolutions=[1024]")
    spared, lifted = (instantiate(composed(*chosen, *more), _convert_="all") for more in ([], [lifted_by]))
    assert "latency" not in spared.jobs()[0].case.metrics
    assert list(lifted.jobs()[0].case.metrics) == list(lifted.metrics)


def test_a_sampler_is_of_every_model_and_part_of_what_a_case_is(composed):
    plain, other = (
        instantiate(composed("models=[tiny_sd]", *more), _convert_="all").jobs()[0] for more in ([], ["sampler=ddim"])
    )
    assert (plain.model.sampler, other.model.sampler) == ("dpm++", "ddim")
    assert (plain.case.sampler, other.case.sampler) == ("", "ddim")
    assert plain.case.config != other.case.config
    assert plain.identities != other.identities
    with pytest.raises(InstantiationException, match="sampler 'dmp' is not known: choose from own"):
        instantiate(composed("sampler=dmp"), _convert_="all")


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_instantiates(composed, group, name):
    instantiate(composed(f"{group}={name}")[group], _convert_="all")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_begins_by_saying_what_it_is_for(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# ")


def settings_by_row(experiment, profiled=False):
    """What makes the mixers of every variant and model, or those that have a profile, presets laid over."""
    models, variants = experiment.catalog.models, experiment.catalog.variants
    asked = {"variants": list(variants), "recipes": [], "metrics": ["flops"], "resolutions": [512]}
    everything = replace(experiment, models=experiment.models if profiled else list(models), **asked)
    return {(job.case.model, job.case.variant): job.factory.keywords for job in everything.jobs()}


def test_a_setting_of_a_variant_on_the_command_line_beats_the_presets_of_models(composed):
    chosen = ["+sweep=smoke", "catalog.variants.deltaconv.kernel_size=3"]
    config = composed(*chosen)
    give_way(config, chosen)
    made = settings_by_row(instantiate(config, _convert_="all"))
    assert made["tiny_sd", "deltaconv"]["kernel_size"] == 3
    assert made["sd15", "deltaconv"]["kernel_size"] == 3
    assert made["tiny_sd", "neighborhood"]["kernel_size"] == 5  # another variant's preset stays
    assert made["sd15", "deltaconv"]["gate"] == "scaled"


def test_a_sweeps_own_variant_beats_the_presets_that_it_has_from_the_one_it_is_named_after(composed):
    config = composed("+sweep=kernels")
    settle(config, [], "kernels")
    made = settings_by_row(instantiate(config, _convert_="all"), profiled=True)
    assert [made["tiny_sd", f"deltaconv-k{size}"]["kernel_size"] for size in (7, 13)] == [7, 13]
    assert made["tiny_sd", "deltaconv"]["kernel_size"] == 5
    assert len(set(made["tiny_pixart", "deltaconv-erf"]["kernel_size"].values())) > 1


def test_a_hybrid_is_made_of_the_rows_that_it_stands_beside_on_every_model(composed):
    experiment = instantiate(composed(), _convert_="all")
    made = settings_by_row(experiment)
    for model in experiment.catalog.models:
        choices = made[model, "hybrid"]["choices"]
        assert {"self_attention", "deltaconv"} <= choices.keys()
        for name, choice in choices.items():
            assert choice.func == experiment.catalog.variants[name].func
            assert choice.keywords == made[model, name]


def test_a_setting_of_a_hybrids_choice_on_the_command_line_beats_the_presets_and_leaves_the_others(composed):
    chosen = ["catalog.variants.hybrid.choices.deltaconv.kernel_size=3"]
    config = composed(*chosen)
    give_way(config, chosen)
    made = settings_by_row(instantiate(config, _convert_="all"))
    choice = made["pixart", "hybrid"]["choices"]["deltaconv"].keywords
    assert (choice["kernel_size"], choice["gate"]) == (3, "sigmoid")
    assert made["pixart", "deltaconv"]["kernel_size"] == 13
    assert "down_blocks.1|up_blocks.1" in made["sdxl", "hybrid"]["sites"]


def test_costs_are_told_apart_by_the_settings_of_a_variant(composed):
    def case(*overrides):
        chosen = ["+sweep=cost", "models=[sd15]", "variants=[neighborhood]", "resolutions=[512]", *overrides]
        return instantiate(composed(*chosen), _convert_="all").jobs()[0].case

    assert case().key == case().key
    assert case().key != case("catalog.variants.neighborhood.kernel_size=7").key
