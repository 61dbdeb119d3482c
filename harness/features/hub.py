"""Captioned images of a data set on the hub, streamed by `datasets`: rows come one by one, shuffled, and none is kept.

It reads image folders, parquet and webdataset archives alike. OWNER/NAME@REVISION is named without asking the hub.
"""

import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from harness.features.checked import fault
from harness.features.listing import CAPTION_COLUMNS, IMAGE_COLUMNS, Entry, column
from harness.records.case import BadInput
from harness.seats.sources import unreachable

ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
SHUFFLED = 256  # rows among which the next is drawn, of files in an order that is drawn as well
PICTURES, WORDS = (*IMAGE_COLUMNS, "jpeg"), (*CAPTION_COLUMNS, "txt")


def is_id(name: str | Path) -> bool:
    """Whether this can be a data set on the hub: it looks like one, and nothing of that name is here."""
    return ID.fullmatch(str(name)) is not None and not Path(name).expanduser().exists()


class Streamed:
    """Rows of a data set's split `train`, shuffled the same way each time. bad: what was left out the last time."""

    def __init__(self, name: str) -> None:
        self.name, _, self.revision = name.partition("@")
        self.bad: list[str] = []

    def first(self, n: int) -> Iterator[Entry]:
        """The first n that are good, or as many as there are."""
        self.bad = []
        return islice(filter(self._is_good, self._entries()), n)

    def require(self, n: int) -> None:
        """BadInput where the data set cannot be streamed, or its first row is no captioned image."""
        if not list(self.first(1)):
            raise BadInput(f"the data set {self.name} holds no captioned images")

    def fingerprint(self) -> str:
        """Its name and revision, which the hub tells where none is given."""
        from huggingface_hub import HfApi

        if not self.revision:
            try:
                self.revision = str(HfApi().dataset_info(self.name).sha)
            except unreachable() as error:
                raise self._unreached(error) from error
        return f"{self.name}@{self.revision}"

    def _is_good(self, entry: Entry) -> bool:
        why = fault(entry)
        if why:
            self.bad.append(f"{entry.name} {why}")
        return not why

    def _entries(self) -> Iterator[Entry]:
        for number, row in enumerate(self._rows(), start=1):
            row |= row.get("json") or {}
            image, text = column(row, PICTURES), column(row, WORDS)
            if image is None or text is None:
                raise BadInput(
                    f"the data set {self.name} has columns {', '.join(row)}: one of {', '.join(PICTURES)} has to hold "
                    f"images, and one of {', '.join(WORDS)} captions"
                )
            held = row[image].get("path") if isinstance(row[image], dict) else None
            yield Entry(f"{self.name} {held or f'row {number} as shuffled'}", partial(_bytes, row[image]), row[text])

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise BadInput(
                f"{self.name!r} is no folder here; to stream it from the hub: pip install 'deltabench[datasets]'"
            ) from error
        try:
            found = load_dataset(self.name, split="train", streaming=True, revision=self.revision or None)
        except unreachable() as error:
            raise self._unreached(error) from error
        yield from found.decode(False).shuffle(seed=0, buffer_size=SHUFFLED)

    def _unreached(self, error: Exception) -> BadInput:
        said = " ".join(str(error).split())[:200]
        return BadInput(
            f"{self.name!r} is no folder here, and no data set of the hub that can be streamed ({said}): give a folder "
            "of captioned images, or OWNER/NAME"
        )


def _bytes(value: Any) -> bytes:
    """A picture's bytes, which lie in the row or in a file that it names."""
    import fsspec

    if not isinstance(value, dict):
        return value if isinstance(value, bytes) else b""
    if value.get("bytes"):
        return bytes(value["bytes"])
    with fsspec.open(value["path"], "rb") as file:
        return bytes(file.read())
