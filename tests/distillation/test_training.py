"""The training loop: it learns, it averages, and a stopped run ends where an unbroken one does."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.distillation.training import Schedule, train

QUICK = Schedule(steps=40, learning_rate=0.2, warmup=4, average=0.5, precision="fp32", save_every=10)


class Stopped(RuntimeError):
    """What a test raises in the middle of a run."""


def regression(module, stop_at=None):
    target = torch.tensor([[1.0, -2.0, 0.5]])

    def loss(step):
        if step == stop_at:
            raise Stopped
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return F.mse_loss(module(x), x @ target.T)

    return loss


def fresh():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def test_it_learns():
    module = fresh()
    train(module, regression(module), QUICK, "line")
    assert abs(module.weight - torch.tensor([[1.0, -2.0, 0.5]])).max() < 0.5


def test_a_stopped_run_ends_where_an_unbroken_one_does(tmp_path):
    unbroken = fresh()
    train(unbroken, regression(unbroken), QUICK, "line")
    checkpoint = tmp_path / "line.safetensors"
    stopped = fresh()
    with pytest.raises(Stopped):
        train(stopped, regression(stopped, stop_at=25), QUICK, "line", checkpoint)
    assert checkpoint.exists()
    resumed = fresh()
    train(resumed, regression(resumed), QUICK, "line", checkpoint)
    assert torch.equal(resumed.weight, unbroken.weight)


def test_a_finished_run_takes_no_step_again_and_leaves_the_same_weights_and_loss(tmp_path):
    checkpoint = tmp_path / "line.safetensors"
    schedule = replace(QUICK, save_every=9)
    finished, again = fresh(), fresh()
    loss = train(finished, regression(finished), schedule, "line", checkpoint)
    assert train(again, regression(again, stop_at=0), schedule, "line", checkpoint) == loss
    assert torch.equal(again.weight, finished.weight)


def test_only_what_requires_gradients_is_trained():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    train(module, regression(module), QUICK, "line")
    assert torch.equal(module[0].weight, before)


def test_the_rate_warms_up_and_decays():
    shares = [QUICK.share(step) for step in range(QUICK.steps)]
    assert shares[0] < shares[3] == max(shares) == 1
    assert shares[-1] < 0.1


def test_a_run_that_ends_early_is_the_beginning_of_the_whole_one():
    schedule = replace(QUICK, average=0.0)
    early, whole = fresh(), fresh()
    train(early, regression(early, stop_at=25), replace(schedule, until=25), "line")
    with pytest.raises(Stopped):
        train(whole, regression(whole, stop_at=25), schedule, "line")
    assert torch.equal(early.weight, whole.weight)


def test_bf16_keeps_attention_in_fp32_on_the_cpu_and_its_result_close():
    from harness.distillation.precision import computing

    q = torch.randn(1, 2, 8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact = F.scaled_dot_product_attention(q, q, q)
    with computing("bf16", "cpu"):
        close = F.scaled_dot_product_attention(q.bfloat16(), q.bfloat16(), q.bfloat16())
    assert close.dtype == torch.bfloat16
    torch.testing.assert_close(close.float(), exact, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("units", [True, False])
def test_a_cpu_that_only_emulates_bf16_trains_in_fp32(units, monkeypatch):
    for user in ("precision", "muon"):
        monkeypatch.setattr(f"harness.distillation.{user}.has_bf16_units", lambda: units)
    seen = []
    module = nn.Linear(4, 4)

    def loss(step):
        made = module(torch.ones(1, 4))
        seen.append(made.dtype)
        return made.float().square().mean()

    train(module, loss, replace(QUICK, steps=2, matrix_rate=0.1, precision="auto"), "line")
    assert set(seen) == {torch.bfloat16 if units else torch.float32}


def test_progress_goes_to_stderr(capsys):
    module = fresh()
    train(module, regression(module), QUICK, "line")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "line: step 40/40" in shown.err
