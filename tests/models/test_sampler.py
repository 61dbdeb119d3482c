"""Samplers are named, refuse what they cannot do, draw noise of their own, and are charged the calls that they make."""

import diffusers
import pytest
import torch
from tiny_pipelines import KINDS, PROMPTS, SEEDS, TALL, save

from harness.models.sampler import OWN, SAMPLERS, scheduler, solver_seed, times
from harness.records.case import BadInput

# The schedulers of diffusers hand tensors to numpy (numpy 2 migration guide).
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]

BETAS = {"beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save("sd", tmp_path_factory.mktemp("sd"))


def model(folder, sampler, **own):
    """The saved pipeline, with another scheduler of its own where one is given."""
    made = KINDS["sd"]("tiny", source=str(folder), sampler=sampler).load()
    if own:
        kind = own.pop("kind")
        made.pipeline.scheduler = scheduler(sampler, getattr(diffusers, kind)(**own), "StableDiffusionPipeline")
    return made


def images(made, seeds=SEEDS, **more):
    return made.generate(PROMPTS, seeds, TALL, steps=4, guidance=2.0, **more)


@pytest.mark.parametrize("name", [OWN, *SAMPLERS])
def test_every_sampler_makes_images_that_do_not_depend_on_their_batch(folder, name):
    made = model(folder, name)
    together, alone = images(made), images(made, batch=1)
    assert together.std() > 0
    assert torch.allclose(together, alone, atol=2e-4)  # batched matrix products round otherwise
    assert not torch.allclose(together[:1], together[1:2], atol=1e-2)


def test_samplers_make_different_images_and_own_is_the_checkpoints():
    own = diffusers.DDIMScheduler(**BETAS)
    assert scheduler(OWN, own, "StableDiffusionPipeline") is own
    made = {name: scheduler(name, own, "StableDiffusionPipeline") for name in SAMPLERS}
    assert {type(one).__name__ for one in made.values()} == {kind for kind, _ in SAMPLERS.values()}
    assert made["dpm++_karras"].config.use_karras_sigmas
    assert made["dpm++_sde"].config.algorithm_type == "sde-dpmsolver++"
    assert all(one.config.beta_schedule == "scaled_linear" for one in made.values())


def test_an_unknown_sampler_is_answered_with_the_known_ones(folder):
    with pytest.raises(BadInput, match=r"sampler 'dmp' is not known: choose from own, dpm\+\+, "):
        model(folder, "dmp")


@pytest.mark.parametrize(
    "kind",
    [
        "EDMEulerScheduler",
        "EDMDPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "LCMScheduler",
        "TCDScheduler",
    ],
)
@pytest.mark.parametrize("name", ["dpm++", "ddim"])
def test_checkpoints_of_another_kind_are_sampled_by_their_own_alone(kind, name):
    own = getattr(diffusers, kind)()
    with pytest.raises(BadInput, match=rf"which was made for a {kind}: give sampler=own"):
        scheduler(name, own, "StableDiffusionPipeline")


def test_a_flow_checkpoint_under_a_solver_of_betas_is_of_another_kind_too():
    own = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    with pytest.raises(BadInput, match="give sampler=own"):
        scheduler("ddim", own, "StableDiffusionPipeline")
    assert scheduler(OWN, own, "StableDiffusionPipeline") is own


def test_a_scheduler_that_the_pipeline_cannot_drive_is_refused():
    with pytest.raises(BadInput, match="cannot be driven by StableDiffusionPipeline"):
        scheduler(OWN, diffusers.FlowMatchEulerDiscreteScheduler(), "StableDiffusionPipeline")


@pytest.mark.parametrize("name", ["deis", "heun"])
def test_a_schedule_that_ends_in_pure_noise_is_not_left_out_in_silence(name):
    own = diffusers.DPMSolverMultistepScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    with pytest.raises(BadInput, match=r"has no rescale_betas_zero_snr, which is True here: give sampler=own or dpm"):
        scheduler(name, own, "StableDiffusionPipeline")
    assert scheduler("dpm++", own, "StableDiffusionPipeline").config.rescale_betas_zero_snr


def test_steps_that_a_scheduler_cannot_take_are_one_sentence(folder):
    with pytest.raises(BadInput, match=r"LCMScheduler cannot take steps=99: "):
        times(diffusers.LCMScheduler(), 99)
    with pytest.raises(BadInput, match=r"LCMScheduler cannot take steps=99: "):
        model(folder, OWN, kind="LCMScheduler").generate(PROMPTS, SEEDS, TALL, steps=99, guidance=1.0)


@pytest.mark.parametrize("name", ["dpm++_sde", "euler_ancestral"])
def test_the_noise_of_a_solver_is_not_that_of_the_initial_latents(folder, name, monkeypatch):
    """One seed twice: the first noise of the solver was the very latents that it started from."""
    made = model(folder, name)
    drawn = []
    for generator in made_generators(made, monkeypatch):
        drawn.append(torch.randn(4, generator=generator))
    start = made.noise(SEEDS[0], TALL).flatten()[:4]
    assert not torch.allclose(drawn[0], start)
    assert not torch.allclose(drawn[0], drawn[1])


def made_generators(made, monkeypatch):
    """The generators that the pipeline is handed."""
    seen = {}
    kind = type(made.pipeline)
    original = kind.__call__
    monkeypatch.setattr(kind, "__call__", lambda self, **given: seen.update(given) or original(self, **given))
    images(made)
    return [torch.Generator().manual_seed(one.initial_seed()) for one in seen["generator"]]


def test_each_seed_has_a_stream_of_its_own():
    assert len({solver_seed(seed) for seed in range(1000)} | set(range(1000))) == 2000


@pytest.mark.parametrize("name", ["dpm++", "euler", "heun", "ddim"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_image_is_charged_the_calls_that_it_makes(folder, name, guidance):
    made = model(folder, name)
    rows = []
    handle = made.denoiser.register_forward_pre_hook(
        lambda module, given, named: rows.append(len(named.get("sample", given[0] if given else None))),
        with_kwargs=True,
    )
    made.generate(PROMPTS[:1], SEEDS[:1], TALL, steps=5, guidance=guidance)
    handle.remove()
    assert sum(rows) == made.calls(5, guidance)


def test_guidance_that_is_distilled_into_the_weights_costs_no_second_call(folder, monkeypatch):
    made = model(folder, "dpm++")
    assert made.calls(4, 3.0) == 8
    monkeypatch.setattr(
        type(made.layout), "component", lambda self, name: {"time_cond_proj_dim": 256} if name == "unet" else {}
    )
    assert made.calls(4, 3.0) == 4
