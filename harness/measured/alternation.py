"""A variant and the teacher in alternation: a ratio that holds on a machine that changes its pace.

Every call of the variant has a call of the teacher's own attention next to it, in the same seats of the same denoiser;
who begins takes turns, so a drift favours neither. What disturbs both cancels (duet benchmarking, arXiv 2001.05811).

Neighbouring pairs are disturbed by the same things and no independent samples: they are cut into ten blocks of
neighbours, each gives the median of its pairs' ratios, and the interval is Student's over the blocks, of logarithms.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from harness.records.statistics import t_quantile
from harness.seats.mixer import Site, TokenMixer
from harness.seats.surgery import Factory, Seat
from harness.seats.teacher import TeacherAttention, attention_flops

Pair = tuple[float, float]  # milliseconds of a call of the variant and of the teacher's beside it

BLOCKS = 10
LEAST = 6  # fewer pairs have no interval
FLOOR = 0.02
"""By how much two seatings of the same code may differ, since their tensors lie elsewhere: assumed, not measured."""


class Sides:
    """A factory that keeps what its mixers replace, so that either side can take the seats between two calls."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._variant: dict[str, TokenMixer] = {}
        self._teacher: dict[str, TokenMixer] = {}

    def __call__(self, site: Site, attention: nn.Module) -> TokenMixer:
        self._teacher[site.path] = TeacherAttention(attention)
        self._variant[site.path] = self._factory(site, attention)
        return self._variant[site.path]

    def seat_variant(self, denoiser: nn.Module) -> None:
        _take(denoiser, self._variant)

    def seat_teacher(self, denoiser: nn.Module) -> None:
        _take(denoiser, self._teacher)


def _take(denoiser: nn.Module, mixers: dict[str, TokenMixer]) -> None:
    for module in denoiser.modules():
        if isinstance(module, Seat):
            module.mixer = mixers[module.site.path]


def teacher_flops(denoiser: nn.Module, batch: int) -> int:
    """Price of the teacher's attention on the grids of the last call."""
    seats = [module for module in denoiser.modules() if isinstance(module, Seat)]
    return batch * sum(attention_flops(seat.grid, seat.site.channels) for seat in seats if seat.grid is not None)


def alternate(variant: Callable[[], float], teacher: Callable[[], float], seconds: float) -> tuple[Pair, ...]:
    """Pairs for about `seconds`; up to twice as long where they are fewer than the blocks. Both give milliseconds."""
    pairs: list[Pair] = []
    spent_ms = 0.0
    while not pairs or spent_ms < 1e3 * seconds or (len(pairs) < BLOCKS and spent_ms < 2e3 * seconds):
        if len(pairs) % 2 == 0:
            variant_ms, teacher_ms = variant(), teacher()
        else:
            teacher_ms, variant_ms = teacher(), variant()
        pairs.append((variant_ms, teacher_ms))
        spent_ms += variant_ms + teacher_ms
    return tuple(pairs)


@dataclass(frozen=True)
class Ratio:
    """Variant over teacher, with its 95 % interval; none of fewer than six pairs."""

    value: float
    low: float | None
    high: float | None

    @property
    def told_apart(self) -> bool:
        """Whether the two differ: the whole interval lies beyond what two seatings of the same code may differ by."""
        if self.low is None or self.high is None:
            return False
        return self.low > 1 + FLOOR or self.high < 1 / (1 + FLOOR)


def ratio_of(pairs: Sequence[Pair]) -> Ratio:
    """The geometric mean over blocks of neighbours of the median ratio in each."""
    count = min(BLOCKS, len(pairs))
    cuts = [index * len(pairs) // count for index in range(count + 1)]
    each = [math.log(variant_ms / teacher_ms) for variant_ms, teacher_ms in pairs]
    logs = [statistics.median(each[start:end]) for start, end in pairwise(cuts)]
    mean = statistics.fmean(logs)
    if len(pairs) < LEAST:
        return Ratio(math.exp(mean), None, None)
    half = t_quantile(count - 1) * statistics.stdev(logs) / math.sqrt(count)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
