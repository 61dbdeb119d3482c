"""Where an extractor's weights come from (a folder, a package, the hub; safetensors only), and what hash names them."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.records.case import BadInput
from harness.records.faults import no_memory
from harness.records.spelled import digest
from harness.seats.sources import PACKAGED, sha256


def folder_of(source: str | Path) -> Path | None:
    """The local folder that a source means: of a package (`pkg://harness.shapes/weights/dino`), one that exists, or one
    that is written as a path. None for a name on the hub."""
    text = str(source)
    if text.startswith(PACKAGED):
        package, _, inside = text.removeprefix(PACKAGED).partition("/")
        return Path(str(files(package))) / inside
    folder = Path(source).expanduser()
    return folder if folder.is_dir() or isinstance(source, Path) or text.startswith((".", "/", "~")) else None


def fingerprint_of(source: str | Path) -> str:
    """A digest of the files in a local source; a name on the hub is its own."""
    folder = folder_of(source)
    path = Path(source).expanduser() if folder is None else folder
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return digest([[each.name, sha256(each)] for each in files]) if files else str(source)


def local_file(folder: Path, filename: str) -> Path:
    """A file of a local extractor folder; raises BadInput where it is missing."""
    path = folder / filename
    if not path.is_file():
        raise BadInput(
            f"extractor folder {str(folder)!r} has no {filename}: give one that holds it, with weights as safetensors"
        )
    return path


def hub_file(repository: str, filename: str) -> Path:
    """A file of a hub repository, from the local cache or downloaded; raises BadInput where neither works."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repository, filename))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise BadInput(
            f"extractor {repository!r} is neither in the local hub cache nor can {filename} be fetched "
            f"({type(error).__name__}): connect to the network once, or give a local folder"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A configuration; raises BadInput where it is not a JSON object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"configuration {str(path)!r} is not JSON ({error}): save the extractor again") from error
    if not isinstance(data, dict):
        raise BadInput(f"configuration {str(path)!r} is not a JSON object: save the extractor again")
    return data


@contextmanager
def readable(source: str | Path) -> Iterator[None]:
    """Turn what the libraries raise on broken weights or configurations into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except BadInput:
        raise
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        if no_memory(error):
            raise
        why = " ".join(str(error).split())[:200]
        raise BadInput(
            f"extractor {str(source)!r} cannot be loaded ({why}): its weights are damaged or do not fit its config"
        ) from error


def fingerprint(module: nn.Module, *more: Tensor) -> str:
    """Twelve hex digits over names, types, shapes and bytes of all tensors: the same from a folder as from the hub."""
    digest = hashlib.sha256()
    named = [*sorted(module.state_dict().items()), *((str(i), tensor) for i, tensor in enumerate(more))]
    for name, tensor in named:
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
