"""Which images are left out together in a jackknife: groups of prompts.

Groups are dealt by one fixed shuffle, the same for every variant, so that replicates of two variants can be subtracted
in pairs. (In the order of the prompts, whose kinds take turns, a group would be of one kind.) All images of a prompt
stay together, on both sides of a distance.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from harness.records.statistics import Integers, numbered

GROUPS = 20


def dealt(
    images: Sequence[Hashable], references: Sequence[Hashable] = (), most: int = GROUPS
) -> tuple[Integers, Integers]:
    """Group of each image and of each reference, by their prompts.

    Prompts with images take turns first, so that every group leaves out some; references of other prompts follow.
    """
    unit = numbered([*images, *references])
    own = 1 + int(unit[: len(images)].max())
    groups = min(most, own)
    others = 1 + int(unit.max()) - own
    turn_U = np.concatenate([shuffled(own), shuffled(others)]) % groups
    group = turn_U[unit]
    return group[: len(images)], group[len(images) :]


def shuffled(n: int, seed: int = 0) -> Integers:
    """The numbers below n in a random order that is always the same: `torch.randperm`'s, by which kept numbers were
    dealt (Fisher and Yates, drawing from the Mersenne twister).
    """
    order = list(range(n))
    drawn = np.random.RandomState(seed).randint(0, 2**32, max(0, n - 1), dtype=np.uint32)
    for index, number in enumerate(drawn.tolist()):
        other = index + number % (n - index)
        order[index], order[other] = order[other], order[index]
    return np.array(order, dtype=np.int64)


def units_of(prompts: Sequence[str]) -> dict[str, list[int]]:
    """Which images share a prompt, for a reading's details; nothing where none do."""
    unit_N = numbered(prompts).tolist()
    return {} if unit_N == list(range(len(prompts))) else {"units": unit_N}


def mixed(prompts: Sequence[Hashable]) -> Integers:
    """An order of the images in which prompts are shuffled, by a fixed seed, and those of one prompt stay together."""
    unit_N = numbered(prompts)
    place_U = shuffled(1 + int(unit_N.max())).argsort()
    return np.argsort(place_U[unit_N], kind="stable")
