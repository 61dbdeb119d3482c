"""Words of the command line, before Hydra reads them."""

from collections.abc import Sequence
from itertools import pairwise


def config_dirs(arguments: Sequence[str]) -> list[str]:
    """The folders of the user's own configurations."""
    joined = [argument.partition("=")[2] for argument in arguments if argument.startswith(("--config-dir=", "-cd="))]
    return joined + [value for option, value in pairwise(arguments) if option in ("--config-dir", "-cd")]


def options_first(arguments: list[str]) -> list[str]:
    """Folders of configurations before all settings: Hydra's parser refuses settings on both sides of an option."""
    places = [place for place, argument in enumerate(arguments) if argument in ("--config-dir", "-cd")]
    first = [argument for place in places for argument in arguments[place : place + 2]]
    rest = [argument for place, argument in enumerate(arguments) if not {place, place - 1} & set(places)]
    return first + rest
