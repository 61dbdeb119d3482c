"""torch.compile on every mixer: one graph without a break, and, where there is a compiler, the same numbers from it."""

import shutil

import pytest
import torch
from variants import VARIANTS, build, tokens

GRID = (9, 14)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def assert_alike(variant: str, backend: str) -> None:
    mixer, x_BNC = build(variant, GRID, torch.float32), tokens(GRID, dtype=torch.float32)
    compiled = torch.compile(mixer, fullgraph=True, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x_BNC, GRID), mixer(x_BNC, GRID), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_mixer_is_one_graph(variant: str) -> None:
    assert_alike(variant, "eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler: g++")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_compiled_mixer_gives_the_same(variant: str) -> None:
    assert_alike(variant, "inductor")
