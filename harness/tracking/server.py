"""Where a store's runs go: an MLflow server or a database, or else the sqlite file beside the store."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from harness.tracking import database
from harness.tracking.address import public
from harness.tracking.mirror import Mirror


@dataclass(frozen=True)
class Server:
    """beside: the file, where it is one that the harness lays out itself."""

    uri: str
    experiment: str
    beside: Path | None

    @property
    def name(self) -> str:
        """What a user is told of it."""
        return f"MLflow at {public(self.uri)}"

    def prepare(self) -> None:
        """Lay out the file beside the store, where there is none."""
        if self.beside is not None and not self.beside.exists():
            self.beside.parent.mkdir(parents=True, exist_ok=True)
            database.make_database(self.beside)

    @contextmanager
    def mirror(self) -> Iterator[Mirror]:
        """The way to its runs, for as long as the context is open."""
        with database.reached(self.beside) if self.beside else nullcontext(self.uri) as uri:
            yield Mirror(uri, self.experiment, self.beside.parent / "mlflow-artifacts" if self.beside else None)


def root(error: BaseException) -> str:
    """What went wrong at the bottom, in a line; mlflow wraps it in the URI with its password."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
