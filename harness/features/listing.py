"""Folders of captioned images as people have them, as a list of entries. No picture is opened here.

metadata.jsonl, metadata.csv, ...    one row an image: file_name, text (image folders of Hugging Face)
LAION_10000.json                     img_path, prompt (the paper's list; its paths are another machine's)
*.parquet                            pictures and captions in columns
*.tar                                members of one name: picture, .txt or .json (webdataset, img2dataset)
a/b/1.jpg with a/b/1.txt or .json    in any depth (img2dataset's files)
prompts.txt, or a list of texts      prompts alone
"""

import csv
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from harness.features.caption import text_of
from harness.features.picture import SUFFIXES, regular
from harness.records.case import BadInput

LISTS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
KNOWN = tuple(f"metadata{suffix}" for suffix in LISTS if suffix != ".txt")
IMAGE_COLUMNS = ("file_name", "image", "img_path", "image_path", "path", "filename", "jpg", "png", "webp")
CAPTION_COLUMNS = ("text", "caption", "prompt", "captions", "TEXT")

Source = Path | Callable[[], bytes] | None
"""Where a picture lies: a file, or what gives its bytes; None where there is a prompt alone."""


@dataclass(frozen=True)
class Entry:
    """One captioned image: its name for whoever has to mend it, where it lies, and what its list says of it."""

    name: str
    source: Source
    caption: object
    category: str = ""


def entries(folder: Path, captions: str | None) -> list[Entry]:
    """All entries of a folder (or of a list alone), in the order of its list, or by name where there is none."""
    if folder.is_file():
        folder, captions = folder.parent, folder.name
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r} is no folder and no list: give a folder of images and captions")
    if captions is not None:
        return _listed(folder, _named(folder, captions))
    known = next((folder / name for name in KNOWN if (folder / name).is_file()), None)
    if known is not None:
        return _listed(folder, known)
    for read, pattern in ((_packed, "*.tar"), (_captioned, "*"), (_tabled, "*.parquet")):
        found = [entry for file in sorted(folder.rglob(pattern)) for entry in read(file)]
        if found:
            return found
    raise BadInput(
        f"folder {str(folder)!r} holds no captioned images: add metadata.jsonl with file_name and text, "
        "or a .txt beside each"
    )


def shuffled(found: Sequence[Entry]) -> list[Entry]:
    """In an order that is drawn, the same each time; rows of a table that are read at once stay together."""
    blocks = [list(block) for _, block in groupby(found, _block)]
    random.Random(0).shuffle(blocks)
    return [entry for block in blocks for entry in block]


def _block(entry: Entry) -> object:
    source = entry.source
    return (source.path, source.group) if isinstance(source, _Cell) else entry.name


def _named(folder: Path, captions: str) -> Path:
    path = folder / inside(captions)
    if path.is_file() and path.suffix.lower() in LISTS:
        return path
    there = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in LISTS)[:6]
    raise BadInput(
        f"captions={captions} is no list in {str(folder)!r}: there are {', '.join(there) or 'none'}; "
        f"lists end in {', '.join(LISTS)}"
    )


def inside(name: str) -> str:
    """A path that stays inside its folder; BadInput otherwise."""
    ways = PurePosixPath(name), PureWindowsPath(name)
    if any(way.is_absolute() or ".." in way.parts for way in ways):
        raise BadInput(f"{name!r} points outside of its folder: give paths inside it")
    return name


