"""What extractors say of images, kept: a new number on known images costs seconds, and a killed run goes on.

A file holds the rows of one batch of images, named by a digest of all that these are made of; the rows of each reader
are named by a digest of its protocol. Where nothing can be kept, as on a full disk, everything is computed all the
same, and `notes` say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from harness.records.files import write_whole
from harness.records.spelled import digest


@dataclass(frozen=True)
class Reader:
    """Says something of images: (B, 3, H, W) in [0, 1] to (B, ...) rows, each of its image alone.

    numbered: `read` is given the numbers of the images as well.
    """

    protocol: str
    read: Callable[..., Tensor] = field(compare=False)
    numbered: bool = False

    @property
    def key(self) -> str:
        return digest(self.protocol)

    def of(self, images: Tensor, rows: range) -> Tensor:
        return self.read(images, rows) if self.numbered else self.read(images)


FINITE = Reader("finite/v1", lambda images: images.flatten(1).isfinite().all(dim=1))
"""Whether each image holds finite values alone."""


class Kept:
    """A folder of kept rows; without a folder nothing is kept. since: what was written before (in s) is not used."""

    def __init__(self, folder: Path | None, since: float = 0.0) -> None:
        self.folder, self.since = folder, since
        self.notes: list[str] = []

    def get(self, address: str) -> dict[str, Tensor]:
        """The rows of a batch by reader; none where nothing is kept. A damaged file is made again, and said."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            if self.folder is None or not fresh(self._path(address), self.since):
                return {}
            return dict(load(self._path(address).read_bytes()))
        except (SafetensorError, OSError) as error:
            self._note(f"kept features {address} cannot be read ({_why(error)}): they were made again")
            return {}

    def put(self, address: str, rows: dict[str, Tensor]) -> None:
        from safetensors.torch import save

        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(address), save({key: row.contiguous() for key, row in rows.items()}))
        except OSError as error:
            self._note(f"features cannot be kept ({_why(error)}): another run makes them again")

    def once(self, made_of: Sequence[object], rows: Tensor, compute: Callable[[], Sequence[float]]) -> list[float]:
        """A few numbers of rows, such as a statistic of all references, computed once."""
        address = digest([*made_of, content(rows)])
        known = self.get(address)
        if "numbers" not in known:
            known = {"numbers": torch.tensor(compute(), dtype=torch.float64)}
            self.put(address, known)
        return [float(value) for value in known["numbers"]]

    def _path(self, address: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{address}.safetensors"

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


class Pictures(Protocol):
    """Takes images as they come."""

    def lack(self, rows: range) -> bool: ...

    def keep(self, rows: range, images: Tensor) -> None: ...


@dataclass(frozen=True)
class Batch:
    """Some of the images, by their numbers, and the address of what is kept of them."""

    rows: range
    address: str


def read_all(
    batches: Sequence[Batch],
    readers: Sequence[Reader],
    make: Callable[[range], Tensor],
    kept: Kept,
    pictures: Pictures | None = None,
) -> dict[str, Tensor | Exception]:
    """The rows of all images for each reader's key, or what it raised, in one pass that holds one batch at a time.

    make: the images of a batch; it is asked for those alone of which something is not known.
    """
    found: dict[str, list[Tensor]] = {reader.key: [] for reader in readers}
    broken: dict[str, Exception] = {}
    for batch in batches:
        known = kept.get(batch.address)
        lacking = {reader.key: reader for reader in readers if reader.key not in {*known, *broken}}
        if lacking or (pictures is not None and pictures.lack(batch.rows)):
            images = make(batch.rows)
            if pictures is not None:
                pictures.keep(batch.rows, images)
            for key, reader in lacking.items():
                try:
                    known[key] = reader.of(images, batch.rows)
                except Exception as error:  # noqa: BLE001, a reader that breaks takes no other's numbers along
                    broken[key] = error
            if lacking.keys() - broken.keys():
                kept.put(batch.address, known)
        for key, rows in found.items():
            if key not in broken:
                rows.append(known[key])
    return {key: torch.cat(rows) for key, rows in found.items() if key not in broken} | broken


def fresh(path: Path, since: float) -> bool:
    """Whether a file is there and no older than that."""
    try:
        return path.stat().st_mtime >= since
    except (FileNotFoundError, NotADirectoryError):
        return False


def content(rows: Tensor) -> str:
    """A digest of a tensor's type, shape and bytes."""
    import hashlib

    array = rows.detach().cpu().contiguous().numpy()
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
