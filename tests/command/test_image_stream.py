"""Images flow by: one batch at a time, all metrics in one pass, and a run that was killed makes none twice."""

import gc
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from test_run import Brightness, made, streams  # noqa: F401, `made` is a fixture

from harness.features.kept import Reader
from harness.image_stream import References
from harness.kept_images import Keeping, png
from harness.records.case import BadInput, Resolution
from harness.records.record import Reading
from harness.records.store import Store
from harness.run import run

pytestmark = pytest.mark.usefixtures("cache")
SIZES = {"resolutions": [32], "n": 5, "batch": 2}


@dataclass(frozen=True)
class Contrast(Brightness):
    """A second metric that looks at images."""

    def readers(self, trial) -> list[Reader]:
        return [Reader("contrast/v1", lambda images: images.std(dim=(1, 2, 3)))]

    def __call__(self, trial) -> Iterator[Reading]:
        (contrast,) = self.readers(trial)
        yield Reading("contrast", "contrast", float(trial.rows(contrast).mean()), "1", "higher", "contrast/v1")


@pytest.fixture
def generated(made, monkeypatch) -> list[int]:  # noqa: F811
    """How many images each call of the model makes; `stop_at` ends the run at that call."""
    (model,) = made({"brightness": Brightness()}).catalog.models.values()
    calls, plain = _Calls(), type(model).generate

    def generate(self, prompts, *arguments):
        if len(calls) == calls.stop_at:
            raise KeyboardInterrupt
        calls.append(len(prompts))
        return plain(self, prompts, *arguments)

    monkeypatch.setattr(type(model), "generate", generate)
    return calls


class _Calls(list[int]):
    stop_at = -1


def values(folder) -> dict[str, float]:
    (record,) = Store(folder).records()
    return {reading.name: reading.value for reading in record.readings}


def test_all_metrics_are_fed_by_one_pass(made, generated, tmp_path):  # noqa: F811
    run(made({"brightness": Brightness(), "contrast": Contrast()}, **SIZES), streams()[0])
    assert generated == [2, 2, 1]
    assert values(tmp_path / "out").keys() == {"brightness", "contrast"}


def test_a_run_killed_inside_a_case_goes_on_at_its_batch_to_the_same_bits(made, generated, tmp_path):  # noqa: F811
    metrics = {"brightness": Brightness(), "contrast": Contrast()}
    run(made(metrics, **SIZES, out=tmp_path / "undisturbed"), streams()[0])
    generated.clear()
    generated.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(made(metrics, **SIZES), streams()[0])
    generated.stop_at = -1
    run(made(metrics, **SIZES), streams()[0])
    assert generated == [2, 2, 1]
    assert values(tmp_path / "out") == values(tmp_path / "undisturbed")
    names = sorted(path.name for path in (tmp_path / "out" / "images").glob("*/*"))
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png", "prompts.json"]


def test_another_metric_on_what_is_kept_makes_no_image_and_more_images_make_those_alone(made, generated):  # noqa: F811
    run(made({"brightness": Brightness()}, **SIZES), streams()[0])
    generated.clear()

    class Darkness(Brightness):
        def __call__(self, trial) -> Iterator[Reading]:
            (brightness,) = self.readers(trial)
            yield Reading("darkness", "darkness", 1 - float(trial.rows(brightness).mean()), "1", "lower", "darkness/v1")

    run(made({"brightness": Brightness(), "darkness": Darkness()}, **SIZES), streams()[0])
    assert generated == []
    run(made({"brightness": Brightness()}, **SIZES | {"n": 8}), streams()[0])
    assert generated[-2:] == [2, 2]


def test_what_is_asked_for_again_is_made_again(made, generated, tmp_path):  # noqa: F811
    run(made({"brightness": Brightness()}, **SIZES), streams()[0])
    for file in (tmp_path / "out").rglob("*.*"):
        os.utime(file, (1, 1))
    run(made({"brightness": Brightness()}, **SIZES, again=True), streams()[0])
    assert generated == [2, 2, 1] * 2


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (3, 3), ("all", 5), (99, 5)])
def test_as_many_images_are_kept_as_asked_for(made, tmp_path, keep, kept):  # noqa: F811
    run(made({"brightness": Brightness()}, **SIZES, keep=keep), streams()[0])
    (record,) = Store(tmp_path / "out").records()
    assert sorted(record.artifacts) == [f"image/{index}" for index in range(kept)]
    assert len(list((tmp_path / "out" / "images").glob("*/*.png"))) == kept
    assert len(json.loads((tmp_path / "out" / "images" / record.case.key / "prompts.json").read_text())) == kept


