"""Whatever can change a number leads to measuring it again: every setting of every entry of the catalogue is tried."""

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from PIL import Image

from harness.__main__ import GROUPS, catalog, names
from harness.experiment import Experiment
from harness.records.spelled import IDLE, ONLY_SPEED, settings_of, spelled

ENTRIES = [(group, name) for group in GROUPS for name in names(group, [])]


def experiment(*overrides: str) -> Experiment:
    ConfigStore.instance().store(name="catalog", node=catalog([]), package="catalog")
    with initialize_config_module("conf", version_base="1.3"):
        made: Experiment = instantiate(compose("config", overrides=list(overrides)), _convert_="all")
    return made


@pytest.fixture(scope="module")
def whole() -> Experiment:
    return experiment("resolutions=[512]", "metrics=[flops]", "tracker=none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture with its caption, by a list and by nothing but files."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "1.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "red"}\n')
    return tmp_path


def asked(whole: Experiment, group: str, name: str, part: Any, **settings: Any) -> set[tuple[str, str]]:
    """What would be looked for in a store: keys of records, and identities in them; with another part of that name."""
    chosen: dict[str, Any] = {"models": ["sd15"], "variants": ["self_attention"], "metrics": ["flops"]}
    chosen |= {
        "model": {"models": [name]},
        "variant": {"variants": [name]},
        "metric": {"models": ["tiny_sd"], "metrics": [name]},
        "worlds": {"models": ["tiny_sd"], "metrics": ["clip_score"], "world": name},
    }[group]
    place = GROUPS[group]
    bare = {called: varied(model, "presets", {}) for called, model in whole.catalog.models.items()}
    held = replace(whole.catalog, models=bare)
    held = replace(held, **{place: {**getattr(held, place), name: part}})
    jobs = replace(whole, catalog=held, **(chosen | settings)).jobs()
    return {(job.case.key, identity) for job in jobs for identity in job.identities.values()}


def variations(part: Any) -> Iterator[tuple[bool, str, Any]]:
    """Whether a setting counts, its name, and the part with another value of it; parts inside parts as well."""
    held = {each.name for each in fields(part) if not each.compare} if is_dataclass(part) else set()
    for name, value in settings_of(part).items():
        called = [f"{kind.__name__}.{name}" for kind in type(part).__mro__]
        counts = name not in held and not any(each in IDLE for each in called)
        if hasattr(value, "__dict__") and not isinstance(value, Path | partial | type):
            for inside, label, other in variations(value):
                yield counts and inside, f"{name}.{label}", varied(part, name, other)
        else:
            yield counts, name, varied(part, name, another(value))


def varied(part: Any, name: str, value: Any) -> Any:
    if isinstance(part, partial):
        return partial(part.func, *part.args, **(part.keywords | {name: value}))
    made = copy.copy(part)
    object.__setattr__(made, name, value)
    return made


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str | Path):
        return f"{value}x"
    if isinstance(value, dict):
        return value | {"x": 1}
    return (*value, another(value[-1]) if value else "x") if isinstance(value, list | tuple) else "x"


@pytest.mark.parametrize(("group", "name"), ENTRIES)
def test_every_setting_of_the_catalogue_leads_to_measuring_again_or_is_listed_with_its_reason(
    whole: Experiment, folder: Path, tmp_path_factory: pytest.TempPathFactory, group: str, name: str
) -> None:
    part = getattr(whole.catalog, GROUPS[group])[name]
    if group == "worlds" and name != "shapes":
        part = replace(part, folder=folder, captions=None)
    before = asked(whole, group, name, part)
    for counts, setting, other in variations(part):
        if setting in ("folder", "training_folder"):
            (elsewhere := tmp_path_factory.mktemp("other") / "metadata.jsonl").write_text('["blue"]')
            other = replace(part, **{setting: elsewhere.parent})
        elif setting == "captions":
            other = replace(part, captions="metadata.jsonl")
        elif setting == "config":
            other = varied(part, setting, "pixart_512" if part.config != "pixart_512" else "pixart")
            counts = part.source is None or not str(part.source).startswith("pkg://")
        elif group == "model" and setting in ("name", "source"):
            continue  # a case bears the name; another test has the source
        try:
            after = asked(whole, group, name, other)
        except ValueError:
            continue  # a value that is refused measures nothing
        assert (after != before) == counts, f"{group} {name}: {setting}"


