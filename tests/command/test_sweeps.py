"""Sweeps over settings: lists of steps, batches and dtypes become cases; what the device cannot do is one sentence."""

import io
from dataclasses import replace
from functools import partial

import pytest
import torch

from baselines import SelfAttention
from harness.console import Console, varied
from harness.experiment import Catalog, Experiment
from harness.models import opening
from harness.models.unet import UNetModel
from harness.records.case import BadInput, Resolution
from harness.run import _is_larger

VARIANTS = dict.fromkeys("ab", partial(SelfAttention.for_site))


class Counted:
    """A metric that needs shapes alone."""

    needs = "shapes"


class NoWorld:
    name = "none"


@pytest.fixture
def sweep():
    def make(**settings) -> Experiment:
        model = UNetModel("tiny_sd", "pkg://harness.shapes/weights/tiny_sd")
        catalog = Catalog({"tiny_sd": model}, VARIANTS, {"counted": Counted()}, {"none": NoWorld()})  # type: ignore[dict-item]
        fixed = {
            "models": ["tiny_sd"],
            "variants": ["a", "b"],
            "metrics": ["counted"],
            "resolutions": [64],
            "world": "none",
        }
        return Experiment(catalog, **(fixed | settings))  # type: ignore[arg-type]

    return make


def settings(experiment):
    cases = [job.case for job in experiment.jobs()]
    return [(case.dtype, case.variant, case.batch, case.steps) for case in cases]


def test_single_values_make_one_case_a_variant(sweep):
    assert settings(sweep(batch=4, steps=2)) == [("fp32", "a", 4, 2), ("fp32", "b", 4, 2)]


def test_lists_are_multiplied_and_the_slow_things_change_last(sweep):
    found = settings(sweep(batch=[1, 2], steps=[3, 4], dtype=["fp32", "bf16"]))
    assert len(found) == len(set(found)) == 16
    assert found[:4] == [("fp32", "a", 1, 3), ("fp32", "a", 1, 4), ("fp32", "a", 2, 3), ("fp32", "a", 2, 4)]
    assert [dtype for dtype, *_ in found] == ["fp32"] * 8 + ["bf16"] * 8


def test_every_value_has_a_key_of_its_own_and_a_repeated_one_is_one_case(sweep):
    cases = [job.case for job in sweep(batch=[1, 2, 1], steps=[3, 3]).jobs()]
    assert len(cases) == len({case.key for case in cases}) == 4


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch": 0}, "batch=0 is not possible: give a whole number of at least 1"),
        ({"batch": [1, 0]}, "batch=0 is not possible: give a whole number of at least 1"),
        ({"steps": 0}, "steps=0 is not possible: give a whole number of at least 1"),
        ({"steps": [4, 2.5]}, "steps=2.5 is not possible: give a whole number of at least 1"),
        ({"steps": [True]}, "steps=True is not possible: give a whole number of at least 1"),
        ({"steps": []}, "steps=[] leaves nothing to do: give one value or a list of them"),
        ({"n": [32, 64]}, "n=[32, 64] is a list: give one value; steps, batch and dtype may be lists"),
        (
            {"guidance": [1.0, 3.0]},
            "guidance=[1.0, 3.0] is a list: give one value; steps, batch and dtype may be lists",
        ),
        ({"world": ["none"]}, "world=['none'] is a list: give one value; steps, batch and dtype may be lists"),
        ({"device": ["cpu"]}, "device=['cpu'] is a list: give one value; steps, batch and dtype may be lists"),
        ({"dtype": ["fp32", "fp8"]}, "dtype 'fp8' is not known: choose from fp32, fp16, bf16"),
        ({"device": "gpu"}, "device 'gpu' is not known: give cpu, cuda or cuda:0"),
        ({"device": "meta"}, "device 'meta' is none that is measured here: give cpu or cuda"),
        ({"device": "cuda:99"}, "device cuda:99 is not there: this machine shows"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(sweep, given, sentence):
    with pytest.raises(BadInput) as refused:
        sweep(**given)
    assert str(refused.value).startswith(sentence)


def test_a_dtype_that_the_processor_lacks_is_refused_with_what_torch_says(sweep, monkeypatch):
    def absent(*given):
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr(torch.nn.functional, "conv2d", absent)
    with pytest.raises(BadInput) as refused:
        sweep(dtype="fp16")
    assert str(refused.value) == (
        "cpu cannot compute in float16 (\"slow_conv2d_cpu\" not implemented for 'Half'): "
        "give another dtype, fp32 always works"
    )


def test_a_gpu_that_would_emulate_bf16_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    device = torch.device("cuda")
    with pytest.raises(BadInput, match="cuda cannot compute in bfloat16"):
        opening.require(device, torch.bfloat16)
    opening.require(device, torch.float16)


def test_only_a_larger_batch_of_the_same_dtype_is_spared_after_an_out_of_memory(make_case):
    full = make_case(batch=8, resolution=Resolution(64, 64))
    assert _is_larger(replace(full, batch=16), full)
    assert not _is_larger(replace(full, batch=4, resolution=Resolution(128, 128)), full)
    assert not _is_larger(replace(full, dtype="bf16", resolution=Resolution(128, 128)), full)


def test_the_table_shows_the_settings_that_vary_and_no_others(make_case, make_record):
    assert varied([make_case(batch=1), make_case(batch=2)]) == ("batch",)
    assert varied([make_case(), make_case()]) == ()
    out = io.StringIO()
    console = Console(out, io.StringIO())
    console.start(2, ["latency"], ("dtype", "batch"))
    console.row(make_record(batch=2, dtype="bf16"))
    head, row = (line.split() for line in out.getvalue().splitlines())
    assert head == ["model", "variant", "resolution", "dtype", "batch", "latency", "status", "seconds"]
    assert row[:5] == ["tiny_sd", "self_attention", "64", "bf16", "2"]
