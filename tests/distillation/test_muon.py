"""Muon: steps are orthogonal, tables and small weights are AdamW's, and it learns what AdamW learns."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.distillation.muon import Muon, matrices, orthogonal
from harness.distillation.training import Schedule, train


@pytest.mark.parametrize("shape", [(3, 48, 48), (2, 48, 200), (2, 200, 48)])
def test_singular_values_become_nearly_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    # The quintic ends between 0.7 and 1.2 by design; a square matrix may keep one value that began near zero.
    assert values.max() < 1.25
    assert values.median() > 0.65
    assert shape[1] == shape[2] or values.min() > 0.6


def test_directions_are_kept():
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(64, 64))
    right, _ = torch.linalg.qr(torch.randn(64, 64))
    stretched = left @ torch.diag(torch.linspace(0.2, 1, 64)) @ right
    found = left.T @ orthogonal(stretched[None])[0] @ right.T
    assert torch.diagonal(found).min() > 0.6
    # bf16 keeps three digits.
    assert (found - torch.diag(torch.diagonal(found))).abs().max() < 0.05


@pytest.mark.parametrize("kernel_size", [5, 13])
def test_biases_tables_ends_and_depthwise_kernels_are_not_matrices(kernel_size):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(100, 64)
            self.first = nn.Conv2d(4, 64, 3)
            self.depthwise = nn.Conv2d(64, 64, kernel_size, groups=64)
            self.inner = nn.Conv2d(64, 96, 3)
            self.linear = nn.Linear(96, 64)
            self.frozen = nn.Linear(64, 64).requires_grad_(False)

    assert sorted(matrices(Net())) == ["inner.weight", "linear.weight"]


def test_a_first_step_has_the_length_of_its_rate_whatever_the_gradient():
    torch.manual_seed(0)
    steps = []
    for scale in (1e-3, 1e3):
        weight = nn.Parameter(torch.zeros(96, 48))
        weight.grad = scale * torch.randn(96, 48, generator=torch.Generator().manual_seed(1))
        Muon([weight], lr=0.1, weight_decay=0.0).step()
        steps.append(weight.detach())
    # bf16 rounds differently at each scale: entries of up to 0.07 differ by a few thousandths.
    torch.testing.assert_close(*steps, atol=5e-3, rtol=0)
    # All 48 directions have length about one, times the rate and the root of 96 / 48.
    assert steps[0].norm() == pytest.approx(0.1 * 2**0.5 * 48**0.5, rel=0.25)


def test_it_learns_a_map():
    torch.manual_seed(0)
    target, _ = torch.linalg.qr(torch.randn(64, 64))
    module = nn.Linear(64, 64)

    def loss(step):
        x = torch.randn(128, 64, generator=torch.Generator().manual_seed(step))
        return F.mse_loss(module(x), x @ target.T)

    # The target is orthogonal, as steps are: 100 steps of length 0.05 at most reach it. It begins near 1.3.
    schedule = Schedule(100, 1e-2, matrix_rate=0.05, warmup=5, average=0.5, precision="fp32")
    assert train(module, loss, schedule, "map") < 0.3


def test_a_stopped_run_with_muon_ends_where_an_unbroken_one_does(tmp_path):
    schedule = Schedule(20, 0.01, matrix_rate=0.02, warmup=2, average=0.5, precision="fp32", save_every=5)

    def run(stop_at=None, checkpoint=None):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(48, 64), nn.Linear(64, 48))

        def loss(step):
            if step == stop_at:
                raise KeyboardInterrupt
            x = torch.randn(8, 48, generator=torch.Generator().manual_seed(step))
            return F.mse_loss(module(x), x.flip(1))

        train(module, loss, schedule, "flip", checkpoint)
        return module[0].weight.detach()

    checkpoint = tmp_path / "flip.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=12, checkpoint=checkpoint)
    assert torch.equal(run(checkpoint=checkpoint), run())
