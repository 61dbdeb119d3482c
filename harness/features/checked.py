"""Captioned images that were read to the end before anything is made of them: what is bad is named, or left out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.features.caption import NoCaption, caption
from harness.features.listing import Entry, Source
from harness.features.picture import Unreadable, read
from harness.records.case import BadInput
from harness.records.spelled import digest, spelled

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


class Checked:
    """Entries whose pictures and captions were read to the end, in order; it looks as far ahead as it is asked."""

    def __init__(self, found: Sequence[Entry], skip_bad: bool, remedy: str) -> None:
        self._found, self._skip_bad, self._remedy = found, skip_bad, remedy
        self._seen = 0
        self.good: list[Entry] = []
        self.bad: list[str] = []

    def first(self, n: int) -> list[Entry]:
        """The first n that are good, or as many as there are; BadInput names bad ones that are not to be skipped."""
        while len(self.good) < n and self._seen < len(self._found):
            entry = self._found[self._seen]
            self._seen += 1
            why = fault(entry)
            if why:
                self.bad.append(f"{entry.name} {why}")
            else:
                self.good.append(entry)
        if self.bad and not self._skip_bad:
            raise refused(self.bad, self._remedy)
        return self.good[:n]

    def require(self, n: int) -> None:
        """BadInput where there are neither n captioned images nor captions alone."""
        good = self.first(n)
        if good and all(entry.source is None for entry in good):
            return
        if len(good) < n:
            raise BadInput(
                f"{len(good)} entries can serve to distil a student on, and train.samples={n} asks for more: lower it "
                "or add images"
            )
        if alone := next((entry for entry in good if entry.source is None), None):
            raise BadInput(f"{alone.name} is a caption without an image: nothing can be distilled on it")

    def fingerprint(self) -> str:
        """A digest of all entries, good or bad, without reading a picture."""
        found = [[entry.name, str(entry.caption), entry.category, _held(entry.source)] for entry in self._found]
        return digest([found, self._skip_bad])


def fault(entry: Entry) -> str:
    """Why an entry cannot serve, or nothing."""
    try:
        caption(entry.caption)
        if entry.source is not None:
            picture(entry)
    except (NoCaption, Unreadable, BadInput) as error:
        return str(error)
    return ""


def refused(bad: Sequence[str], remedy: str) -> BadInput:
    """What is said of bad entries that are not to be left out."""
    return BadInput(f"{few(bad)}: mend what is named, drop it from the list, or leave it out with {remedy}")


def few(bad: Sequence[str]) -> str:
    """The first of them, and how many more."""
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return "; ".join(bad[:3]) + more


def _held(source: Source) -> Any:
    """What can be known of a picture without reading it: size and time of its file, and where it lies inside."""
    path = source if isinstance(source, Path) else getattr(source, "path", None)
    if path is None:
        return None
    status = path.stat() if path.exists() else None
    inside = [] if isinstance(source, Path) else spelled(source)["settings"]
    return [path.name, inside, status and status.st_size, status and status.st_mtime_ns]


def picture(entry: Entry) -> "Picture":
    """The picture of an entry; Unreadable says why not."""
    if entry.source is None:
        raise Unreadable("is a prompt without a picture: there is nothing to compare with")
    return read(entry.source if isinstance(entry.source, Path) else entry.source())
