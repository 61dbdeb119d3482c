"""Groups of prompts: the same for every variant, spread over kinds, none without images."""

import numpy as np
import pytest

from harness.records.groups import dealt, mixed, shuffled, units_of


def test_images_of_one_prompt_stay_in_one_group() -> None:
    group_N, _ = dealt([i // 2 for i in range(200)])
    assert np.array_equal(group_N[0::2], group_N[1::2])
    assert np.bincount(group_N).tolist() == [10] * 20


def test_groups_are_dealt_as_those_of_kept_numbers_were() -> None:
    torch = pytest.importorskip("torch")
    for n in (1, 2, 7, 512):
        for seed in (0, 3):
            known = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
            assert shuffled(n, seed).tolist() == known.tolist()


def test_every_group_leaves_out_images_also_with_several_seeds():
    """With two seeds half of the references have prompts of no image: eight of twenty groups once left out none."""
    prompts = [f"{i // 2}" for i in range(64)]
    group_N, group_M = dealt(prompts, [f"{i}" for i in range(64)])
    assert set(group_N.tolist()) == set(group_M.tolist()) == set(range(20))
    assert np.array_equal(group_N[::2], group_M[:32])
    assert set(dealt(["a", "b", "a"], ["c", "d"])[1].tolist()) <= {0, 1}


def test_prompts_are_shuffled_and_their_images_stay_together():
    order = mixed([i // 2 for i in range(40)])
    assert np.array_equal(order[::2] + 1, order[1::2])
    assert sorted(order.tolist()) == list(range(40))
    assert units_of(["a", "a", "b"]) == {"units": [0, 0, 1]}
    assert units_of(["a", "b"]) == {}
