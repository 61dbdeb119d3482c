"""Models: shapes without weights, the two families of pipelines, images by prompt and seed, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import PROMPTS, SEEDS, TALL
from torch import Tensor, nn

from harness.models import layout
from harness.models.dit import PixArtModel
from harness.models.model import Model
from harness.models.text import TextCache
from harness.models.unet import UNetModel
from harness.records.case import BadInput, Resolution
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import seated

pytest_plugins = ["saved_pipelines"]
# The schedulers of diffusers hand tensors to numpy, and those of torch know no `copy` (numpy 2 migration guide).
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def shipped(config: str) -> Model:
    return (UNetModel if config.startswith("sd") else PixArtModel)(config, "no-such/hub-id", config)


@pytest.mark.parametrize(
    ("config", "parameters", "multiple"),
    [
        ("sd15", 859_520_964, 8),
        ("sdxl", 2_567_463_684, 8),
        ("pixart_512", 610_856_096, 16),
        ("pixart", 610_856_096, 16),
        ("pixart_alpha", 611_349_152, 16),
    ],
)
def test_a_shipped_configuration_has_the_known_number_of_parameters(
    config: str, parameters: int, multiple: int
) -> None:
    model = shipped(config).load("meta", "bf16")
    assert sum(weight.numel() for weight in model.denoiser.parameters()) == parameters
    assert all(weight.is_meta and weight.dtype == torch.bfloat16 for weight in model.denoiser.parameters())
    assert model.multiple == multiple
    assert model.fingerprint() == "shapes"


@pytest.mark.parametrize("config", ["sd15", "pixart_512", "pixart_alpha"])
def test_a_meta_model_runs_its_example_at_any_shape(config: str) -> None:
    model = shipped(config).load("meta")
    with torch.no_grad():
        output = model.denoiser(**model.example(Resolution(432, 608), batch=2))[0]
    assert output.is_meta
    assert output.shape[:1] + output.shape[2:] == (2, 76, 54)


def test_the_shipped_configurations_agree_with_each_other() -> None:
    for index in layout.CONFIGS.glob("*/model_index.json"):
        shape = shipped(index.parent.name).text_shapes()["encoder_hidden_states"]
        assert shape[1] in (768, 2048, 4096)
        parts = {name for name, value in json.loads(index.read_text()).items() if isinstance(value, list)}
        assert {path.parent.name for path in index.parent.glob("*/*.json")} == {p for p in parts if "token" not in p}


def test_a_real_model_on_meta_stays_beside_the_loaded_one(models: dict[str, Model]) -> None:
    aside = models["sigma"].on_meta()
    assert next(aside.denoiser.parameters()).is_meta
    assert not next(models["sigma"].denoiser.parameters()).is_meta
    assert aside.sites() == models["sigma"].sites()


def test_an_image_depends_on_prompt_and_seed_and_never_on_its_batch(model: Model) -> None:
    together = model.generate(PROMPTS, SEEDS, TALL, steps=4, guidance=4.5, batch=4)
    by_three = model.generate(PROMPTS[::-1], SEEDS[::-1], TALL, steps=4, guidance=4.5, batch=3)
    assert together.shape == (4, 3, 64, 40)
    assert together.dtype == torch.float32
    assert together.min() >= 0
    assert together.max() <= 1
    torch.testing.assert_close(together, by_three.flip(0), atol=1e-5, rtol=0)
    assert (together[0] - model.generate(["a cat"], [15], TALL, 4, 4.5)[0]).abs().max() > 0.05
    assert (together[0] - model.generate(["b"], SEEDS[:1], TALL, 4, 4.5)[0]).abs().max() > 1e-4


@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_images_are_those_of_the_plain_pipeline(model: Model, folders: dict[str, Path], guidance: float) -> None:
    from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

    plain = DiffusionPipeline.from_pretrained(folders[model.name])
    plain.scheduler = DPMSolverMultistepScheduler.from_config(plain.scheduler.config)
    plain.set_progress_bar_config(disable=True)
    is_pixart = isinstance(model, PixArtModel)
    more = {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 20} if is_pixart else {}
    expected = plain(
        prompt=PROMPTS,
        width=TALL.width,
        height=TALL.height,
        num_inference_steps=3,
        guidance_scale=guidance,
        latents=torch.cat([model.noise(seed, TALL) for seed in SEEDS]),
        output_type="pt",
        **more,
    ).images
    made = model.generate(PROMPTS, SEEDS, TALL, 3, guidance, batch=4)
    # Prompts are encoded one by one here and together there, which moves the last bits.
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_what_is_seated_makes_the_images(model: Model) -> None:
    class Nothing(TokenMixer):
        def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
            return torch.zeros_like(tokens_BNC)

    teacher = model.generate(PROMPTS[:1], [1], TALL, 2, 4.5)
    with seated(model.denoiser, lambda site, attention: Nothing()) as seats:
        student = model.generate(PROMPTS[:1], [1], TALL, 2, 4.5)
        patch = model.patch
        assert next(iter(seats.values())).grid == (16 // patch, 10 // patch)
    assert not torch.equal(teacher, student)
    assert torch.equal(teacher, model.generate(PROMPTS[:1], [1], TALL, 2, 4.5))


def test_half_precision_stays_near_full_precision(folders: dict[str, Path], models: dict[str, Model]) -> None:
    half = PixArtModel("half", str(folders["sigma"])).load("cpu", "bf16")
    assert {weight.dtype for weight in half.denoiser.parameters()} == {torch.bfloat16}
    made = half.generate(["a cat"], [1], TALL, 3, 4.5)
    assert made.dtype == torch.float32
    assert (made - models["sigma"].generate(["a cat"], [1], TALL, 3, 4.5)).abs().mean() < 0.05


def test_a_large_batch_is_decoded_image_by_image_to_the_same_pixels(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = models["sd"].generate(PROMPTS, SEEDS, TALL, 2, 4.5)
    monkeypatch.setattr("harness.models.model.DECODED_PIXELS", 1)
    torch.testing.assert_close(models["sd"].generate(PROMPTS, SEEDS, TALL, 2, 4.5), at_once, atol=1e-5, rtol=0)


def test_no_prompts_make_no_images(models: dict[str, Model]) -> None:
    assert models["sd"].generate([], [], TALL, 2, 4.5).shape == (0, 3, 64, 40)


@pytest.mark.parametrize(("dtype", "remedy"), [("fp32", "look at"), ("bf16", "take dtype fp32, or look at")])
def test_numbers_that_are_none_do_not_become_images(copied: Path, dtype: str, remedy: str) -> None:
    class Nowhere(TokenMixer):
        def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
            return tokens_BNC * float("nan")

    model = UNetModel("nan", str(copied)).load("cpu", dtype)
    said = {"fp32": "float32", "bf16": "bfloat16"}[dtype]
    with (
        seated(model.denoiser, lambda site, attention: Nowhere()),
        pytest.raises(FloatingPointError, match=f"made images that are not finite in {said}: {remedy} the weights of"),
    ):
        model.generate(["a"], [1], TALL, 1, 4.5)


def test_a_prompt_is_encoded_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = UNetModel("sd", str(folders["sd"])).load()
    calls: list[str] = []
    encode = model.pipeline.encode_prompt
    monkeypatch.setattr(
        model.pipeline, "encode_prompt", lambda **given: (calls.append(given["prompt"]), encode(**given))[1]
    )
    for _ in range(2):
        model.text_states(["a", "b", "a"])
    assert calls == ["a", "b"]


def test_the_cache_of_texts_lets_the_oldest_go_when_it_is_full() -> None:
    calls: list[str | None] = []

    def encode(prompt: str | None) -> dict[str, Tensor]:
        calls.append(prompt)
        return {"states": torch.zeros(1, 10)}

    cache = TextCache(encode, limit_bytes=80)
    for prompt in ("a", "b", "a", None, "a", "b"):
        cache(prompt)
    assert calls == ["a", "b", None, "b"]
    assert cache.kept_bytes <= 80


def test_guidance_puts_the_unconditional_states_first(model: Model) -> None:
    states = model.text_states(["a", "b"])
    guided = model.text_states(["a", "b"], guidance=True)
    for name, tensor in states.items():
        assert guided[name].shape == (4, *model.text_shapes()[name])
        assert torch.equal(guided[name][2:], tensor)
        assert torch.equal(guided[name][0], guided[name][1])
    zeros = guided["encoder_hidden_states"][0].abs().sum() == 0
    assert bool(zeros) == (model.name == "sdxl")


def test_the_denoiser_takes_what_distillation_hands_it(model: Model) -> None:
    images = model.generate(PROMPTS, SEEDS, TALL, 2, 1.0)
    latents = model.encode(images)
    assert latents.shape == (4, model.latent_channels, 16, 10)
    timesteps = torch.tensor([1, 20, 500, 999])
    noisy = model.noise_schedule.add_noise(latents, torch.randn_like(latents), timesteps)
    with torch.no_grad():
        prediction = model.denoiser(**model.denoise_arguments(noisy, timesteps, model.text_states(PROMPTS)))[0]
    assert prediction[:, : model.latent_channels].shape == latents.shape
    assert not any(weight.requires_grad for weight in model.denoiser.parameters())


def test_latents_are_scaled_as_the_pipeline_has_it(model: Model) -> None:
    vae = model.pipeline.vae
    images = torch.rand(1, 3, 64, 40)
    with torch.no_grad():
        mean = vae.encode(images * 2 - 1).latent_dist.mean
    assert torch.equal(model.encode(images), mean * vae.config.scaling_factor)


def test_many_images_are_encoded_in_parts_to_the_same_latents(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(3, 3, 64, 40)
    at_once = models["sd"].encode(images)
    monkeypatch.setattr("harness.models.model.ENCODED_PIXELS", 1)
    torch.testing.assert_close(models["sd"].encode(images), at_once, atol=1e-5, rtol=0)


def sized(model: Model, latents: torch.Tensor, timesteps: torch.Tensor) -> dict[str, Any]:
    return model.denoise_arguments(latents, timesteps, model.text_states(["a"]))


def test_size_conditions_are_in_pixels_height_first(models: dict[str, Model]) -> None:
    latents = torch.zeros(1, 4, 16, 10)
    timesteps = torch.zeros(1)
    xl = sized(models["sdxl"], latents, timesteps)["added_cond_kwargs"]
    assert xl["time_ids"].tolist() == [[64, 40, 0, 0, 64, 40]]
    alpha = sized(models["alpha"], latents, timesteps)["added_cond_kwargs"]
    assert alpha["resolution"].tolist() == [[64, 40]]
    assert alpha["aspect_ratio"].tolist() == [[pytest.approx(1.6)]]
    assert sized(models["sigma"], latents, timesteps)["added_cond_kwargs"]["resolution"] is None


def test_the_example_is_the_same_at_every_call(model: Model) -> None:
    with torch.no_grad():
        first, again = (model.denoiser(**model.example(TALL, 3))[0] for _ in range(2))
    assert first.shape[0] == 3
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [
        (1000, 1000, "the nearest that work are 992 and 1008$"),
        (512, 500, "the nearest that work are 512x496 and 512$"),
        (0, 0, "the nearest that works is 16$"),
        (4, 512, "the nearest that works is 16x512$"),
    ],
)
def test_a_resolution_that_does_not_fit_is_answered_with_those_that_do(width: int, height: int, nearest: str) -> None:
    model = shipped("pixart")
    model.check(Resolution(512, 768))
    with pytest.raises(BadInput, match=f"pixart cannot make .* pixels: its sides are multiples of 16, {nearest}"):
        model.check(Resolution(width, height))


def test_what_makes_no_image_is_refused(models: dict[str, Model]) -> None:
    with pytest.raises(BadInput, match="steps=0 and batch=8 make no image with sd: give at least 1 and 1"):
        models["sd"].generate(["a"], [1], TALL, 0, 4.5)
    with pytest.raises(BadInput, match="steps=1 and batch=8 make no image with alpha: give at least 2 and 1"):
        models["alpha"].generate(["a"], [1], TALL, 1, 4.5)
    with pytest.raises(ValueError, match="1 prompts came with 2 seeds"):
        models["sd"].generate(["a"], [1, 2], TALL, 1, 4.5)
    with pytest.raises(RuntimeError, match="has no weights to generate with"):
        models["sd"].on_meta().generate(["a"], [1], TALL, 1, 4.5)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_model_of_the_catalogue_composes_inertly(path: Path) -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    model = instantiate(OmegaConf.load(path))
    assert isinstance(model, Model)
    assert model.name == path.stem
    assert len(model.resolutions) >= 5
    assert all(type(preset) is dict for preset in model.presets.values())


@pytest.mark.parametrize(("name", "layers"), [("sd15", 16), ("sdxl", 70)])
def test_the_published_kernels_name_every_site(name: str, layers: int) -> None:
    from omegaconf import OmegaConf

    conf = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[2] / "conf" / "model" / f"{name}.yaml"))
    kernels = conf["presets"]["deltaconv"]["kernel_size"]  # type: ignore[index, call-overload]
    sites: list[Site] = shipped(name).load("meta").sites()
    assert len([site.pick(kernels, "kernel_size") for site in sites]) == layers
    assert {site.pick(kernels, "kernel_size") for site in sites} == set(kernels.values())


def test_the_loaded_modules_are_diffusers_own(model: Model) -> None:
    assert type(model.pipeline).__name__ in type(model).pipelines
    assert isinstance(model.denoiser, nn.Module)
    assert model.denoiser is getattr(model.pipeline, model.part)
