"""When a quality metric refuses: each function gives the reason, or an empty text."""

from harness.features.kept import FINITE
from harness.trial import Trial


def unfit(trial: Trial) -> str:
    """Why an untrained student is asked for nothing, or nothing."""
    if trial.trained or trial.untrained_allowed:
        return ""
    return f"{trial.case.variant} has no trained weights on {trial.case.model}: an untrained student has no quality"


def refusal(trial: Trial, least: int) -> str:
    """Why this trial has no quality, or nothing. An untrained student is asked for no image at all."""
    if why := unfit(trial):
        return why
    if trial.case.n < least:
        return f"n = {trial.case.n} images are too few for this number: ask for at least {least} (n={least})"
    if not trial.rows(FINITE).all():
        return "the model made images with values that are not finite"
    return ""


def unlike_teacher(trial: Trial) -> str:
    """Why a trial has no error against its teacher, or nothing."""
    return "the teacher is what others are compared with" if trial.exact else unfit(trial)


def unpictured(trial: Trial) -> str:
    """Why a trial's images cannot be compared with real ones, or nothing."""
    world = trial.world
    return "" if world.pictured else f"world {world.name} holds prompts alone: there are no images to compare with"
