"""Samplers: which scheduler of diffusers makes the images, as part of the protocol.

`own` keeps the checkpoint's with all its settings; any other name builds a scheduler on the checkpoint's noise
schedule. What a scheduler cannot do is refused before an image is made: diffusers silently drops settings that a class
does not know, and then makes garbage (flow matching under DPM-Solver, a schedule that ends in pure noise under DEIS).
"""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

from harness.models.layout import Layout
from harness.models.weights import components
from harness.records.case import BadInput

OWN = "own"
DEFAULT = "dpm++"
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "dpm++_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpm++_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "ddim": ("DDIMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {"algorithm_type": "deis", "solver_type": "logrho"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {"solver_type": "bh2"}),
}
"""Name -> class of diffusers, and what it is given beside the checkpoint's noise schedule."""

SCHEDULE = {
    "num_train_timesteps": None,
    "beta_start": None,
    "beta_end": None,
    "beta_schedule": None,
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
"""Settings that say what the weights learnt, and the value that a class without them takes for granted."""
OTHER_KINDS = ("EDM", "FlowMatch", "LCM", "TCD")
"""Checkpoints whose weights learnt another process than noise by betas, or a shortcut through it."""


def known(name: str) -> None:
    """BadInput for a sampler that is not known."""
    if name != OWN and name not in SAMPLERS:
        raise BadInput(f"sampler {name!r} is not known: choose from {', '.join([OWN, *SAMPLERS])}")


def scheduler_of(layout: Layout) -> Any:
    """The checkpoint's own, from its configuration."""
    import diffusers

    return getattr(diffusers, str(components(layout.folder)["scheduler"][1])).from_config(layout.component("scheduler"))


def scheduler(name: str, own: Any, pipeline: str) -> Any:
    """The scheduler of that name for a checkpoint whose own is `own`; BadInput says why it cannot be."""
    import diffusers

    known(name)
    if name == OWN:
        if not hasattr(own, "init_noise_sigma") or not hasattr(own, "scale_model_input"):
            raise BadInput(
                f"the checkpoint's own {type(own).__name__} cannot be driven by {pipeline}: "
                "its model was made for another pipeline"
            )
        return own
    class_name, settings = SAMPLERS[name]
    refuse_other_kinds(name, own)
    chosen = getattr(diffusers, class_name)
    refuse_what_it_lacks(name, chosen, own.config)
    if class_name == "DPMSolverMultistepScheduler" != type(own).__name__:  # another solver's settings do not carry over
        settings = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"} | settings
    return chosen.from_config(own.config, **settings)


def refuse_other_kinds(name: str, own: Any) -> None:
    """BadInput where a checkpoint's weights learnt what no scheduler on betas can undo."""
    kind = type(own).__name__
    flow = str(own.config.get("prediction_type", "")).startswith("flow") or own.config.get("use_flow_sigmas")
    if kind.startswith(OTHER_KINDS) or flow:
        raise BadInput(
            f"sampler {name!r} cannot make images of this checkpoint, which was made for a {kind}: give sampler={OWN}"
        )


def refuse_what_it_lacks(name: str, chosen: type, config: Mapping[str, Any]) -> None:
    """BadInput where the checkpoint's noise schedule has a part that the class would silently leave out."""
    import inspect

    takes = inspect.signature(chosen.__init__).parameters  # type: ignore[misc]  # of a class, not of an instance
    for part, granted in SCHEDULE.items():
        if part not in takes and config.get(part, granted) not in (granted, None):
            raise BadInput(
                f"sampler {name!r} cannot make images of this checkpoint: {chosen.__name__} has no {part}, "
                f"which is {config[part]} here: give sampler={OWN} or {DEFAULT}"
            )


def times(chosen: Any, steps: int) -> int:
    """How many times the denoiser is called for so many steps; BadInput where the scheduler cannot take them."""
    trial = copy.deepcopy(chosen)
    try:
        trial.set_timesteps(steps)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise BadInput(f"{type(chosen).__name__} cannot take steps={steps}: {error}") from error
    return len(trial.timesteps)


def calls(name: str, layout: Layout, steps: int) -> int:
    """How many times the sampler calls the denoiser of a checkpoint for an image."""
    return times(scheduler(name, scheduler_of(layout), layout.pipeline), steps)


def branches(layout: Layout, part: str, guidance: float) -> int:
    """Rows of a call for one image: guidance above 1 needs an unconditional one beside it, unless it is distilled."""
    distilled = layout.component(part).get("time_cond_proj_dim") is not None
    return 2 if guidance > 1 and not distilled else 1


def noise_schedule(chosen: Any) -> Any:
    """A DDPMScheduler on a checkpoint's betas, which makes noisy latents to train on; BadInput where it has none."""
    from diffusers import DDPMScheduler

    if type(chosen).__name__.startswith(OTHER_KINDS[:2]):
        raise BadInput(
            f"a checkpoint made for a {type(chosen).__name__} has no betas: its students are not trained here"
        )
    return DDPMScheduler.from_config(chosen.config)


def solver_seed(seed: int) -> int:
    """Of the noise that a solver draws between steps: another stream than the initial latents', for each seed."""
    return int.from_bytes(hashlib.sha256(f"solver {seed}".encode()).digest()[:7], "big")
