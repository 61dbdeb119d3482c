"""Measured memory: the kernel's mark found for blocks of known size, and projections beside it.

Run by test_peak_memory.py in a process of its own: what other tests left on the heap would be used again, and
look free.
"""

from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from baselines import NeighborhoodAttention
from deltaconv import DeltaConvBlock
from harness.counted.live_bytes import rise_of
from harness.measured import peak_memory
from harness.measured.malloc import MallInfo
from harness.measured.peak_memory import PeakMemory, measure, resident_rise
from harness.records.case import Resolution
from harness.seats import processor
from harness.seats.mixer import Unavailable

MIB = 2**20
UNSEEN = 3 * peak_memory.LAG
"""What the kernel's counters may leave out: those of allocated pages, read twice, and that of files, which may move."""
PRELOADED = SimpleNamespace(mallinfo2=lambda: MallInfo(), malloc=lambda size: 1, free=lambda block: None)
"""A C library whose malloc is not its own: what is allocated does not show."""
needs_mark = pytest.mark.skipif(not peak_memory.CLEAR.exists(), reason="the kernel keeps no mark that can be set back")


def least(work: Callable[[], object]) -> int:
    """The rise as PeakMemory takes it: a first call pays for what stays."""
    return min(resident_rise(work) for _ in range(peak_memory.LEAST))


