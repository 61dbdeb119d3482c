"""Every setting is checked by its declared type before anything else, and what the user says is what runs."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_conf import CHOICES, SWEEPS
from test_identity import experiment

from harness.__main__ import catalog, main, plain, settle
from harness.experiment import Experiment
from harness.records.case import BadInput
from harness.settings import check


@pytest.fixture(scope="module")
def composed() -> Any:
    def make(*overrides: str) -> Any:
        ConfigStore.instance().store(name="catalog", node=catalog([]), package="catalog")
        with initialize_config_module("conf", version_base="1.3"):
            return compose("config", overrides=plain(overrides))

    return make


@pytest.fixture(scope="module")
def whole(composed: Any) -> Any:
    return composed("gate=baseline", "tracker=none")


WRONG = [
    ("untrained=no", "untrained=no is not possible: give true or false"),
    ("seeds=abc", "seeds=abc is not possible: give a list of whole numbers"),
    ("dry_run=no", "dry_run=no is not possible: give true or false"),
    ("again=1", "again=1 is not possible: give true or false"),
    ("gate.update=no", "gate.update=no is not possible: give true or false"),
    ("gate.margin=nan", "gate.margin=nan is not possible: give a number"),
    ("out=null", "out=null is not possible: give text, or a path"),
    ("out=5", "out=5 is not possible: give text, or a path"),
    ("out=[]", "out=[] is not possible: give text, or a path"),
    ("cpu_limits=5", "cpu_limits=5 is not possible: give a map from names to a map from names to a whole number"),
    ("cpu_limits={tiny_sd:{flops:abc}}", "cpu_limits.tiny_sd.flops=abc is not possible: give a whole number"),
    ("guidance=nan", "guidance=nan is not possible: give a number"),
    ("guidance=''", "guidance= is not possible: give a number"),
    ("n=1.5", "n=1.5 is not possible: give a whole number"),
    ("seeds=0", "seeds=0 is not a list: write seeds=[0]"),
    ("catalog.variants.deltaconv=null", "catalog.variants.deltaconv=null is not possible: give one of the group"),
    ("catalog.variants.deltaconv.kernel_size=abc", "catalog.variants.deltaconv.kernel_size=abc is not possible: give"),
    ("catalog.variants.deltaconv.kernal_size=3", "catalog.variants.deltaconv.kernal_size is no setting of DeltaConv"),
    (
        "catalog.models.sd51.source=/x",
        "catalog.models.sd51 is not known: choose from pixart, pixart_512, pixart_alpha, sd15",
    ),
    ("catalog.models.tiny_sd.source=5", "catalog.models.tiny_sd.source=5 is not possible: give text, or null"),
    (
        "catalog.models.tiny_sd._target_=harness.none",
        "catalog.models.tiny_sd wants 'harness.none', which cannot be had",
    ),
    ("catalog.metrics.latency.seconds=long", "catalog.metrics.latency.seconds=long is not possible: give a number"),
    ("catalog.metrics.fdd.margin.share=wide", "catalog.metrics.fdd.margin.share=wide is not possible: give a number"),
    ("catalog.metrics.fdd.margin=0.1", "catalog.metrics.fdd.margin=0.1 is not possible: give"),
    ("train.stages.0.schedule.steps=abc", "train.stages[].schedule.steps=abc is not possible: give a whole number"),
    ("varients=[deltaconv]", "varients is no setting of Experiment: it has again, batch"),
]


@pytest.mark.parametrize(("given", "sentence"), WRONG, ids=[given for given, _ in WRONG])
def test_a_setting_of_another_type_is_refused_in_a_sentence(whole: Any, given: str, sentence: str) -> None:
    name = given.partition("=")[0]
    config = OmegaConf.create(OmegaConf.to_container(whole))
    value = OverridesParser.create().parse_override(given).value()
    OmegaConf.update(config, name, value, merge=False, force_add=True)
    with pytest.raises(BadInput) as refused:
        check(OmegaConf.to_container(config, resolve=True))
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("given", [f"+sweep={sweep}" for sweep in SWEEPS] + ["=".join(choice) for choice in CHOICES])
def test_everything_that_is_shipped_passes_the_check(composed: Any, given: str) -> None:
    config = composed(given)
    group = given.partition("=")[0]
    check(OmegaConf.to_container(config.train if group == "train" else config, resolve=True))


def test_settings_that_need_not_be_there_before_are_given_with_or_without_a_plus(whole: Any) -> None:
    given = ["train.on_demand=false", "+train.seed=9", "n=1", "+sweep=smoke", "gate=none", "hydra.verbose=true", "-m"]
    laid = ["++train.on_demand=false", "++train.seed=9", "++n=1", *given[3:]]
    assert plain(given) == laid


@pytest.mark.parametrize("given", ["gate=null", "tracker=5", "tracker=[]", "executor=", "train=tiny", "model=sd15"])
def test_a_choice_that_there_is_not_is_refused_with_those_that_there_are(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["harness", given])
    assert main() == 2
    said = capsys.readouterr().err
    assert said.startswith(given)
    assert "write models=[sd15]" in said if given.startswith("model") else "choose from" in said


def test_the_defaults_of_code_and_configuration_are_the_same(whole: Any) -> None:
    made = {each.name: each.default for each in Experiment.__dataclass_fields__.values()}
    for name in (
        "n",
        "steps",
        "guidance",
        "sampler",
        "seeds",
        "batch",
        "dtype",
        "device",
        "untrained",
        "again",
        "world",
    ):
        value = whole[name]
        assert (tuple(value) if name == "seeds" else value) == made[name], name


def test_what_a_sweep_or_a_file_of_the_user_sets_of_a_variant_beats_the_presets_of_models(
    composed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("catalog: {variants: {neighborhood: {kernel_size: 7}}}")
    (tmp_path / "variant").mkdir()
    (tmp_path / "variant" / "deltaconv.yaml").write_text("_target_: deltaconv.DeltaConvBlock.for_site\nkernel_size: 3")
    monkeypatch.setattr("sys.argv", ["harness", "--config-dir", str(tmp_path)])
    config = composed()
    settle(config, [], "mine")
    presets = config.catalog.models.tiny_sd.presets
    assert "kernel_size" not in presets.neighborhood
    assert "kernel_size" not in presets.deltaconv
    assert presets.deltaconv_paper.kernel_size == 5


def test_a_hybrid_takes_a_list_of_sites_from_the_command_line(composed: Any) -> None:
    typed = plain(["catalog.variants.hybrid.sites=[mid_block,up_blocks.2]"])
    assert plain(typed) == typed  # a gate hands them on to processes that read them again
    config = composed("+sweep=resolution", "models=[sdxl]", *typed)
    settle(config, typed, None)
    assert config.catalog.variants.hybrid.sites == ["mid_block", "up_blocks.2"]
    assert "sites" not in config.catalog.models.sdxl.presets.hybrid


def test_a_map_that_is_typed_or_in_a_sweep_stands_for_the_one_before(
    composed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep").mkdir()
    mine = "catalog: {variants: {hybrid: {sites: {mid_block: linfusion, '*': self_attention}}}}"
    (tmp_path / "sweep" / "mine.yaml").write_text(mine)
    monkeypatch.setattr("sys.argv", ["harness", "--config-dir", str(tmp_path)])
    typed = plain(
        ["catalog.models.tiny_sd.presets.deltaconv={}", "cpu_limits={}", "catalog.metrics.fdd.margin={share:1}"]
    )
    typed += plain(
        ["catalog.variants.deltaconv.kernel_size={*:3}", "catalog.variants.deltaconv.kernel_size.mid_block=7"]
    )
    config = composed("+sweep=resolution", *typed)
    OmegaConf.set_struct(config, False)
    config.merge_with(OmegaConf.create(mine))
    assert list(config.catalog.variants.hybrid.sites)[-1] == "mid_block"  # which would decide nothing
    OmegaConf.set_struct(config, True)
    settle(config, typed, "mine")
    assert list(config.catalog.variants.hybrid.sites) == ["mid_block", "*"]
    assert "sites" not in config.catalog.models.tiny_sd.presets.hybrid
    assert config.catalog.models.tiny_sd.presets.deltaconv == {}
    assert config.cpu_limits == {}
    assert (config.catalog.metrics.fdd.margin.share, config.catalog.metrics.fdd.margin.half_widths) == (1, 1.0)
    assert config.catalog.variants.deltaconv.kernel_size == {"*": 3, "mid_block": 7}


def test_a_file_of_the_user_is_taken_before_the_shipped_one_of_the_same_name_and_every_job_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "variant").mkdir()
    mine = "_target_: baselines.DepthwiseConvolution.for_site\n_partial_: true\nkernel_size: 3\n"
    (tmp_path / "variant" / "pooling.yaml").write_text(mine)
    monkeypatch.chdir(tmp_path)
    chosen = ["models=[tiny_sd]", "variants=[pooling]", "metrics=[flops]", "resolutions=[64]", "tracker=none"]
    several = ["harness", "--config-dir", ".", "-m", *chosen, "n=0,1", "out=made"]
    monkeypatch.setattr("sys.argv", several)
    assert main() == 2
    said = capsys.readouterr()
    assert "n=0 is not possible" in said.err
    assert json.loads(said.out.splitlines()[-1])["statuses"] == {"ok": 1}
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "made" / "records").glob("*.json"))
    assert json.loads(record["case"]["mixer"])["mixer"] == "baselines.depthwise.DepthwiseConvolution.for_site"
    assert not (tmp_path / "multirun").exists()


@pytest.mark.parametrize("maker", ["deltaconv", "neighborhood", "depthwise", "hybrid.choices.deltaconv"])
def test_kernel_sizes_may_be_left_to_the_profile_of_a_model(composed: Any, maker: str) -> None:
    setting = f"catalog.variants.{maker}.kernel_size"
    check(OmegaConf.to_container(composed(f"{setting}=erf"), resolve=True))
    with pytest.raises(BadInput, match=f"{setting}=erff is not possible: give a whole number, .* or erf$"):
        check(OmegaConf.to_container(composed(f"{setting}=erff"), resolve=True))


def test_limits_of_a_metric_that_there_is_not_are_refused() -> None:
    with pytest.raises(Exception, match="metric 'nosuch' is not known"):
        experiment("cpu_limits={tiny_sd:{nosuch:1}}")


def test_the_remedies_that_are_printed_are_settings_that_there_are(composed: Any) -> None:
    for advice in ("train.on_demand=false", "again=true", "catalog.worlds.laion.training_folder=x"):
        check(OmegaConf.to_container(composed(advice), resolve=True))


def test_what_is_said_of_train_holds_for_every_recipe_that_is_compared(composed: Any) -> None:
    typed = ["recipes=[paper,ours-6]", "train.batch=4", "train.seed=3", "metrics=[clip_score]"]
    config = composed(*typed)
    settle(config, typed, None)
    made = instantiate(config, _convert_="all")
    recipes = {row.taught: row.recipe for row in made.rows if row.variant == "deltaconv"}
    assert {name: (recipe.batch, recipe.seed) for name, recipe in recipes.items()} == {
        "paper": (4, 3),
        "ours-6": (4, 6),
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ImportError('it does not build')", "it does not build"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def", r"invalid syntax \(mine.py, line 1\)"),
        ("", "has no attribute 'Mixer'"),
    ],
)
def test_of_a_module_of_the_users_that_breaks_it_is_said_what_broke_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "mine.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=rf"wants 'theirs.mine.Mixer.for_site', which cannot be had \(.*{why}"):
        check({"_target_": "theirs.mine.Mixer.for_site"}, "catalog.variants.mine")
    for name in ("theirs", "theirs.mine"):
        sys.modules.pop(name, None)
