"""What students learn from: encoded once, kept in files, made again where they are damaged, and never by surprise."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from torch import Tensor
from worlds import Noise

from harness.distillation import encoded, shards
from harness.distillation.samples import Samples
from harness.models.model import Model
from harness.records.case import BadInput, Resolution

SIZE = Resolution(32, 32)


class Slow(Noise):
    """A few pictures at a time; asked for more than `stop`, it is as if the process were killed."""

    def __init__(self, stop: int = 99, by: int = 3) -> None:
        self.stop, self.by, self.starts = stop, by, list[int]()
        self.notes = ("1 entry of world noise was left out",)  # type: ignore[assignment]

    def taught_on(self) -> str:
        return "noise"

    def training(
        self, n: int, resolution: Resolution, device: str, start: int = 0
    ) -> Iterator[tuple[Tensor, list[str]]]:
        self.starts.append(start)
        ((images, captions),) = super().training(n, resolution, device, start)
        for first in range(0, n - start, self.by):
            if start + first >= self.stop:
                raise KeyboardInterrupt
            yield images[first : first + self.by], captions[first : first + self.by]


@pytest.fixture(autouse=True)
def files_of_four(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (shards, encoded):
        monkeypatch.setattr(module, "ROWS", 4)
    return cache / "encoded"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return tiny_pipelines.model("sd", tmp_path / "teacher").load()


def drawn(model: Model, world: Noise, n: int = 10) -> list[Tensor]:
    """Everything that the first steps see."""
    samples = Samples(model, world, [SIZE, Resolution(40, 32)], n, 4, 0.3, 5)  # type: ignore[arg-type]
    batches = [samples(step) for step in range(4)]
    return [
        tensor for batch in batches for tensor in (*batch.arguments.values(), batch.target_BChw) if tensor is not False
    ]


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(map(torch.equal, found, wanted))


def test_the_next_student_of_a_model_and_a_world_encodes_nothing_and_sees_the_same(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = drawn(model, Slow())
    said = capsys.readouterr().err
    assert "encoding 10 images of noise at 32 for tiny, kept in" in said
    assert "1 entry of world noise was left out" in said
    for way in ("encode", "text_states_at_once"):
        monkeypatch.setattr(model, way, None)
    assert same(drawn(model, Slow(stop=0)), first)
    assert capsys.readouterr().err == ""


def test_it_is_what_a_model_makes_of_a_world_by_itself(model: Model) -> None:
    samples = Samples(model, Slow(), [SIZE], 10, 4, 0.0, 5)  # type: ignore[arg-type]
    ((images, captions),) = Noise().training(10, SIZE, "cpu")
    rows = torch.tensor([9, 0, 4])
    torch.testing.assert_close(samples.latents[SIZE][rows]["latents"], model.encode(images[rows]))
    wanted = model.text_states_at_once([captions[row] for row in rows])
    for name, states in samples.text[rows].items():
        torch.testing.assert_close(states, wanted[name])


@pytest.mark.parametrize(("n", "trained"), [(20, 12), (6, 3), (2, 1)])
def test_learning_curves_are_taken_on_images_that_no_step_sees(
    model: Model, monkeypatch: pytest.MonkeyPatch, n: int, trained: int
) -> None:
    samples, clean, asked = Samples(model, Slow(), [SIZE], n, 4, 0.0, 5), Samples.clean, list[Tensor]()  # type: ignore[arg-type]
    monkeypatch.setattr(Samples, "clean", lambda self, size, rows: clean(self, size, asked.append(rows) or rows))
    for step in range(40):
        samples(step)
    assert set(torch.cat(asked).tolist()) == set(range(trained))
    asked.clear()
    held = samples.fixed(8)
    for step in range(40):
        held(step)
    assert set(torch.cat(asked).tolist()) == set(range(trained, n))


class Prompts(Noise):
    """Captions alone."""

    def to_draw(self, n: int) -> list[str]:
        return [f"cat {number}" for number in range(n)]


def test_of_captions_alone_the_teacher_draws_the_images(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    samples = Samples(model, Prompts(), [SIZE], 6, 4, 0.0, 5)  # type: ignore[arg-type]
    assert "noise teaches captions alone: tiny draws 6 images of noise at 32" in capsys.readouterr().err
    drawn = model.generate([f"cat {number}" for number in range(6)], [*range(6)], SIZE, 50, 7.5)  # as its pipeline does
    torch.testing.assert_close(samples.clean(SIZE, torch.arange(6)), model.encode(drawn), atol=1e-2, rtol=1e-2)
    assert samples.latents[SIZE].texts(range(4)) == [f"cat {number}" for number in range(4)]


def test_rows_that_a_device_holds_are_those_of_the_files(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Samples(model, Slow(), [SIZE], 10, 4, 0.0, 5).text  # type: ignore[arg-type]
    rows = torch.tensor([9, 0, 4, 4])
    from_files = text[rows]
    monkeypatch.setattr(shards, "ON_DEVICE_BYTES", 1)
    text.hold(rows.device)
    assert text._held is None
    monkeypatch.setattr(shards, "ON_DEVICE_BYTES", 2**31)
    text.hold(rows.device)
    monkeypatch.delattr(shards.Shards, "_row")
    assert all(torch.equal(text[rows][name], states) for name, states in from_files.items())


def test_an_encoding_that_was_killed_goes_on_at_the_file_where_it_stopped(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Slow(stop=6, by=2)
    with pytest.raises(KeyboardInterrupt):
        drawn(model, stopped)
    again = Slow(by=2)
    found = drawn(model, again)
    assert (stopped.starts, again.starts) == ([0], [4, 0])
    monkeypatch.setenv("DELTABENCH_CACHE", str(tmp_path / "undisturbed"))
    assert same(found, drawn(model, Slow(by=2)))


def test_a_damaged_file_alone_is_made_again_and_said(
    model: Model, files_of_four: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = drawn(model, Slow())
    for damaged in files_of_four.rglob("4-8.safetensors"):
        damaged.write_bytes(damaged.read_bytes()[:-7])
    whole = {path: path.stat().st_mtime_ns for path in files_of_four.rglob("0-4.safetensors")}
    capsys.readouterr()
    world = Slow()
    assert same(drawn(model, world), first)
    assert world.starts == [4, 4]
    said = capsys.readouterr().err
    assert said.count("4-8.safetensors is damaged") == 3
    assert "encoding 4 images" in said
    assert {path: path.stat().st_mtime_ns for path in whole} == whole


def test_another_model_or_another_world_is_encoded_by_itself(model: Model, files_of_four: Path, tmp_path: Path) -> None:
    drawn(model, Slow())
    drawn(model, Noise())
    drawn(tiny_pipelines.model("sigma", tmp_path / "other").load(), Slow())
    assert len(list(files_of_four.iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_said_in_a_sentence(model: Model, cache: Path) -> None:
    cache.write_text("in the way")
    with pytest.raises(BadInput, match=r"is kept in .*, which cannot be written .*set DELTABENCH_CACHE to a folder"):
        drawn(model, Slow())


def test_a_full_disk_is_said_in_a_sentence_and_nothing_half_stays(
    model: Model, files_of_four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BadInput, match=r"cannot be written \(No space left on device\): free space there"):
        drawn(model, Slow())
    assert not [path for path in files_of_four.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_world_that_teaches_too_little_says_so(model: Model) -> None:
    class Few(Slow):
        def training(
            self, n: int, resolution: Resolution, device: str, start: int = 0
        ) -> Iterator[tuple[Tensor, list[str]]]:
            yield from super().training(6, resolution, device, start)

    with pytest.raises(BadInput, match=r"world 'noise' teaches fewer than 10 images: lower train\.samples"):
        drawn(model, Few())