def test_more_images_are_kept_of_a_case_whose_numbers_are_known(made, generated, tmp_path):  # noqa: F811
    run(made({"brightness": Brightness(), "contrast": Contrast()}, **SIZES, keep=1), streams()[0])
    before = values(tmp_path / "out")
    generated.clear()
    run(made({"brightness": Brightness(), "contrast": Contrast()}, **SIZES, keep=3), streams()[0])
    assert generated == [2, 2]
    (record,) = Store(tmp_path / "out").records()
    assert sorted(record.artifacts) == ["image/0", "image/1", "image/2"]
    assert values(tmp_path / "out") == before
    run(made({"brightness": Brightness(), "contrast": Contrast()}, **SIZES, keep=2), streams()[0])
    assert generated == [2, 2]


def test_kept_images_of_other_prompts_are_none_of_these(tmp_path):
    before, after, more = (Keeping(tmp_path).pictures("key", prompts) for prompts in ("ab", "ac", "abc"))
    before.keep(range(2), torch.zeros(2, 3, 8, 8))
    assert after.lack(range(2))
    assert not after.lack(range(2, 4))
    assert not more.lack(range(2))
    after.real(lambda row: torch.zeros(3, 8, 8))
    after.real(lambda row: torch.ones(3, 8, 8))
    assert (tmp_path / "images" / "key" / "real_0.png").read_bytes() == png(torch.ones(3, 8, 8))


@pytest.mark.parametrize("keep", [-1, 2.5, True, "some"])
def test_what_says_no_number_of_images_is_refused(made, keep):  # noqa: F811
    with pytest.raises(BadInput, match=f"keep={keep} is not possible: give how many images of a case to keep, or all"):
        made({"brightness": Brightness()}, keep=keep)


def test_images_that_cannot_be_written_fail_their_case_and_cost_no_number(made, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images").write_text("in the way")
    assert run(made({"brightness": Brightness()}, **SIZES), streams()[0]) == 1
    (record,) = Store(tmp_path / "out").records()
    assert record.status == "failed"
    assert record.reason.startswith(("FileExistsError", "NotADirectoryError"))
    assert record.reading("brightness").value is not None


def test_no_more_than_a_few_batches_of_images_are_alive_at_any_time(made):  # noqa: F811
    """Counted in pixels: every float tensor that holds an image or more."""
    most = 0

    class Watches(Brightness):
        def readers(self, trial) -> list[Reader]:
            def read(images: torch.Tensor) -> torch.Tensor:
                nonlocal most
                most = max(most, _images_alive())
                return images.mean(dim=(1, 2, 3))

            return [Reader("watches/v1", read)]

    before = _images_alive()
    job = made({"watches": Watches()}, resolutions=[32], n=40, batch=2).jobs()[0]
    list(Watches()(job.trial()))
    assert most - before <= 3 * 2


def _images_alive() -> int:
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    return sum(len(each) for each in tensors if each.ndim == 4 and each.shape[1:] == (3, 32, 32))


@dataclass
class _Drawn:
    """A world that notes how many real images it makes at once."""

    asked: list[int] = field(default_factory=list)

    def references(self, count: int, resolution: Resolution, start: int) -> torch.Tensor:
        self.asked.append(count - start)
        return torch.zeros(count - start, 3, 1, 1).expand(-1, -1, resolution.height, resolution.width)


def test_of_large_real_images_fewer_are_read_at_once(tmp_path):
    mean = Reader("mean/v1", lambda images: images.mean(dim=(1, 2, 3)))
    for size, most in ((64, 64), (1024, 8), (8192, 1)):
        world = _Drawn()
        found = References(world, Resolution(size, size), Keeping(tmp_path / str(size), 0)).rows(mean, 20)  # type: ignore[arg-type]
        assert len(found) == 20
        assert max(world.asked) == min(most, 20)
