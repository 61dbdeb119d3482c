"""Whether memory is what a machine ran out of: libraries say it in many ways, some as the cause of another error."""

import errno
from collections.abc import Iterator

NO_MEMORY = (
    "not enough memory",
    "allocate memory",
    "out of memory",
    "could not create a primitive",  # oneDNN, when it cannot allocate
    "can't start new thread",  # the stack of a thread is memory too
    "bad_alloc",
)


def no_memory(error: BaseException) -> BaseException | None:
    """What says that memory is full: the error itself or one that it came from; None where memory is not why."""
    return next((one for one in _chain(error) if _says_so(one)), None)


def _says_so(error: BaseException) -> bool:
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    known |= isinstance(error, OSError) and error.errno == errno.ENOMEM
    return known or any(words in str(error) for words in NO_MEMORY)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, as a traceback would show it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
