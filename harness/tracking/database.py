"""MLflow's sqlite file beside the outputs: laid out whole or not at all, and reached whatever its folder is called."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.records.files import locked, remove_leftovers, write_whole


@contextmanager
def reached(database: Path) -> Iterator[str]:
    """A URI of the file. Signs that have a meaning in URIs (`?`, `%`, `#`) are hidden behind a link, for this long."""
    if not set("?%#") & set(str(database)):
        yield f"sqlite:///{database}"
        return
    with TemporaryDirectory(prefix="deltabench-") as folder:
        link = Path(folder) / hashlib.sha256(str(database.parent).encode()).hexdigest()[:8]
        link.symlink_to(database.parent, target_is_directory=True)
        yield f"sqlite:///{link / database.name}"


def make_database(path: Path) -> None:
    """Lay out mlflow's sqlite file aside and move it into place: a run killed meanwhile leaves no half of one.

    Of several runs that find none the first makes it, and the others wait. The migrations run without syncs to disk,
    which saves seconds; nothing is in the file yet that could be lost.
    """
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            _lay_out(path)


def _lay_out(path: Path) -> None:
    from mlflow import MlflowClient
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def without_sync(connection: Any, _: Any) -> None:
        with suppress(Exception):  # another database's connection, made meanwhile
            connection.execute("PRAGMA synchronous = OFF")

    remove_leftovers(path.parent)
    event.listen(Engine, "connect", without_sync)
    try:
        with TemporaryDirectory(prefix="deltabench-") as aside:
            MlflowClient(tracking_uri=f"sqlite:///{aside}/mlflow.db").search_experiments(max_results=1)
            write_whole(path, Path(aside, "mlflow.db").read_bytes())
    finally:
        event.remove(Engine, "connect", without_sync)
