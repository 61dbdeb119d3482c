"""Reading a store folder: the records that can be read, and a sentence for every file that cannot."""

from dataclasses import dataclass
from pathlib import Path

from harness.records.record import Record, Unreadable


class BadStore(ValueError):
    """The folder cannot be rendered: the message is the one sentence that the user sees."""


@dataclass(frozen=True)
class Store:
    """A folder's records, oldest first, and what must be said about the files that are not among them."""

    folder: Path
    records: tuple[Record, ...]
    notices: tuple[str, ...]


def load(folder: str | Path) -> Store:
    """Read every record under `folder`; raise BadStore where there is nothing to show."""
    root = Path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise BadStore(f"{str(folder)!r} {what}: give the output folder of a sweep, such as outputs/resolution")
    paths = sorted(p for p in (root / "records").glob("*.json") if not p.name.startswith("."))
    records, notices = [], []
    for path in paths:
        try:
            records.append(Record.read(path))
        except FileNotFoundError:
            continue  # renamed or removed meanwhile
        except Unreadable as error:
            notices.append(f"{path.name} cannot be read and is left out: {error}")
    notices += [
        f"{p.name} was set aside by the harness as unreadable" for p in sorted(root.glob("records/*.json.corrupt*"))
    ]
    if not records:
        why = f"none of its {len(paths)} record files can be read ({notices[0]})" if paths else "it holds no records"
        raise BadStore(f"{str(folder)!r} is not a store with results, {why}: give the output folder of a sweep")
    records.sort(key=lambda r: (r.started, r.case.model, r.case.variant, r.case.pixels, r.case.key))
    return Store(root, tuple(records), tuple(notices))
