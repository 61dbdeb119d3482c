"""Kernels beside receptive fields: read from a variant's settings, by the patterns that its sites are picked by."""

import json
from dataclasses import replace
from typing import Any

import pytest
from report_stores import case, record

from harness.records.record import Reading
from reports.answers import answer
from reports.locality import kernels_of, reached
from reports.sensitivity import parts

SITES: list[dict[str, Any]] = [
    {"path": "down_blocks.0.attn1", "mean": {"receptive_field": 3}},
    {"path": "mid_block.attn1", "mean": {"receptive_field": None}},
    {"path": "up_blocks.1.attn1", "mean": {"receptive_field": 7}},
]


@pytest.mark.parametrize(
    ("setting", "kernels"),
    [
        (5, [5, 5, 5]),
        ([["down_blocks", 3], ["mid_*|up_blocks.1", 9]], [3, 9, 9]),
        ([["*", 7], ["down_blocks", 3]], [7, 7, 7]),
        ([["down", 3], ["*", 9]], [9, 9, 9]),
        ([["down_blocks", 3]], []),
        (None, []),
    ],
)
def test_a_kernel_is_that_of_the_first_pattern_that_fits(setting: Any, kernels: list[int]) -> None:
    mixer = json.dumps({"mixer": "a.B.for_site", "parameters": {"kernel_size": setting}})
    one = record(replace(case("tiny_sd", "deltaconv", "64"), mixer=mixer))
    assert kernels_of(one, SITES) == kernels


def test_it_is_said_how_many_kernels_reach_what_was_measured() -> None:
    assert reached("deltaconv", [3, 3, 5], SITES) == (
        "The kernels of deltaconv (3 to 5) are as large as the receptive field in 2 of 3 sites."
    )


def test_it_is_said_at_which_site_most_is_lost() -> None:
    sites: list[dict[str, Any]] = [
        {"paths": [path], "grid": [8, 8], "flops": {"self_attention": 8, "variant": 2}, "error": {"variant": error}}
        for path, error in (("down.attn1", 0.001), ("up.attn1", 0.009))
    ]
    whole = sites[0] | {"error": {"variant": 0.012}}
    details = {"section": "sensitivity", "sites": sites, "levels": [], "whole": whole, "variant": "deltaconv"}
    reading = Reading("sensitivity", "sensitivity", 0.012, "1", "lower", "p", details=details)
    (part,) = parts([record(case("tiny_sd", "deltaconv", "64"), readings=(reading,))])
    assert part.finding == (
        "With deltaconv at all 2 sites the prediction errs by 0.012 of its variance; of what they lose one by one, "
        "site 2 (up.attn1) makes 90%."
    )


def test_without_costs_and_scores_the_answer_does_not_say_that_nothing_else_was_taken() -> None:
    assert answer("tiny_sd", [], [], {}).sentence == "tiny_sd: no cost and no score was taken."
