"""Which sites a budget replaces, and what a profile spells out."""

import itertools
import json
from functools import partial
from pathlib import Path

import pytest

from harness.locality.profile import FORMAT, settled
from harness.locality.schedule import Price, schedule
from harness.records.case import BadInput

PRICES = {
    "a": Price(100, 20, 0.5),
    "b": Price(60, 10, 0.1),
    "c": Price(60, 10, 0.4),
    "d": Price(10, 12, 0.0),
    "e": Price(30, 5, 0.02),
}


def by_trying_all(budget: float) -> float:
    """The least sum of errors of all choices that keep to the budget."""
    whole = sum(price.kept for price in PRICES.values())
    sums = []
    for chosen in itertools.product((False, True), repeat=len(PRICES)):
        pairs = list(zip(PRICES.values(), chosen, strict=True))
        if sum(price.replaced if taken else price.kept for price, taken in pairs) <= budget * whole + 1e-9:
            sums.append(sum(price.error for price, taken in pairs if taken))
    return min(sums)


@pytest.mark.parametrize("budget", [0.22, 0.3, 0.5, 0.61, 0.8, 0.99, 1.0])
def test_a_schedule_has_the_least_error_of_all_that_keep_to_the_budget(budget: float) -> None:
    chosen = schedule(PRICES, budget)
    left = sum(price.replaced if path in chosen else price.kept for path, price in PRICES.items())
    assert left <= budget * sum(price.kept for price in PRICES.values()) + 1e-9
    assert sum(PRICES[path].error for path in chosen) == pytest.approx(by_trying_all(budget), abs=1e-9)


def test_a_budget_that_no_schedule_meets_names_the_least() -> None:
    with pytest.raises(BadInput, match=r"flops=0.1 is met by no schedule: with all sites replaced 0.212 of"):
        schedule(PRICES, 0.1)


@pytest.mark.parametrize("budget", [0.0, -0.5, 1.2, float("nan")])
def test_an_impossible_budget_is_refused(budget: float) -> None:
    with pytest.raises(BadInput, match="is not possible: give the share of the teacher's FLOPs, above 0 and up to 1"):
        schedule(PRICES, budget)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "tiny.json"
    prices = {
        "deltaconv": {
            site: {"kept": price.kept, "replaced": price.replaced, "error": price.error}
            for site, price in PRICES.items()
        }
    }
    path.write_text(json.dumps({"format": FORMAT, "receptive_fields": {"a": 7, "b": 3}, "prices": prices}))
    return str(path)


def block(**settings: object) -> None:
    """Stands for a factory."""


def test_kernels_are_the_receptive_fields_also_of_a_choice(profile: str) -> None:
    choices = {"deltaconv": partial(block, kernel_size="erf", gate="scaled"), "other": partial(block, kernel_size=5)}
    laid = settled({"kernel_size": "erf", "choices": choices}, profile, "tiny")
    assert laid["kernel_size"] == {"a": 7, "b": 3}
    assert laid["choices"]["deltaconv"].keywords == {"kernel_size": {"a": 7, "b": 3}, "gate": "scaled"}
    assert laid["choices"]["other"].keywords == {"kernel_size": 5}


def test_a_budget_becomes_a_map_of_sites(profile: str) -> None:
    laid = settled({"flops": 0.5, "replacement": "deltaconv", "sites": {"*": "near"}, "share": None}, profile, "tiny")
    assert laid["flops"] is None
    assert laid["sites"] == dict.fromkeys(schedule(PRICES, 0.5), "deltaconv") | {"*": "self_attention"}


def test_settings_without_such_words_are_left_alone() -> None:
    settings = {"kernel_size": {"a": 3}, "flops": None, "choices": {"x": partial(block, mid=1)}}
    laid = settled(settings, None, "tiny")
    assert laid["kernel_size"] == {"a": 3}
    assert laid["choices"]["x"].keywords == {"mid": 1}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kernel_size": "erf"}, "kernel_size=erf needs a profile of tiny, and there is none: take the sweep locality"),
        ({"flops": 0.5}, "flops= needs a profile of tiny, and there is none: take the sweep locality"),
    ],
)
def test_without_a_profile_the_way_to_one_is_named(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        settled(settings, None, "tiny")
    assert str(error.value).startswith(sentence)


def test_two_ways_to_choose_sites_are_one_too_many(profile: str) -> None:
    with pytest.raises(BadInput, match="a hybrid has share= and flops=: give one of them"):
        settled({"flops": 0.5, "share": 0.5}, profile, "tiny")


def test_a_budget_of_what_was_not_measured_is_refused(profile: str) -> None:
    with pytest.raises(BadInput, match="flops= needs what linfusion loses at each site of tiny, and its profile knows"):
        settled({"flops": 0.5, "replacement": "linfusion"}, profile, "tiny")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "another"}', '{"format": null, "prices": 3}'])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="is no profile of a model"):
        settled({"flops": 0.5}, str(path), "tiny")
    with pytest.raises(BadInput, match="is no profile of a model"):
        settled({"flops": 0.5}, str(tmp_path / "absent.json"), "tiny")
