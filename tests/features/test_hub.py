"""A data set of the hub teaches as a folder does: streamed, shuffled the same way each time, without what is bad."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from test_worlds import BLUE, GREEN, RED, listed, packed, painted, png, world

from harness.features.hub import is_id
from harness.features.world import FolderWorld
from harness.records.case import BadInput, Resolution

SIZE = Resolution(4, 4)
ROWS = [(RED, "red"), (BLUE, "blue"), (GREEN, "green")]


def image_folder(folder: Path) -> None:
    for number, (colour, _) in enumerate(ROWS):
        painted(folder / f"{number}.png", colour)
    listed(folder, *({"file_name": f"{number}.png", "text": text} for number, (_, text) in enumerate(ROWS)))


def parquet(folder: Path) -> None:
    from pyarrow import parquet, table

    pictures = [{"bytes": png(colour), "path": None} for colour, _ in ROWS]
    parquet.write_table(table({"image": pictures, "caption": [text for _, text in ROWS]}), folder / "0.parquet")


def webdataset(folder: Path) -> None:
    for number, (colour, text) in enumerate(ROWS):
        packed(folder / f"{number}.tar", {f"{number}.png": png(colour), f"{number}.txt": text.encode()})


def told_in_json(folder: Path) -> None:
    for number, (colour, text) in enumerate(ROWS):
        told = f'{{"caption": "{text}"}}'.encode()
        packed(folder / f"{number}.tar", {f"{number}.png": png(colour), f"{number}.json": told})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What lies in this folder is what `owner/name` names on the hub."""
    load, folder = datasets.load_dataset, tmp_path / "hub"
    folder.mkdir()

    def from_folder(name: str, revision: str | None, **more: Any) -> Any:
        assert (name, revision) == ("owner/name", "abc")
        return load(str(folder), cache_dir=str(tmp_path / "cache"), **more)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    return folder


def taught(found: FolderWorld, n: int, start: int = 0) -> list[tuple[tuple[int, ...], str]]:
    rows = []
    for images, captions in found.training(n, SIZE, start=start):
        colours = [tuple(int(255 * value) for value in image[:, 0, 0].tolist()) for image in images]
        rows += list(zip(colours, captions, strict=True))
    return rows


@pytest.mark.parametrize(
    "layout", [image_folder, parquet, webdataset, told_in_json], ids=lambda layout: layout.__name__
)
def test_every_layout_teaches_its_rows_shuffled_the_same_way_each_time(
    hub: Path, layout: Callable[[Path], None]
) -> None:
    layout(hub)
    found = world(None, training_folder="owner/name@abc")
    found.require_training(3)
    rows = taught(found, 3)
    assert sorted(rows) == sorted(ROWS)
    assert rows == taught(world(None, training_folder="owner/name@abc"), 3)
    assert taught(found, 2) == rows[:2]
    assert taught(found, 3, start=2) == rows[2:]
    assert found.notes == ()


def test_a_sorted_data_set_is_not_taught_in_its_order(hub: Path) -> None:
    for number in range(40):
        painted(hub / f"{number:02}.png", RED)
    listed(hub, *({"file_name": f"{number:02}.png", "text": f"{number:02}"} for number in range(40)))
    captions = [caption for _, caption in taught(world(None, training_folder="owner/name@abc"), 40)]
    assert captions != sorted(captions) == [f"{number:02}" for number in range(40)]


def test_a_bad_row_is_left_out_named_and_counted(hub: Path) -> None:
    image_folder(hub)
    (hub / "1.png").write_bytes(b"no picture")
    found = world(None, training_folder="owner/name@abc")
    assert sorted(taught(found, 3)) == sorted([ROWS[0], ROWS[2]])
    (note,) = found.notes
    assert note.startswith("1 entries of world own to learn from were left out: owner/name ")
    assert "1.png is no image of a kind that is read" in note


def test_a_data_set_without_captions_or_without_images_is_one_sentence(hub: Path) -> None:
    painted(hub / "a.png", RED)
    with pytest.raises(BadInput, match=r"the data set owner/name has columns image: one of .* captions"):
        world(None, training_folder="owner/name@abc").require_training(1)
    (hub / "a.png").unlink()
    listed(hub, {"text": "red"}, name="rows.jsonl")
    with pytest.raises(BadInput, match=r"the data set owner/name has columns text: one of .* has to hold images"):
        world(None, training_folder="owner/name@abc").require_training(1)


def test_a_data_set_is_named_by_its_revision_which_the_hub_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world(None, training_folder="owner/name@abc").taught_on() == "owner/name@abc"
    asked = SimpleNamespace(dataset_info=lambda name: SimpleNamespace(sha=f"sha of {name}"))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: asked)
    assert world(None, training_folder="owner/name").taught_on() == "owner/name@sha of owner/name"


@pytest.mark.parametrize("ask", [FolderWorld.taught_on, partial(FolderWorld.require_training, n=1)])
def test_a_name_that_is_neither_here_nor_on_the_hub_is_one_sentence(ask: Callable[[FolderWorld], None]) -> None:
    with pytest.raises(BadInput, match=r"'owner/none' is no folder here, and no data set of the hub .*: give a"):
        ask(world(None, training_folder="owner/none"))


def test_without_the_package_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=r"'owner/name' is no folder here; .* pip install 'deltabench\[datasets\]'"):
        world(None, training_folder="owner/name@abc").require_training(1)


def test_what_is_here_is_no_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_id("owner/name")
    assert is_id("owner/name@v1.0")
    painted(tmp_path / "owner" / "name" / "a.png", RED)
    assert not is_id("owner/name")
    assert not is_id("/data/owner/name")
    assert not is_id("folder")
