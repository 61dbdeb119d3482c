"""Diffusers and transformers without their progress bars and remarks, for as long as a context lasts."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Errors only; what was set before is set again afterwards."""
    import diffusers.utils.logging as first
    import transformers.utils.logging as second

    before = [(logging, logging.get_verbosity(), logging.is_progress_bar_enabled()) for logging in (first, second)]
    try:
        for logging, _, _ in before:
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        yield
    finally:
        for logging, verbosity, bars in before:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
