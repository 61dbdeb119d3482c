"""What all quality metrics have in common: when they refuse."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.trial import Trial


def refusal(trial: "Trial", least: int) -> str:
    """Why this trial has no quality, or nothing. An untrained student is asked for no image at all."""
    if not (trial.trained or trial.untrained_allowed):
        return f"{trial.case.variant} has no trained weights on {trial.case.model}: an untrained student has no quality"
    if trial.case.n < least:
        return f"n = {trial.case.n} images are too few for this number: ask for at least {least} (n={least})"
    if not trial.images().isfinite().all():
        return "the model made images with values that are not finite"
    return ""


def unpictured(trial: "Trial") -> str:
    """Why a trial's images cannot be compared with real ones, or nothing."""
    world = trial.world
    return "" if world.pictured else f"world {world.name} holds prompts alone: there are no images to compare with"
