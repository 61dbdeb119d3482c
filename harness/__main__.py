"""The command line: `python -m harness +sweep=resolution`. Only here is Hydra known; below it is plain Python."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from harness.records.case import BadInput

BAD_INPUT, INTERRUPTED = 2, 130
GROUPS = {"model": "models", "variant": "variants", "metric": "metrics", "worlds": "worlds"}
"""Folder of conf -> its place in the catalogue. A folder `world` would take the setting `world=` for itself."""


def catalog(arguments: list[str]) -> dict[str, Any]:
    """A configuration whose defaults are every file of the catalogue's groups, each under its own name."""
    return {
        "defaults": [
            {f"/{group}@{place}.{name}": name} for group, place in GROUPS.items() for name in names(group, arguments)
        ]
    }


def names(group: str, arguments: list[str]) -> list[str]:
    """What exists in a group: the files of `conf`, and those of the folder that --config-dir adds."""
    import conf

    folders = [Path(path) for path in conf.__path__] + [Path(path) for path in _config_dirs(arguments)]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _config_dirs(arguments: list[str]) -> list[str]:
    joined = [argument.partition("=")[2] for argument in arguments if argument.startswith(("--config-dir=", "-cd="))]
    return joined + [value for option, value in pairwise(arguments) if option in ("--config-dir", "-cd")]


def entrance(do: Callable[[DictConfig], int]) -> Callable[[], None]:
    """What composes a configuration and does something with it; a status leaves by SystemExit, as Hydra drops it."""

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
    def run(config: DictConfig) -> None:
        status = status_of(lambda: do(config))
        if status:
            raise SystemExit(status)

    composed: Callable[[], None] = run
    return composed


def _gate(verb: str, config: DictConfig) -> int:
    """A verb of the gate, told what was typed: the processes of other commits are given the same."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from harness.regression.verbs import VERBS

    give_way(config, HydraConfig.get().overrides.task)
    remind(config)
    if verb not in VERBS:
        raise BadInput(f"gate {verb!r} is not known: choose from check, {', '.join(VERBS)}")
    return VERBS[verb](instantiate(config, _convert_="all"))


def _do(config: DictConfig) -> int:
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from harness.console import Console
    from harness.distillation.trainable import Trainable
    from harness.run import run as run_experiment

    give_way(config, HydraConfig.get().overrides.task)
    remind(config)
    part = instantiate(config.train, _convert_="all")
    if isinstance(part, Trainable):
        part.train()
        return 0
    return run_experiment(instantiate(config, _convert_="all"), Console())


def give_way(config: DictConfig, overrides: Sequence[str]) -> None:
    """What the command line sets of a variant, or of a hybrid's choice, holds on every model: it drops such presets."""
    for override in overrides:
        named = re.match(r"\+*catalog\.variants\.([^.=]+(?:\.choices\.[^.=]+)?)\.([^.=]+)", override)
        if named is None:
            continue
        variant, setting = named.groups()
        for model in config.catalog.models.values():
            if preset := OmegaConf.select(model, f"presets.{variant}"):
                with open_dict(preset):
                    preset.pop(setting, None)


def remind(config: DictConfig) -> None:
    """Tell a gate that compares speeds what was typed: the processes of either commit are given the same."""
    if OmegaConf.select(config, "gate.speed") is not None:
        config.gate.speed.arguments = [argument.replace("${", "\\${") for argument in sys.argv[1:]]


def verb_of(arguments: list[str]) -> Callable[[DictConfig], int]:
    """What is to be done: `gate VERB ...` takes its words off the command line, which then is Hydra's.

    `base=REF` is short for gate.speed.base=, with the quotes that Hydra wants around HEAD~1.
    """
    if arguments[1:2] != ["gate"]:
        return _do
    del arguments[1]
    for place, argument in enumerate(arguments):
        if argument.startswith("base="):
            arguments[place] = f"gate.speed.base='{argument.removeprefix('base=')}'"
    verb = arguments.pop(1) if arguments[1:] and arguments[1].isalpha() else "check"
    if verb in ("claims", "table"):
        arguments.append("gate=claims")
    elif not any(argument.startswith("+sweep=") for argument in arguments):
        arguments.append("+sweep=ci")
    arguments[1:] = options_first(arguments[1:])
    return _do if verb == "check" else partial(_gate, verb)


def options_first(arguments: list[str]) -> list[str]:
    """Folders of configurations before all settings: Hydra's parser refuses settings on both sides of an option."""
    places = [place for place, argument in enumerate(arguments) if argument in ("--config-dir", "-cd")]
    first = [argument for place in places for argument in arguments[place : place + 2]]
    rest = [argument for place, argument in enumerate(arguments) if not {place, place - 1} & set(places)]
    return first + rest


def status_of(job: Callable[[], int | None]) -> int:
    """Exit status: 0 well, 1 a gate or a case failed, 2 bad input, 3 a gate is inconclusive, 130 interrupted."""
    try:
        return job() or 0
    except InstantiationException as error:
        return _refused(error.__cause__ if isinstance(error.__cause__, BadInput) else error)
    except (HydraException, OmegaConfBaseException, BadInput) as error:
        return _refused(error)
    except KeyboardInterrupt:
        print("interrupted: finished cases are kept, and the same command goes on from there", file=sys.stderr)
        return INTERRUPTED


def _refused(error: BaseException) -> int:
    print(" ".join(str(error).split()), file=sys.stderr)
    return BAD_INPUT


def main() -> int:
    """Compose and run."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if sys.argv[1:2] == ["students"]:
        from harness.distillation.shelf import students

        return status_of(lambda: students(sys.argv[2:]))
    do = verb_of(sys.argv)
    ConfigStore.instance().store(name="catalog", node=catalog(sys.argv), package="catalog")
    return status_of(entrance(do))


if __name__ == "__main__":
    sys.exit(main())
