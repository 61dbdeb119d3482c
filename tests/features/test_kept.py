"""Kept rows: read again, made again where they are damaged or old, and no fault where nothing can be kept."""

import os
import stat
import time

import pytest
import torch
from torch import Tensor

from harness.features.kept import Batch, Kept, Reader, read_all

BATCHES = [Batch(range(3), "a"), Batch(range(3, 5), "b")]


class Made:
    """Images whose every pixel is their number, and which numbers were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, rows: range) -> Tensor:
        self.asked += rows
        return torch.tensor(list(rows), dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def mean(scale: float = 1.0, protocol: str = "mean") -> Reader:
    return Reader(protocol, lambda images: scale * images.mean(dim=(1, 2, 3)))


def read(kept: Kept, *readers: Reader) -> tuple[list[list[float]], list[int]]:
    """The rows of each reader, and the images that were made for them."""
    made = Made()
    found = read_all(BATCHES, readers, made, kept)
    return [found[reader.key].tolist() for reader in readers], made.asked


def test_all_readers_see_an_image_in_one_pass_and_it_is_made_once(tmp_path):
    rows, made = read(Kept(tmp_path / "kept"), mean(), mean(2.0, "twice"))
    assert rows == [[0, 1, 2, 3, 4], [0, 2, 4, 6, 8]]
    assert made == [0, 1, 2, 3, 4]
    assert read(Kept(tmp_path / "kept"), mean())[1] == []
    rows, made = read(Kept(tmp_path / "kept"), mean(), mean(3.0, "thrice"))
    assert rows[1] == [0, 3, 6, 9, 12]
    assert made == [0, 1, 2, 3, 4]
    assert read(Kept(tmp_path / "kept"), mean(2.0, "twice"), mean(3.0, "thrice"))[1] == []


def test_without_a_folder_nothing_is_kept():
    kept = Kept(None)
    assert read(kept, mean())[0] == read(kept, mean())[0] == [[0, 1, 2, 3, 4]]
    assert kept.notes == []


@pytest.mark.parametrize("damage", [lambda content: content[:20], lambda content: b"", lambda content: b"\xff" * 64])
def test_a_damaged_file_is_made_again_and_said(tmp_path, damage):
    read(Kept(tmp_path), mean())
    file = tmp_path / "b.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    kept = Kept(tmp_path)
    assert read(kept, mean()) == ([[0, 1, 2, 3, 4]], [3, 4])
    (note,) = kept.notes
    assert note.startswith("kept features b cannot be read (")
    assert note.endswith("): they were made again")
    assert read(Kept(tmp_path), mean())[1] == []


def test_what_was_kept_before_a_moment_is_made_again_once(tmp_path):
    read(Kept(tmp_path), mean())
    for file in tmp_path.iterdir():
        os.utime(file, (1, 1))
    since = time.time() - 60
    assert read(Kept(tmp_path, since), mean())[1] == [0, 1, 2, 3, 4]
    assert read(Kept(tmp_path, since), mean())[1] == []


def test_a_reader_that_breaks_takes_no_others_numbers_along(tmp_path):
    def breaks(images: Tensor) -> Tensor:
        raise ValueError("no such head")

    found = read_all(BATCHES, [Reader("breaks", breaks), mean()], Made(), Kept(tmp_path))
    assert found[mean().key].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="no such head"):
        raise found[Reader("breaks", breaks).key]


def test_a_statistic_of_rows_is_taken_once_and_again_of_other_rows_or_settings(tmp_path):
    taken = []

    def compute() -> list[float]:
        taken.append(1)
        return [0.1, 7]

    rows = torch.arange(6.0)
    for _ in range(2):
        assert Kept(tmp_path).once(["floor", 3], rows, compute) == [0.1, 7]
    Kept(tmp_path).once(["floor", 4], rows, compute)
    Kept(tmp_path).once(["floor", 3], rows + 1, compute)
    assert len(taken) == 3


def test_a_full_disk_keeps_nothing_and_is_no_fault_of_the_numbers(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    kept = Kept(tmp_path)
    assert read(kept, mean())[0] == [[0, 1, 2, 3, 4]]
    assert kept.notes == ["features cannot be kept (No space left on device): another run makes them again"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_or_is_none_keeps_nothing(tmp_path):
    (tmp_path / "file").touch()
    kept = Kept(tmp_path / "file" / "kept")
    assert read(kept, mean())[0] == [[0, 1, 2, 3, 4]]
    assert kept.notes == ["features cannot be kept (Not a directory): another run makes them again"]
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        assert read(Kept(tmp_path / "locked" / "kept"), mean())[0] == [[0, 1, 2, 3, 4]]


def test_a_reader_that_asks_for_numbers_is_told_which_images_it_sees():
    numbers = Reader("numbers", lambda images, rows: torch.tensor(list(rows)), numbered=True)
    assert read(Kept(None), numbers)[0] == [[0, 1, 2, 3, 4]]
