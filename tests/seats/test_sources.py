"""Where a file of weights is found: in a package, on the hub (never more than is wanted), and what names it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from harness.models import weights
from harness.records.case import BadInput
from harness.seats import checkpoint, sources


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """A hub whose one folder holds files of these names; gives the list of what is downloaded from it."""

    def make(*names: str, reachable: bool = True) -> list[Any]:
        fetched: list[Any] = []
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")

        def listed(repository: str) -> list[str]:
            if not reachable:
                raise ConnectionError("no network")
            return list(names)

        def snapshot(repository: str, allow_patterns: Any = None, local_files_only: bool = False) -> str:
            if not local_files_only:
                fetched.append(allow_patterns)
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "list_repo_files", listed)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        return fetched

    return make


def test_one_file_of_a_hubs_folder_is_fetched_and_nothing_below_it(hub: Any, tmp_path: Path) -> None:
    fetched = hub("config.json", "blocks.safetensors", "unet/model.safetensors")
    assert checkpoint.find("owner/name") == tmp_path / "blocks.safetensors"
    assert fetched == [["blocks.safetensors", "*.json"]]
    assert checkpoint.find("owner/name/unet/model.safetensors") == tmp_path / "unet/model.safetensors"
    assert fetched[1:] == [["unet/model.safetensors", "*.json"]]


@pytest.mark.parametrize(
    ("names", "source", "sentence"),
    [
        (["a.safetensors", "b.safetensors"], "owner/name", r"one .safetensors file .* in owner/name and there is 2 of"),
        (["unet/model.safetensors"], "owner/name", "one .safetensors file .* in owner/name and there is none: give"),
        (["model.bin"], "owner/name", "model.bin is a pickle, and loading a pickle can run any code"),
        (["model.bin"], "owner/name/model.bin", "model.bin is a pickle, and loading a pickle can run any code"),
        (["notes.txt"], "owner/name/notes.txt", "notes.txt is no .safetensors file: give"),
    ],
)
def test_what_would_be_refused_is_not_downloaded(hub: Any, names: list[str], source: str, sentence: str) -> None:
    fetched = hub(*names)
    with pytest.raises(BadInput, match=f"^{sentence}"):
        checkpoint._downloaded(source)
    assert fetched == []


def test_without_a_network_the_hubs_cache_says_what_there_is(hub: Any, tmp_path: Path) -> None:
    hub("blocks.safetensors", reachable=False)
    assert checkpoint.find("owner/name") == tmp_path / "blocks.safetensors"


def test_a_file_is_hashed_once_until_it_changes_and_not_at_all_where_the_hubs_cache_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr(hashlib, "file_digest", counted(hashlib.file_digest, hashed))
    path = tmp_path / "blocks.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    first = checkpoint.digest(path)
    assert checkpoint.digest(path) == first == checkpoint.digest(tmp_path)
    assert len(hashed) == 1
    save_file({"a": torch.zeros(2)}, path)
    assert checkpoint.digest(path) != first
    assert len(hashed) == 2
    name = hashlib.sha256(path.read_bytes()).hexdigest()
    blob, linked = path.rename(tmp_path / name), tmp_path / "linked.safetensors"
    linked.symlink_to(blob)
    assert sources.sha256(linked) == name
    assert len(hashed) == 2


def counted(function: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        calls.append(args)
        return function(*args)

    return call


@pytest.mark.parametrize("find", [checkpoint.local, weights.local])
def test_a_package_that_is_not_installed_is_said(find: Callable[[str], Path | None]) -> None:
    for source in ("pkg://no_such_package/x.safetensors", "pkg:///x"):
        with pytest.raises(BadInput, match=rf"^{source} names no package that is installed: write pkg://package/path"):
            find(source)
