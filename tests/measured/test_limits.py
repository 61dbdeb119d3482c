"""The limits of the machine: by scripted clocks to the last digit, and what is told of a call that cannot be quick."""

from collections.abc import Iterator

import pytest
import torch

from harness.measured import rates as module
from harness.measured.rates import Limits, copy_rate, limits, matrix_rate, too_slow


@pytest.fixture
def unknown() -> Iterator[None]:
    """Nothing is remembered from before, nor afterwards."""
    for found in (matrix_rate, copy_rate):
        found.cache_clear()
    yield
    for found in (matrix_rate, copy_rate):
        found.cache_clear()


@pytest.fixture
def scripted(unknown, monkeypatch):
    """Every piece of work takes a millisecond; the buffers are small."""
    monkeypatch.setattr(module, "clock_for", lambda device: lambda work: (work(), 1.0)[1])
    monkeypatch.setattr(module, "SIDES", (2, 4))
    monkeypatch.setattr(module, "COPIED", {"cpu": 500})
    monkeypatch.setattr(module, "BLOCK", 100)


def test_rates_are_work_over_time(scripted):
    """A 4 x 4 product is 128 FLOPs; a copy of 500 bytes reads and writes 1000. In a thousandth of a second each."""
    assert limits("cpu", torch.float32) == Limits(128e3, 1e6)


def test_they_are_found_once(scripted, monkeypatch):
    first = limits("cpu", torch.float32)
    monkeypatch.setattr(module, "clock_for", lambda device: pytest.fail("measured again"))
    assert limits("cpu", torch.float32) == first


def test_the_data_mean_something_and_leave_the_random_numbers_of_others_alone(scripted, monkeypatch):
    """A GPU multiplies constants faster than anything that means something."""
    made, before = [], torch.random.get_rng_state()
    monkeypatch.setattr(module, "clock_for", lambda device: lambda work: made.append(work()) or 1.0)
    limits("cpu", torch.bfloat16)
    assert all(len(each.unique()) > each.numel() / 10 for each in made)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_growing_sides_end_once_a_product_takes_long_enough(scripted, monkeypatch):
    sides = []
    monkeypatch.setattr(module, "clock_for", lambda device: lambda work: sides.append(len(work())) or 1000.0)
    assert matrix_rate("cpu", torch.float64) == 2 * 2**3
    assert set(sides) == {2}


@pytest.mark.parametrize(
    ("flops", "traffic", "floor_ms", "bound"),
    [(4000, 1, 4000 / 7, "compute"), (7, 5000, 1000.0, "memory"), (7000, 5000, 1000.0, "compute")],
)
def test_the_floor_is_the_slower_of_the_two(flops, traffic, floor_ms, bound):
    machine = Limits(7e3, 5e3)
    assert machine.floor_ms(flops, traffic) == pytest.approx(floor_ms)
    assert machine.bound(flops, traffic) == bound


def test_a_call_that_cannot_be_quick_is_told_with_its_numbers(scripted):
    """128e3 FLOPs a second: 2,560,000 are 20 seconds."""
    assert too_slow(2_560_000, 20.0, "cpu", torch.float32) == ""
    assert too_slow(5_120_000, 20.0, "cpu", torch.float32) == (
        "one call is 5.12e+06 FLOPs, at least 40 s at the 1.28e+05 FLOPs a second of this device in float32, "
        "and the patience is 20 s"
    )


def test_this_machine_multiplies_and_copies(unknown, monkeypatch):
    monkeypatch.setattr(module, "SIDES", (256,))
    monkeypatch.setattr(module, "COPIED", {"cpu": 2**22})
    machine = limits("cpu", torch.float32)
    assert 1e7 < machine.flops_per_s < 1e14
    assert 1e7 < machine.bytes_per_s < 1e13
