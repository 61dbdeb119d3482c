"""Where an extractor's weights come from (a folder, a package, the hub; safetensors only), and what hash names them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.records.case import BadInput
from harness.records.faults import no_memory
from harness.records.spelled import digest
from harness.seats.sources import PACKAGED, json_of, path_of, reaching_hub, sha256


def folder_of(source: str | Path) -> Path | None:
    """The local folder that a source means: of a package (`pkg://harness.shapes/weights/dino`), one that exists, or one
    that is written as a path. None for a name on the hub."""
    folder = path_of(source)
    written = isinstance(source, Path) or source.startswith((".", "/", "~", PACKAGED))
    return folder if written or folder.is_dir() else None


def fingerprint_of(source: str | Path) -> str:
    """A digest of the files in a local source; a name on the hub is its own."""
    folder = folder_of(source)
    path = Path(source).expanduser() if folder is None else folder
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return digest([[each.name, sha256(each)] for each in files]) if files else str(source)


def local_file(folder: Path, filename: str) -> Path:
    """A file of a local extractor folder; BadInput where it is missing, or is to be JSON and is not."""
    path = folder / filename
    if not path.is_file():
        raise BadInput(
            f"extractor folder {str(folder)!r} has no {filename}: give one that holds it, with weights as safetensors"
        )
    if path.suffix == ".json":
        json_of(path, "save the extractor again")
    return path


def hub_file(repository: str, filename: str) -> Path:
    """A file of a hub repository, from the local cache or downloaded; raises BadInput where neither works."""
    from huggingface_hub import hf_hub_download

    failed = f"extractor {repository!r} is neither in the local hub cache nor can {filename} be fetched"
    with reaching_hub(failed, "give a local folder"):
        return Path(hf_hub_download(repository, filename))


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
