"""Rows of tensors on disk, in files of 256: made once, and read back row by row.

Each file is written whole as soon as it is made, so that a run that was killed goes on where it stopped. Rows are read
from the files whenever they are asked for: memory does not grow with their number.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from harness.distillation.alone import say
from harness.distillation.processes import count, index
from harness.records.case import BadInput
from harness.records.files import write_whole

ROWS = 256
ON_DEVICE_BYTES = 2**31  # what a GPU holds of its own; more is read from the files at each step


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The folder is there to be written into. BadInput where the disk is full or may not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise BadInput(
            f"what students learn from is kept in {folder}, which cannot be written ({error.strerror or error}): free "
            "space there, set DELTABENCH_CACHE to a folder that has room, or lower train.samples"
        ) from error


class Shards:
    """n rows of named tensors, and a text to each. Processes that train together share the files out among them."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n
        self.files = [range(first, min(first + ROWS, n)) for first in range(0, n, ROWS)]
        self._held: dict[str, Tensor] | None = None

    def missing(self) -> list[range]:
        """The rows of each file that this process has to make; a damaged one is made again, and said."""
        return [rows for rows in self.files[index() :: count()] if not self._is_whole(rows)]

    def put(self, rows: range, tensors: Mapping[str, Tensor], texts: Sequence[str] = ()) -> None:
        from safetensors.torch import save

        data = save({name: value.cpu().contiguous() for name, value in tensors.items()}, {"texts": json.dumps(texts)})
        with writing(self.folder):
            write_whole(self._path(rows), data)

    def texts(self, rows: range) -> list[str]:
        from safetensors import safe_open

        with safe_open(self._path(rows), "pt") as file:
            return list(json.loads(file.metadata()["texts"]))

    def hold(self, device: torch.device) -> None:
        """Keep all rows on a device, if they are few enough: a GPU would wait for files at each step."""
        from safetensors.torch import load_file

        paths = [self._path(rows) for rows in self.files]
        if sum(path.stat().st_size for path in paths) <= ON_DEVICE_BYTES:
            parts = [load_file(path) for path in paths]
            self._held = {name: torch.cat([part[name] for part in parts]).to(device) for name in parts[0]}

    def __getitem__(self, rows_B: Tensor) -> dict[str, Tensor]:
        """These rows, on the device of their numbers."""
        if self._held is not None:
            return {name: value[rows_B] for name, value in self._held.items()}
        found = [self._row(row) for row in rows_B.tolist()]
        return {name: torch.cat([each[name] for each in found]).to(rows_B.device) for name in found[0]}

    def _row(self, row: int) -> dict[str, Tensor]:
        """One row, batch 1. A file that stayed open would stay in memory."""
        from safetensors import safe_open

        number, at = divmod(row, ROWS)
        with safe_open(self._path(self.files[number]), "pt") as file:
            return {name: file.get_slice(name)[at : at + 1] for name in file.keys()}  # noqa: SIM118, not a dict

    def _path(self, rows: range) -> Path:
        return self.folder / f"{rows.start}-{rows.stop}.safetensors"

    def _is_whole(self, rows: range) -> bool:
        from safetensors import SafetensorError, safe_open

        path = self._path(rows)
        try:
            with safe_open(path, "pt"):
                return True
        except FileNotFoundError:
            return False
        except (OSError, SafetensorError) as error:
            say(f"{path} is damaged ({error}): it is made again")
            return False
