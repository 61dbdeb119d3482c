"""Where files come from (this disk, an installed package, the model hub) and what they are named by: their digests."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.records.case import BadInput
from harness.records.faults import no_memory

if TYPE_CHECKING:
    from torch import Tensor

PACKAGED = "pkg://"
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def path_of(source: str | Path) -> Path:
    """The path that is written, here or in a package (`pkg://package/inside`), whether it exists or not.

    BadInput where there is no such package.
    """
    if not str(source).startswith(PACKAGED):
        return Path(source).expanduser()
    package, _, inside = str(source).removeprefix(PACKAGED).partition("/")
    try:
        return Path(str(files(package).joinpath(inside)))
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise BadInput(
            f"{source} names no package that is installed: write {PACKAGED}package/path, or a path"
        ) from error


def unreachable() -> tuple[type[Exception], ...]:
    """What the hub's client raises where the hub, or something on it, is out of reach."""
    from huggingface_hub.errors import HfHubHTTPError

    # The base of the hub's own error is that of its HTTP client, whichever one this version of it uses.
    return OSError, ValueError, cast(type[Exception], HfHubHTTPError.__bases__[0])


@contextmanager
def reaching_hub(failed: str, remedy: str) -> Iterator[None]:
    """While open, a hub out of reach is BadInput that begins with what failed and ends with the remedy."""
    try:
        yield
    except unreachable() as error:
        if no_memory(error):
            raise
        raise BadInput(f"{failed} ({type(error).__name__}): get online, or {remedy}") from error


def sha256(path: Path) -> str:
    """A file's digest in hex, taken again when its time or size changes."""
    status = path.stat()
    return _sha256(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    """The digest of a file of that time and size; the hub's cache names large files by theirs."""
    blob = path.resolve().name
    if len(blob) == 64 and set(blob) <= set("0123456789abcdef"):
        return blob
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """All tensors of a safetensors file and its header; OSError or SafetensorError where it cannot be read."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118, not a dict


def header_of(path: Path) -> dict[str, str]:
    """The header of a safetensors file; nothing where no such file can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def json_of(path: Path, remedy: str = "write the pipeline again with save_pretrained") -> dict[str, Any]:
    """The JSON object in a file; BadInput where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as JSON ({error}): {remedy}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path} holds no JSON object: {remedy}")
    return value
