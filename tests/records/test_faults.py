"""Memory that is full, in the words of those who find out."""

import errno

import pytest
import torch

from harness.records.case import BadInput
from harness.records.faults import no_memory
from harness.seats.sources import reaching_hub

FULL = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("could not create a primitive"),
    RuntimeError("can't start new thread"),
]
OTHERS = [RuntimeError("no price"), OSError(errno.ENOSPC, "No space left on device"), BadInput("this cannot be used")]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_memory_that_is_full_is_known_also_behind_what_it_led_to(error):
    assert no_memory(error) is error
    behind = BadInput("the file could not be fetched")
    behind.__cause__ = error
    assert no_memory(behind) is error


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_what_is_something_else_is_not_taken_for_it(error):
    assert no_memory(error) is None


def test_an_error_whose_origin_is_denied_is_judged_by_itself():
    error = ValueError("something else")
    error.__context__, error.__suppress_context__ = MemoryError(), True
    assert no_memory(error) is None


@pytest.mark.parametrize("wrapped", [ValueError("no such file"), OSError("offline")])
def test_a_download_that_failed_for_memory_is_not_called_a_bad_one(wrapped):
    wrapped.__cause__ = RuntimeError("can't start new thread")
    with pytest.raises(type(wrapped)) as caught, reaching_hub("it could not be fetched", "give a folder"):
        raise wrapped
    assert not isinstance(caught.value, BadInput)
