"""A text-to-image model: a diffusers pipeline with the shapes, prompts and seeds that a benchmark needs around it.

The pipeline itself makes the images. What is added: each image's initial noise comes from a CPU generator of its own
and each prompt is encoded by itself, so that an image depends on prompt and seed and never on its batch. Constructing a
model loads nothing; on the meta device it needs neither weights nor memory.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.models import sampler as samplers
from harness.models import weights
from harness.models.finite import check_images
from harness.models.layout import Layout, check_size
from harness.models.opening import built, device_of, random_pipeline, read_denoiser, read_pipeline
from harness.models.quiet import quiet
from harness.models.sampler import DEFAULT
from harness.models.text import PIPELINE_NAMES, States, TextCache, batched, drawn
from harness.records.case import BadInput, Resolution
from harness.records.spelled import Inert, settings_of
from harness.seats.mixer import Site
from harness.seats.surgery import sites

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Parts = Literal["all", "denoiser"]  # what is loaded: a denoiser that is timed on drawn text needs nothing beside it
PIPELINE_MULTIPLE = 8  # diffusers pipelines refuse other sides, whatever the autoencoder shrinks by
DECODED_PIXELS = 2**21  # more are decoded image by image: the autoencoder's activations are what fills memory
ENCODED_PIXELS = 2**17  # at once on a CPU, where large blocks cost the system as much as the encoder


class Model(Inert, ABC):
    """One text-to-image model. Inert until `load`.

    source: a hub id, a local diffusers folder, `pkg://package/folder`, `random` (seeded random weights) or None (shapes
    alone). config: a folder under harness/models/configs, used where the source has none here. resolutions: what a
    sweep takes that names none. presets: variant name -> keywords of its factory on this model. buckets: sizes that it
    was trained at; none: the one its denoiser names. profile: a file of what was measured of its sites
    (`harness.locality.profile`). sampler: what makes images (`harness.models.sampler`).
    """

    pipelines: ClassVar[tuple[str, ...]]
    part: ClassVar[str]
    call_settings: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        name: str,
        source: str | None = None,
        config: str | None = None,
        resolutions: Iterable[int | str | Resolution] = (),
        presets: dict[str, dict[str, Any]] | None = None,
        buckets: Iterable[int | str | Resolution] = (),
        profile: str | None = None,
        sampler: str = DEFAULT,
    ) -> None:
        samplers.known(sampler)
        self.name, self.source, self.config, self.profile, self.sampler = name, source, config, profile, sampler
        self.resolutions = tuple(Resolution.parse(resolution) for resolution in resolutions)
        self.presets = presets or {}
        self.buckets = tuple(Resolution.parse(resolution) for resolution in buckets)
        self.pipeline: Any = None
        self._denoiser: nn.Module | None = None
        self._loaded: tuple[str, str] | None = None
        self._twins: dict[str, Model] = {}
        self._text = TextCache(self._encode)

    def presets_of(self, variant: str) -> tuple[str, dict[str, Any]]:
        """Presets of a variant, and under which name: `hybrid-50` has those of `hybrid`, if none of its own."""
        name = variant if variant in self.presets else variant.partition("-")[0]
        return name, self.presets.get(name, {})

    @property
    def patch(self) -> int:
        """How many latents of a side the denoiser cannot divide: 1 for a UNet, which crops on the way back."""
        return 1

    @property
    def least_steps(self) -> int:
        """The fewest steps that the pipeline takes."""
        return 1

    @abstractmethod
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each text state of one prompt, without the batch."""

    @abstractmethod
    def _encode(self, prompt: str | list[str] | None) -> States:
        """Text states of one prompt or several from the pipeline's encoder; None: the unconditional ones."""

    @abstractmethod
    def denoise_arguments(self, latents: Tensor, timesteps: Tensor, text: States) -> dict[str, Any]:
        """Keyword arguments of one denoiser call on noisy latents; the first item of its result is the prediction."""

    @cached_property
    def layout(self) -> Layout:
        """The configurations in force: those of a local folder, or else the shipped ones."""
        folder = weights.local(self.source)
        if folder is None and self.config is None:
            here, known = f"catalog.models.{self.name}", " or ".join(Layout.known(self.pipelines))
            remedy = f"give {here}.config={known}, or {here}.source= a local diffusers folder"
            raise BadInput(f"model {self.name} has no configuration: {remedy}")
        layout = Layout(folder) if folder is not None else Layout.shipped(str(self.config))
        return layout.accepted(self.name, self.pipelines, self.part)

    @cached_property
    def shrink(self) -> int:
        return self.layout.shrink

    @cached_property
    def multiple(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return math.lcm(PIPELINE_MULTIPLE, self.shrink * self.patch)

    @cached_property
    def latent_channels(self) -> int:
        """Channels of a latent; a denoiser that also predicts a variance appends it after as many."""
        return self.layout.number(self.part, "in_channels")

    def check(self, resolution: Resolution) -> None:
        """Raise BadInput, with the nearest sizes that work, for a resolution that the model cannot do."""
        check_size(self.name, resolution, self.multiple)

    def load(self, device: str = "cpu", dtype: str = "fp32", parts: Parts = "all") -> "Model":
        """Bring the model to a device, once for the same; `meta` takes no weights, `denoiser` no part beside it."""
        if dtype not in DTYPES:
            raise BadInput(f"dtype {dtype!r} is not known: choose from {', '.join(DTYPES)}")
        if self._loaded != (device, dtype):
            self.unload()
        elif device == "meta" or self.pipeline is not None or parts == "denoiser":
            return self
        if device == "meta":
            with quiet(), torch.device("meta"):
                self._denoiser = built(self.layout, self.part).to(DTYPES[dtype])
        elif parts == "denoiser" and self.source != weights.RANDOM:
            target, layout = device_of(device), self._source_layout()
            with quiet():
                self._denoiser = read_denoiser(layout, self.layout, self.part, DTYPES[dtype]).to(target)
        else:
            self.pipeline = self._opened(device_of(device), DTYPES[dtype])
            self._denoiser = getattr(self.pipeline, self.part)
        for module in self.pipeline.components.values() if self.pipeline else [self._denoiser]:
            if isinstance(module, nn.Module):
                module.eval().requires_grad_(False)
        drawn_here = device == "meta" or self.source == weights.RANDOM
        self._text = TextCache(partial(drawn, shapes=self.text_shapes()) if drawn_here else self._encode)
        self._loaded = (device, dtype)
        return self

    def unload(self) -> None:
        self.pipeline = self._denoiser = self._loaded = None

    def on_meta(self, dtype: str = "fp32") -> "Model":
        """The same model on the meta device, as another object, built once: what is loaded here stays loaded."""
        if dtype not in self._twins:
            self._twins[dtype] = type(self)(**settings_of(self))
        return self._twins[dtype].load("meta", dtype)

    def _source_layout(self) -> Layout:
        """The configurations of what is loaded, which is fetched where it is on the hub."""
        if self.source is None:
            raise BadInput(
                f"{self.name} has shapes only: set catalog.models.{self.name}.source= to a hub id, a folder or random"
            )
        layout = self.layout if self.source == weights.RANDOM else Layout(weights.fetch(self.source, self.name))
        return layout.accepted(self.name, self.pipelines, self.part)

    def _opened(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The whole pipeline, with the denoiser that is there already, if one is."""
        layout = self._source_layout()
        with quiet():
            if self.source == weights.RANDOM:
                pipeline = random_pipeline(layout, self.part, device, dtype)
            else:
                denoiser = self._denoiser or read_denoiser(layout, self.layout, self.part, dtype)
                pipeline = read_pipeline(layout, dtype, {self.part: denoiser}).to(device)
            pipeline.scheduler = samplers.scheduler(self.sampler, pipeline.scheduler, layout.pipeline)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @property
    def denoiser(self) -> nn.Module:
        """The module that is called once a step, after `load`."""
        if self._denoiser is None:
            raise RuntimeError(f"model {self.name} is not loaded: call load() first")
        return self._denoiser

    @property
    def encodes(self) -> bool:
        """Whether there is a text encoder: not on the meta device, and not with random weights."""
        return self.pipeline is not None and self.pipeline.text_encoder is not None

    def sites(self) -> list[Site]:
        """The self-attention layers of the denoiser, in execution order."""
        return sites(self.denoiser)

    def fingerprint(self) -> str:
        """Twelve hex digits over the files of the weights; `random` or `shapes` where there are no files."""
        if self.source == weights.RANDOM:
            return weights.RANDOM
        known = self.source is not None and (self._loaded is None or self._loaded[0] != "meta")
        return weights.fingerprint(weights.fetch(str(self.source), self.name)) if known else "shapes"

    def fingerprints(self) -> dict[str, str]:
        """The configuration in force: with the class it decides every shape."""
        return {"config": self.layout.fingerprint()}

    def example(self, resolution: Resolution, batch: int = 1) -> dict[str, Any]:
        """Keyword arguments of one denoiser call on noise, on the loaded device and dtype; the same at every call."""
        self.check(resolution)
        weight = next(self.denoiser.parameters())
        latents = torch.cat([self.noise(seed, resolution) for seed in range(batch)])
        text = batched([drawn(str(row), self.text_shapes()) for row in range(batch)])
        timesteps = torch.full((batch,), 500)
        return self.denoise_arguments(latents.to(weight), timesteps.to(weight.device), self._placed(text))

    def noise(self, seed: int, resolution: Resolution) -> Tensor:
        """The initial latents of one image: (1, C, h, w) from a generator of its own on the CPU."""
        size = resolution.height // self.shrink, resolution.width // self.shrink
        return torch.randn((1, self.latent_channels, *size), generator=torch.Generator().manual_seed(seed))

    def text_states(self, prompts: Sequence[str | None], guidance: bool = False) -> States:
        """What the denoiser needs from the text, batched; None, which guidance puts first, is unconditional."""
        conditions: list[str | None] = [None] * len(prompts) if guidance else []
        return self._placed(batched([self._text(prompt) for prompt in [*conditions, *prompts]]))

    def text_states_at_once(self, prompts: list[str]) -> States:
        """As `text_states` but for the last digits, by one call of the encoder: to train on, not to make images of."""
        return self._placed(self._encode(prompts)) if self.encodes else self.text_states(prompts)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to scaled latents: the mean of the autoencoder's distribution."""
        vae = self.pipeline.vae
        at_once = max(1, ENCODED_PIXELS // images[0, 0].numel()) if vae.device.type == "cpu" else len(images)
        parts = torch.split(images.to(vae.device, vae.dtype) * 2 - 1, at_once)
        return torch.cat([vae.encode(part).latent_dist.mode() for part in parts]) * float(vae.config.scaling_factor)

    @cached_property
    def noise_schedule(self) -> Any:
        """A DDPMScheduler on the pipeline's betas: add_noise, get_velocity, alphas_cumprod for training timesteps."""
        return samplers.noise_schedule(self.pipeline.scheduler)

    def calls(self, steps: int, guidance: float) -> int:
        """Calls of the denoiser at batch 1 that an image takes."""
        return samplers.branches(self.layout, self.part, guidance) * samplers.calls(self.sampler, self.layout, steps)

    def generate(
        self, prompts: list[str], seeds: list[int], resolution: Resolution, steps: int, guidance: float, batch: int = 8
    ) -> Tensor:
        """Images (B, 3, H, W), float32 in [0, 1] on the CPU, image i of prompt i and seed i, by whatever is seated."""
        self.check(resolution)
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts came with {len(seeds)} seeds: each image needs one of both")
        if self.pipeline is None:
            raise RuntimeError(f"model {self.name} has no weights to generate with: load it on cpu or cuda first")
        if steps < self.least_steps or batch < 1:
            least = f"give at least {self.least_steps} and 1"
            raise BadInput(f"steps={steps} and batch={batch} make no image with {self.name}: {least}")
        samplers.times(self.pipeline.scheduler, steps)
        made = [torch.empty(0, 3, resolution.height, resolution.width)]
        for start in range(0, len(prompts), batch):
            rows = slice(start, start + batch)
            made.append(self._images(prompts[rows], seeds[rows], resolution, steps, guidance))
        return torch.cat(made)

    def _images(self, prompts: list[str], seeds: list[int], size: Resolution, steps: int, guidance: float) -> Tensor:
        many = len(prompts) * size.pixels > DECODED_PIXELS
        (self.pipeline.vae.enable_slicing if many else self.pipeline.vae.disable_slicing)()
        text = {PIPELINE_NAMES[name]: states for name, states in self.text_states(prompts).items()}
        if guidance > 1:
            empty = self.text_states([None] * len(prompts))
            text |= {f"negative_{PIPELINE_NAMES[name]}": states for name, states in empty.items()}
        images: Tensor = self.pipeline(
            **text,
            **self.call_settings,
            latents=torch.cat([self.noise(seed, size) for seed in seeds]).to(next(self.denoiser.parameters())),
            generator=[torch.Generator().manual_seed(samplers.solver_seed(seed)) for seed in seeds],
            height=size.height,
            width=size.width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="pt",
        ).images
        if self.source != weights.RANDOM:
            check_images(self.name, images, next(self.denoiser.parameters()).dtype)
        return images.float().cpu()

    def _placed(self, text: States) -> States:
        """On the denoiser's device; floating point in its dtype."""
        weight = next(self.denoiser.parameters())
        return {name: t.to(weight.device, weight.dtype if t.is_floating_point() else None) for name, t in text.items()}