def _listed(folder: Path, path: Path) -> list[Entry]:
    if path.suffix == ".parquet":
        return _tabled(path)
    try:
        rows = list(_rows(path))
    except (ValueError, csv.Error) as error:
        raise BadInput(f"captions {str(path)!r} cannot be read: {error}") from error
    if not rows:
        raise BadInput(f"captions {str(path)!r} holds nothing: write one row an image")
    return [_entry(folder, path, place, row) for place, row in rows]


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(`line 3`, row) of a list; ValueError says what is wrong. Lines end at line feeds alone: JSON may hold U+2028."""
    text = text_of(path)
    if path.suffix == ".txt":
        yield from ((f"line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip())
    elif path.suffix in (".csv", ".tsv"):
        between = "\t" if path.suffix == ".tsv" else ","
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=between, strict=True)
        yield from ((f"line {reader.line_num}", row) for row in reader)
    elif text.lstrip().startswith("["):
        yield from ((f"row {i}", row) for i, row in enumerate(json.loads(text), 1))
    else:
        for i, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield f"line {i}", json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {i} is not JSON ({error}): write one object a line") from error


def _entry(folder: Path, path: Path, place: str, row: Any) -> Entry:
    """A row in the words of Hugging Face's image folders or of the paper's list; a text alone is a prompt alone."""
    where = f"{path.name} {place}"
    if isinstance(row, str):
        return Entry(where, None, row)
    if not isinstance(row, dict):
        raise BadInput(f"{where} is a {type(row).__name__}: write an object with file_name and text, or a text")
    image, text = column(row, IMAGE_COLUMNS), column(row, CAPTION_COLUMNS)
    if text is None:
        raise BadInput(_no_caption(where, row))
    category = str(row.get("category") or "")
    if image is None:
        return Entry(where, None, row[text], category)
    name = row[image]
    if not isinstance(name, str) or not name:
        raise BadInput(f"{where} names no file in its column {image!r}: write a path inside {str(folder)!r}")
    if image == "img_path":  # the paper's list, written on another machine
        name = PurePosixPath(name).name
        name = name if (folder / name).exists() else f"imgs/{name}"
    try:
        return Entry(name, folder / inside(name), row[text], category)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error


def _no_caption(where: str, there: Iterable[object]) -> str:
    columns = ", ".join(sorted(map(str, there)))
    return f"{where} has no caption in its columns {columns}: name one of them {', '.join(CAPTION_COLUMNS[:3])}"


def column(row: Iterable[str], known: tuple[str, ...]) -> str | None:
    """The first known name among columns."""
    there = set(row)
    return next((name for name in known if name in there), None)


def _captioned(path: Path) -> list[Entry]:
    """A picture with a text or a JSON file of the same name beside it."""
    if path.suffix.lower() not in SUFFIXES:
        return []
    beside = next((path.with_suffix(end) for end in (".txt", ".json") if path.with_suffix(end).is_file()), None)
    return [] if beside is None else [Entry(path.as_posix(), path, _told(beside.as_posix(), beside.read_bytes()))]


def _told(name: str, data: bytes) -> object:
    try:
        text = data.decode("utf-8-sig")
        if not name.endswith(".json"):
            return text
        row = json.loads(text)
        key = column(row, CAPTION_COLUMNS) if isinstance(row, dict) else None
        return row[key] if key else None
    except ValueError as error:
        raise BadInput(f"caption file {name!r} cannot be read ({error}): write UTF-8") from error


def _packed(path: Path) -> list[Entry]:
    """Of a tar file: members whose names differ in their last ending belong together."""
    samples: dict[str, dict[str, _Slice]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                stem, _, ending = member.name.rpartition(".")
                if member.isreg():
                    samples.setdefault(stem, {})[f".{ending.lower()}"] = _Slice(path, member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInput(f"archive {str(path)!r} cannot be read ({error}): fetch it again, uncompressed") from error
    return [entry for stem, parts in samples.items() for entry in _sample(f"{path.name}/{stem}", parts)]


def _sample(name: str, parts: dict[str, "_Slice"]) -> list[Entry]:
    """The entry of members of one name, where a picture is among them."""
    picture = next((ending for ending in SUFFIXES if ending in parts), None)
    told = next((ending for ending in (".txt", ".json") if ending in parts), None)
    if picture is None:
        return []
    return [Entry(name + picture, parts[picture], _told(name + told, parts[told]()) if told else None)]


@dataclass(frozen=True)
class _Slice:
    """Bytes of a file."""

    path: Path
    start: int
    size: int

    def __call__(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def _tabled(path: Path) -> list[Entry]:
    """Of a parquet file: a column of captions, and one of pictures (bytes, or structs with bytes, or paths)."""
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.ParquetFile(path)
        names = table.schema_arrow.names
        image, text = column(names, IMAGE_COLUMNS), column(names, CAPTION_COLUMNS)
        if text is None:
            raise BadInput(_no_caption(path.name, names))
        found: list[Entry] = []
        for group in range(table.num_row_groups):
            captions = table.read_row_group(group, [text]).column(0).to_pylist()
            first = len(found) + 1
            for row, value in enumerate(captions):
                cell = None if image is None else _Cell(path, group, row, image)
                found.append(Entry(f"{path.name} row {first + row}", cell, value))
        return found
    except (ArrowException, OSError) as error:
        raise BadInput(f"table {str(path)!r} cannot be read ({error}): write it again") from error


@dataclass(frozen=True)
class _Cell:
    """A picture in a table: bytes, or a path inside the table's folder."""

    path: Path
    group: int
    row: int
    column: str

    def __call__(self) -> bytes:
        value = _column(self.path, self.group, self.column)[self.row].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return regular(self.path.parent / inside(value)).read_bytes()
        return value or b""


@lru_cache(maxsize=1)
def _column(path: Path, group: int, name: str) -> Any:
    """One column of a group of rows; pictures are asked for in order, so the last group is kept."""
    from pyarrow import parquet

    return parquet.ParquetFile(path).read_row_group(group, [name]).column(0)