@needs_mark
@pytest.mark.parametrize("size", [32 * MIB, 64 * MIB])
def test_the_rise_of_a_block_is_its_size(size: int) -> None:
    assert least(lambda: torch.ones(size // 4).sum()) == pytest.approx(size, abs=UNSEEN)


@needs_mark
def test_blocks_that_were_freed_before_do_not_hide_a_peak() -> None:
    """Of heap size: glibc would keep these resident, and their second use would look free."""

    def work() -> None:
        blocks = [torch.ones(25_000) for _ in range(320)]
        del blocks

    work()
    assert least(work) == pytest.approx(32_000_000, rel=0.1, abs=UNSEEN)


@needs_mark
def test_a_peak_inside_the_call_is_found_after_it_is_gone() -> None:
    assert least(lambda: (torch.ones(16 * MIB), torch.ones(1))[1]) == pytest.approx(64 * MIB, abs=UNSEEN)


@needs_mark
@pytest.mark.parametrize("channels", [(32, 32), (64, 16), (4, 32)], ids=str)
def test_a_convolution_needs_on_the_cpu_what_is_projected(channels: tuple[int, int]) -> None:
    """The kernels' own buffers beside the copies are the tolerance. The first call generates the kernel."""
    x, layer = torch.ones(1, channels[0], 256, 256), nn.Conv2d(*channels, 3, padding=1)
    projected = rise_of(layer.to("meta"), x.to("meta")).size
    layer = layer.to_empty(device="cpu")
    with torch.no_grad():
        assert least(lambda: layer(x)) == pytest.approx(projected, rel=0.05, abs=UNSEEN)


@needs_mark
@pytest.mark.parametrize("mixer", [NeighborhoodAttention(320, 8, 13), DeltaConvBlock(320, 13)], ids=["near", "delta"])
def test_a_mixer_needs_at_every_size_what_is_projected(mixer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is linear in the tokens (tests/mixers/test_mixers_memory.py); buffers of the kernels are the tolerance.

    In the layout that the projection assumes, whichever is faster on this processor.
    """
    monkeypatch.setattr(processor, "_try_both", lambda *given: False)
    for side in (64, 128):
        tokens, grid = torch.zeros(1, side * side, 320), (side, side)
        projected = rise_of(deepcopy(mixer).to("meta"), tokens.to("meta"), grid).size
        with torch.no_grad():
            rise = least(lambda x=tokens, grid=grid: mixer(x, grid))  # type: ignore[misc]
        assert rise == pytest.approx(projected, rel=0.03, abs=UNSEEN)


@needs_mark
@pytest.mark.parametrize("files", [[90, 50, 90, 90], [50, 90, 90, 90]], ids=["taken back", "come in"])
def test_a_call_during_which_pages_of_files_moved_is_made_again(
    files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter(files)
    monkeypatch.setattr(peak_memory, "resident", lambda field: next(script) * MIB if field == "RssFile" else 100 * MIB)
    calls: list[int] = []
    assert resident_rise(lambda: calls.append(1)) == 0
    assert len(calls) == 2


@needs_mark
@pytest.mark.parametrize(("step", "said"), [(-100, r"-\d+ bytes"), (100, r"\+\d+ bytes")])
def test_a_system_that_moves_pages_all_the_time_gives_a_dash(
    step: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter(range(0, 20 * step, step))
    monkeypatch.setattr(peak_memory, "resident", lambda field: next(script) * MIB if field == "RssFile" else 100 * MIB)
    with pytest.raises(Unavailable, match=f"during each of 5 calls, the last time {said}"):
        resident_rise(lambda: None)


def test_a_call_is_measured_twice_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([{"activations": 9}, {"activations": 5}])
    monkeypatch.setattr(peak_memory, "measure", lambda work, kind: next(calls))
    assert PeakMemory(seconds=0.0)._measured(lambda: None, "cpu") == [{"activations": 9}, {"activations": 5}]


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (SimpleNamespace(), "the C library of this process has no mallinfo2: "),
        (PRELOADED, r"another malloc stands before that of the C library \(LD_PRELOAD\): "),
    ],
)
def test_a_heap_that_would_keep_freed_blocks_gives_a_dash_with_the_reason(
    library: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    with pytest.raises(Unavailable, match=f"^{said}measured peak memory on the CPU needs the malloc of glibc 2.33"):
        resident_rise(lambda: None)


def test_a_system_without_the_mark_gives_a_dash_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(peak_memory, "CLEAR", tmp_path / "nowhere" / "clear_refs")
    with pytest.raises(Unavailable, match="projected_memory works everywhere"):
        resident_rise(lambda: None)
    with pytest.raises(Unavailable, match="use device=cpu or device=cuda"):
        measure(lambda: None, "mps")


class Block(nn.Module):
    """Doubles an input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(MIB))

    def forward(self, x: Tensor) -> Tensor:
        return (x * 2).sum()


@needs_mark
def test_the_metric_adds_weights_to_the_rise_of_one_call() -> None:
    @contextmanager
    def denoiser(parts):  # type: ignore[no-untyped-def]
        yield Block()

    case = SimpleNamespace(device="cpu", resolution=Resolution(4096, 4096))
    model = SimpleNamespace(multiple=8, example=lambda size: {"x": torch.ones(size.height, size.width)})
    (reading,) = PeakMemory()(SimpleNamespace(model=model, case=case, denoiser=denoiser))  # type: ignore[arg-type]
    assert reading.value is not None
    assert reading.value == pytest.approx((4 + 64) * MIB, abs=UNSEEN)
    assert reading.details["weights"] == 4 * MIB


@needs_mark
def test_a_variant_that_cannot_do_the_small_size_of_the_warm_up_is_measured_all_the_same() -> None:
    class Picky(Block):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) < 512:
                raise Unavailable("scale 0.5 empties a map")
            return super().forward(x)

    @contextmanager
    def denoiser(parts):  # type: ignore[no-untyped-def]
        yield Picky()

    case = SimpleNamespace(device="cpu", resolution=Resolution(512, 512))
    model = SimpleNamespace(multiple=8, example=lambda size: {"x": torch.ones(size.height, size.width)})
    (reading,) = PeakMemory()(SimpleNamespace(model=model, case=case, denoiser=denoiser))  # type: ignore[arg-type]
    assert reading.value is not None


@pytest.mark.gpu
def test_on_cuda_the_allocators_peak_is_the_reading() -> None:
    seen = measure(lambda: torch.ones(16 * MIB, device="cuda").sum(), "cuda")
    assert seen["activations"] == pytest.approx(64 * MIB, abs=MIB)
    assert seen["reserved"] >= seen["activations"]
