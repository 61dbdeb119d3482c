"""What the gate is for: faults planted in commits of a clone, each found by the command, with its cause named."""

import pytest
from cloned import Clone

SITES = "at transformer_blocks.0.attn1 and 5 more"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SLOWER = """
import time as _time

_quick = {mixer}.forward


def _slow(self, tokens_BNC, grid):
    begun = _time.perf_counter()
    mixed = _quick(self, tokens_BNC, grid)
    until = _time.perf_counter() + {share} * (_time.perf_counter() - begun)
    while _time.perf_counter() < until:
        pass
    return mixed


{mixer}.forward = _slow
"""


@pytest.fixture(scope="module")
def priced_and_judged(tmp_path_factory):
    """Costs and quality; for speed there is time for one pair, which decides nothing."""
    return Clone(tmp_path_factory.mktemp("plants"), "variants=[linfusion,deltaconv] n=16")


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """Costs and speed."""
    return Clone(tmp_path_factory.mktemp("slower"), "variants=[linfusion,deltaconv] metrics=[site_costs]")


def test_nothing_planted_is_nothing_found(priced_and_judged):
    status, said = priced_and_judged.judged(0.01)
    assert status == 3
    assert all("too few pairs" in line for line in said.splitlines() if line.startswith("gate: inconclusive: "))


def test_two_percent_of_flops_in_one_mixer(priced_and_judged):
    file, start = "baselines/linfusion.py", "        root = tokens_BNC.shape[1] ** -0.5\n"
    wasted = "(tokens_BNC @ tokens_BNC.new_zeros(self.channels, 22)).sum()"
    priced_and_judged.replace(file, start, f"{start}        tokens_BNC = tokens_BNC + {wasted}\n")
    priced_and_judged.replace(file, "2 * tokens * self.channels", "(2 + 2 * 22) * tokens * self.channels")
    status, said = priced_and_judged.judged(0.01)
    assert status == 1
    assert f"LinFusionAttention {SITES}: FLOPs 17,842,176 -> 18,202,624 (+360,448, +2.02%)" in said
    assert f"LinFusionAttention {SITES}: operators " in said
    assert "DeltaConvBlock at" not in "".join(line for line in said.splitlines() if ": regression: " in line)


def test_one_parameter_more(priced_and_judged):
    priced_and_judged.replace(
        "deltaconv/block.py",
        "        self.norm = nn.LayerNorm(channels) if",
        "        self.spare = nn.Parameter(torch.zeros(1))\n        self.norm = nn.LayerNorm(channels) if",
    )
    status, said = priced_and_judged.judged(0.01)
    assert status == 1
    assert f"DeltaConvBlock {SITES}: parameters 36,416 -> 36,417 (+1, +0.00%)" in said


def test_noise_on_the_weights_of_a_student(priced_and_judged):
    priced_and_judged.disturb("students/tiny_pixart-deltaconv.safetensors", 1.0)
    status, said = priced_and_judged.judged(0.01)
    assert status == 1
    lines = [line for line in said.splitlines() if ": clip_score: " in line]
    assert len(lines) == 1
    assert lines[0].startswith("gate: regression: tiny_pixart deltaconv 64 fp32 cpu: clip_score: ")
    assert f"; the weights of DeltaConvBlock {SITES} changed (" in lines[0]


def test_another_sampler(priced_and_judged):
    priced_and_judged.replace("harness/models/sampler.py", 'DEFAULT = "dpm++"', 'DEFAULT = "euler"')
    status, said = priced_and_judged.judged(0.01)
    assert status in (1, 3)
    for variant in ("linfusion", "deltaconv"):
        assert f"tiny_pixart {variant} 64 fp32 cpu: ingredients: the sampler changed (DPMSolverMultistep" in said


def test_a_changed_extractor(priced_and_judged):
    priced_and_judged.disturb("clip/open_clip_model.safetensors", 0.01)
    status, said = priced_and_judged.judged(0.01)
    assert status == 3
    assert "ingredients: the CLIP extractor changed (open_clip:local@" in said
    assert "the weights of" not in said


def test_half_a_second_more_to_import(timed):
    timed.append("baselines/linfusion.py", "\nimport time\n\ntime.sleep(0.5)\n")
    status, said = timed.judged(8)
    assert status == 1
    assert "regression: import: import: importing takes +" in said
    assert "(most by baselines.linfusion: +" in said


@pytest.mark.parametrize("share", [0.1, 0.05])
def test_a_mixer_that_takes_longer(timed, share):
    timed.append("deltaconv/block.py", SLOWER.format(mixer="DeltaConvBlock", share=share))
    status, said = timed.judged(8)
    assert status == 1
    assert "DeltaConvBlock at transformer_blocks.0.attn1 takes +" in said
    assert "regression: tiny_pixart linfusion" not in said
