"""Work that talks to a server, and is left behind when it makes no progress.

A time-out of a socket does not help against a server that sends a byte a second, nor against a database that another
process has locked and that its library tries again and again. So the work goes on in a thread of its own, which is
given up, not waited for, once nothing was done for too long.
"""

import threading
import time
from collections.abc import Callable

PATIENCE_S = 20.0


class TooSlow(Exception):
    """Nothing was done for as long as one was ready to wait."""


class Progress:
    """Told by the work each time that a piece of it is done."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.given_up = False

    def __call__(self) -> None:
        """A piece is done. Raises TooSlow where nobody waits any more, so that what was left behind ends."""
        if self.given_up:
            raise TooSlow
        self.last = time.monotonic()


def with_patience(work: Callable[[Progress], None], patience_s: float = PATIENCE_S) -> None:
    """Do it; raise what it raises, or TooSlow."""
    progress, raised = Progress(), []

    def guarded() -> None:
        try:
            work(progress)
        except Exception as error:  # noqa: BLE001, handed to whoever waits
            raised.append(error)

    thread = threading.Thread(target=guarded, daemon=True, name="tracking")
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        if thread.is_alive() and time.monotonic() - progress.last > patience_s:
            progress.given_up = True
            raise TooSlow(f"it did nothing for {patience_s:.0f} s")
    if raised:
        raise raised[0]