def test_the_lists_name_settings_that_there_are_and_say_why(whole: Experiment) -> None:
    known = {
        f"{kind.__name__}.{name}" for part in parts(whole) for kind in type(part).__mro__ for name in settings_of(part)
    }
    known |= {name for variant in whole.catalog.variants.values() for name in settings_of(variant)}
    assert (IDLE.keys() | ONLY_SPEED.keys()) - known == set()
    assert all(len(why.split()) > 3 for why in (IDLE | ONLY_SPEED).values())


def parts(held: Any) -> Iterator[Any]:
    """Everything that settings are made of."""
    values = list(held.values()) if isinstance(held, dict) else list(held) if isinstance(held, list | tuple) else []
    if hasattr(held, "__dict__") and not isinstance(held, partial | type | Path):
        yield held
        values = list(settings_of(held).values())
    for value in values:
        yield from parts(value)


@pytest.mark.usefixtures("cache")  # else a shipped student would stand in for one of the default recipe alone
def test_a_students_key_holds_its_recipe_and_data_but_not_what_only_changes_speed(whole: Experiment) -> None:
    def key(train: Any) -> str:
        chosen = {"models": ["tiny_sd"], "variants": ["linfusion"], "metrics": ["clip_score"]}
        (job,) = replace(whole, train=train, **chosen).jobs()
        return job.student.key

    before = key(whole.train)
    for counts, setting, other in variations(whole.train):
        if setting != "stages":
            assert (key(other) != before) == counts, setting
    stages = list(whole.train.stages)  # type: ignore[union-attr]
    for counts, setting, other in variations(stages[0]):
        made = varied(whole.train, "stages", [other, *stages[1:]])
        counts = counts and f"Schedule.{setting.rpartition('.')[2]}" not in ONLY_SPEED
        assert (key(made) != before) == counts, setting


def test_a_models_source_and_configuration_count_where_nothing_but_shapes_is_needed(whole: Experiment) -> None:
    tiny, real = whole.catalog.models["tiny_sd"], whole.catalog.models["sd15"]
    as_real = type(tiny)("tiny_sd", source=real.source, config=real.config, presets=tiny.presets)
    assert asked(whole, "model", "tiny_sd", tiny).isdisjoint(asked(whole, "model", "tiny_sd", as_real))


def test_pictures_and_captions_count_and_not_where_they_lie(whole: Experiment, folder: Path, tmp_path: Path) -> None:
    def held() -> set[tuple[str, str]]:
        return asked(whole, "worlds", "own", replace(whole.catalog.worlds["own"], folder=folder))  # type: ignore[type-var]

    first = held()
    assert held() == first
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "blue"}\n')
    second = held()
    Image.new("RGB", (9, 9), "red").save(folder / "1.png")
    assert len({frozenset(each) for each in (first, second, held())}) == 3


def test_other_data_to_learn_from_is_another_student(whole: Experiment, folder: Path) -> None:
    chosen: dict[str, Any] = {"variants": ["linfusion"]}
    own = replace(whole.catalog.worlds["own"], folder=folder, training_folder=folder)  # type: ignore[type-var]
    first = asked(whole, "worlds", "own", own, **chosen)
    assert asked(whole, "worlds", "own", own, **chosen) == first
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "blue"}\n')
    third = replace(own, folder=None)
    assert asked(whole, "worlds", "own", replace(own, training_folder=None), **chosen).isdisjoint(first)
    assert asked(whole, "worlds", "own", third, **chosen).isdisjoint(first)


def test_an_untrained_student_is_another_case_than_a_trained_one(whole: Experiment) -> None:
    train = replace(whole.train, seed=99)  # type: ignore[type-var]
    chosen = {"models": ["tiny_sd"], "variants": ["linfusion"], "metrics": ["clip_score"], "train": train}
    plain, untrained = (replace(whole, **chosen, untrained=value).jobs()[0] for value in (False, True))
    assert untrained.case.weights.endswith("+untrained")
    assert plain.case.key != untrained.case.key
    assert (plain.trains, untrained.trains) == (True, False)


def test_a_part_is_spelled_the_same_in_every_process_and_after_its_caches_are_filled(whole: Experiment) -> None:
    for part in (*whole.catalog.models.values(), *whole.catalog.worlds.values(), *whole.catalog.variants.values()):
        text = str(spelled(part))
        assert " at 0x" not in text
        assert str(spelled(copy.copy(part))) == text
