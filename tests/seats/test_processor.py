"""What a processor is faster with is found on it: by trying, once, and never where a trial would be seen or matter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from baselines import DepthwiseConvolution
from deltaconv import DeltaConvBlock
from harness.counted.live_bytes import rise_of
from harness.seats import processor
from harness.seats.mixer import TokenMixer

MIXERS: dict[str, Callable[[], TokenMixer]] = {
    "deltaconv": lambda: DeltaConvBlock(16, kernel_size=9, scales=(1.0,)),
    "depthwise": lambda: DepthwiseConvolution(16, kernel_size=9),
}
GRID = (6, 8)


@pytest.fixture(params=MIXERS)
def mixer(request: pytest.FixtureRequest) -> TokenMixer:
    return MIXERS[request.param]().eval()


@pytest.fixture(autouse=True)
def nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_planar_is_faster", {})


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which layouts were timed; the planar one takes half the time of the other."""
    seen: list[bool] = []

    def seconds(work: Callable[[], object], device: torch.device) -> float:
        work()
        seen.append(convolved[-1])
        return 0.5 if convolved[-1] else 1.0

    convolved: list[bool] = []
    original = nn.Conv2d.forward

    def forward(self: nn.Conv2d, map_BCHW: Tensor) -> Tensor:
        convolved.append(map_BCHW.is_contiguous())
        return original(self, map_BCHW)

    monkeypatch.setattr(processor, "_seconds", seconds)
    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    monkeypatch.setattr(processor, "LAST", convolved, raising=False)
    return seen


def last_was_planar() -> bool:
    return bool(processor.LAST[-1])  # type: ignore[attr-defined]


def tokens(batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, GRID[0] * GRID[1], 16, generator=torch.Generator().manual_seed(0)).to(dtype)


@torch.no_grad()
def test_the_faster_layout_is_tried_once_a_size_and_dtype_and_taken(mixer: TokenMixer, tried: list[bool]) -> None:
    mixer(tokens(), GRID)
    assert last_was_planar()
    assert sorted(set(tried)) == [False, True]
    once = len(tried)
    mixer(tokens(batch=3), GRID)
    assert len(tried) == once
    assert last_was_planar()
    mixer(tokens(), GRID[::-1])
    mixer.bfloat16()(tokens(dtype=torch.bfloat16), GRID)
    assert len(tried) == 3 * once


@torch.no_grad()
def test_the_map_stays_as_it_is_where_the_copy_is_slower(
    mixer: TokenMixer, tried: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "_seconds", lambda work, device: (work(), 2.0 if last_was_planar() else 1.0)[1])
    mixer(tokens(), GRID)
    assert not last_was_planar()


def test_nothing_is_tried_in_training_on_the_cpu_nor_by_a_compiler_a_counter_or_on_meta(
    mixer: TokenMixer, tried: list[bool]
) -> None:
    mixer.train()(tokens(), GRID).sum().backward()
    with torch.no_grad():
        rise_of(mixer, tokens(), GRID)
        torch.compile(mixer, backend="eager")(tokens(), GRID)
        mixer.to("meta")(tokens().to("meta"), GRID)
    assert tried == []


@torch.no_grad()
def test_the_record_says_what_was_chosen(mixer: TokenMixer, tried: list[bool]) -> None:
    assert "convolved as" not in mixer.note(GRID)
    mixer(tokens(), GRID)
    assert "convolved as a planar copy at 6x8 on cpu, which was tried to be faster" in mixer.note(GRID)
    assert "convolved as" in mixer.to("meta").note(GRID)
    assert "convolved as" not in mixer.note((9, 9))


@torch.no_grad()
def test_both_layouts_give_the_same_to_rounding(mixer: TokenMixer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for planar in (False, True):
        monkeypatch.setattr(processor, "_try_both", lambda *given, planar=planar: planar)
        monkeypatch.setattr(processor, "_planar_is_faster", {})
        made.append(mixer(tokens(batch=2), GRID))
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e-5)
