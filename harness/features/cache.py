"""Features that were computed once: rows addressed by what they depend on.

A row's address hashes the protocol (which holds the extractor, its weights' hash, the pixel steps and the precision)
and the image's bytes, so that the same image in another batch, another case or another run is found again.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from harness.records.spelled import Inert


@dataclass(frozen=True)
class FeatureCache(Inert):
    """Rows in memory and, where a folder is given, in one safetensors file for each protocol."""

    folder: str | Path | None = None
    _rows: dict[str, dict[str, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rows(self, protocol: str, images_N3HW: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, D) features; `compute` is called with the images that are not known yet, if any."""
        known = self._rows.setdefault(protocol, {})
        if not known:
            known.update(self._read(protocol))
        addresses = [address(image) for image in images_N3HW]
        missing = {name: i for i, name in enumerate(addresses) if name not in known}
        if missing:
            fresh = compute(images_N3HW[list(missing.values())])
            known.update({name: row.clone() for name, row in zip(missing, fresh, strict=True)})
            self._write(protocol, known)
        return torch.stack([known[name] for name in addresses])

    def _path(self, protocol: str) -> Path | None:
        name = hashlib.sha256(protocol.encode()).hexdigest()[:16]
        return None if self.folder is None else Path(self.folder) / f"{name}.safetensors"

    def _read(self, protocol: str) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(protocol)
        if path is None or not path.exists():
            return {}
        try:
            return load_file(path)
        except SafetensorError:  # cut short by a crash of the machine: computed again and written whole
            return {}

    def _write(self, protocol: str, known: dict[str, Tensor]) -> None:
        from safetensors.torch import save_file

        path = self._path(protocol)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.part")
        save_file(known, fresh, {"protocol": protocol})
        os.replace(fresh, path)


def address(image: Tensor) -> str:
    """Hash of one image's type, shape and bytes."""
    array = image.detach().cpu().contiguous().numpy()
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
