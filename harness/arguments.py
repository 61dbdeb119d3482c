"""Words of the command line, before Hydra reads them."""

import re
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


def list_for_map(key: str, value: str, arguments: Sequence[str], variants: Sequence[str]) -> list[str]:
    """What makes room for a list of `sites`, which a variant may have as a map: Hydra lays no list over a map."""
    found = re.fullmatch(r"catalog\.variants\.(\w+)(-\w+)?\.sites", key)
    wanted = found is not None and found[1] in variants and value.startswith("[")
    return [f"~{key}"] if wanted and f"~{key}" not in arguments else []
