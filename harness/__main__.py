"""The command line: `python -m harness +sweep=resolution`. Only here is Hydra known; below it is plain Python."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, InstantiationException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from harness.arguments import config_dirs, list_for_map, options_first
from harness.records.case import BadInput

BAD_INPUT, INTERRUPTED, NOBODY_READS = 2, 130, 141
GROUPS = {"model": "models", "variant": "variants", "metric": "metrics", "worlds": "worlds"}
"""Folder of conf -> its place in the catalogue. A folder `world` would take the setting `world=` for itself."""


def catalog(arguments: list[str]) -> dict[str, Any]:
    """A configuration whose defaults are every file of the catalogue's groups, each under its own name."""
    held = [(group, place, name) for group, place in GROUPS.items() for name in names(group, arguments)]
    trained = {path.stem: path for path in _files("train", arguments)}
    held += [("train", "recipes", name) for name in trained if _is_recipe(name, trained)]
    return {"defaults": [{f"/{group}@{place}.{name}": name} for group, place, name in dict.fromkeys(held)]}


def names(group: str, arguments: list[str]) -> list[str]:
    """What exists in a group: the files of `conf`, and those of the folder that --config-dir adds."""
    return sorted({path.stem for path in _files(group, arguments)})


def _files(group: str, arguments: list[str]) -> list[Path]:
    return [path for folder in _folders(arguments) for path in sorted((folder / group).glob("*.yaml"))]


def _folders(arguments: Sequence[str]) -> list[Path]:
    """Where configurations lie: the package `conf`, then the folder of --config-dir."""
    import conf

    return [Path(path) for path in (*conf.__path__, *config_dirs(arguments))]


def _is_recipe(name: str, files: Mapping[str, Path]) -> bool:
    """Whether a file of `train`, or one that its defaults build on, is a recipe; others train a part of the world."""
    text = files[name].read_text(encoding="utf-8")
    if re.search(r"^_target_: \S*Recipe$", text, re.MULTILINE):
        return True
    if not re.search(r"^defaults:", text, re.MULTILINE):
        return False
    bases = (str(entry).partition("@")[0].rpartition("/")[2] for entry in OmegaConf.load(files[name]).defaults)
    return any(_is_recipe(base, files) for base in bases if base in files and base != name)


class OwnFolderFirst(SearchPathPlugin):
    """What the user keeps in the folder of --config-dir is found before what the package has under the same name."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Hydra puts that folder last."""
        for folder in config_dirs(sys.argv):
            search_path.prepend("own", f"file://{Path(folder).resolve()}")


def plain(arguments: Sequence[str]) -> list[str]:
    """Every setting as Hydra's `++`, which takes any name: `settings.check` refuses unknown ones. BadInput for a choice
    of a group that has no such file.
    """
    folders = (path for folder in _folders(arguments) for path in folder.glob("*/"))
    groups, variants = {path.name for path in folders if any(path.glob("*.yaml"))}, names("variant", [*arguments])
    written = re.compile(r"\+{0,2}([A-Za-z_][\w.\-]*)=(.*)", re.DOTALL)
    made = []
    for argument in arguments:
        found = written.fullmatch(argument)
        if found is None or found[1] == "sweep" or found[1].startswith("hydra."):
            made.append(argument)
        elif found[1] in groups:
            _check_choice(found[1], found[2], names(found[1], [*arguments]))
            made.append(argument)
        else:
            made += [*list_for_map(found[1], found[2], arguments, variants), f"++{argument.lstrip('+')}"]
    return made


def _check_choice(group: str, given: str, known: Sequence[str]) -> None:
    if group in GROUPS:
        place = "world" if group == "worlds" else GROUPS[group]
        raise BadInput(f"{group}={given} chooses nothing: write {place}={given if group == 'worlds' else f'[{given}]'}")
    for name in given.split(","):
        if name not in known:
            raise BadInput(f"{group}={given} is not possible: choose from {', '.join(known)}")


def entrance(do: Callable[[DictConfig], int], statuses: list[int]) -> Callable[[], None]:
    """A Hydra application for each job of -m; statuses are noted, since Hydra drops what is returned."""

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
    def run(config: DictConfig) -> None:
        statuses.append(status_of(lambda: do(config)))
        if statuses[-1] == INTERRUPTED:
            raise SystemExit(INTERRUPTED)

    composed: Callable[[], None] = run
    return composed


def _gate(verb: str, config: DictConfig) -> int:
    """A verb of the gate."""
    from harness.regression.verbs import VERBS

    _complete(config)
    if verb not in VERBS:
        raise BadInput(f"gate {verb!r} is not known: choose from check, {', '.join(VERBS)}")
    return VERBS[verb](checked(config))


def _do(config: DictConfig) -> int:
    """Run an experiment, or train a part of the embedded world."""
    from harness.console import Console
    from harness.distillation.trainable import Trainable
    from harness.run import run as run_experiment

    _complete(config)
    if config.train is not None and isinstance(part := checked(config.train, "train"), Trainable):
        part.train()
        return 0
    return run_experiment(checked(config), Console())


def _complete(config: DictConfig) -> None:
    """Add what follows from the command line; a gate of speeds hands it on to the processes of both commits."""
    from hydra.core.hydra_config import HydraConfig

    settle(config, HydraConfig.get().overrides.task, HydraConfig.get().runtime.choices.get("sweep"))
    if OmegaConf.select(config, "gate.speed") is not None:
        config.gate.speed.arguments = [argument.replace("${", "\\${") for argument in sys.argv[1:]]


def settle(config: DictConfig, typed: Sequence[str], sweep: str | None) -> None:
    """Let presets of models give way to what was said: on the command line, in a sweep, in files of --config-dir."""
    own = [Path(folder) for folder in config_dirs(sys.argv)]
    sweeps = (folder / "sweep" / f"{sweep}.yaml" for folder in reversed(_folders(sys.argv)))
    swept = next((OmegaConf.load(path) for path in sweeps if path.is_file()), OmegaConf.create())
    variants = [(path.stem, OmegaConf.load(path)) for folder in own for path in sorted(folder.glob("variant/*.yaml"))]
    told = OmegaConf.select(swept, "catalog.variants")
    of_sweep = [each for each in told.items() if isinstance(each[1], DictConfig)] if OmegaConf.is_dict(told) else []
    said = (f"catalog.variants.{name}.{key}" for name, node in [*variants, *of_sweep] for key in _keys(node))
    give_way(config, [*typed, *said])
    maps = [(f"catalog.variants.{name}.{key}", value) for name, node in of_sweep for key, value in node.items()]
    overrides = OverridesParser.create().parse_overrides(list(typed))
    values = [(each.key_or_group, each.value()) for each in overrides if not each.is_delete()]
    put_in_place(config, [*maps, *values])
    of_train = OmegaConf.select(swept, "train")
    taught = [(f"train.{name}", value) for name, value in (of_train.items() if OmegaConf.is_dict(of_train) else ())]
    teach_all(config, [(key, value) for key, value in (*taught, *values) if key.startswith("train.")])


def teach_all(config: DictConfig, given: Iterable[tuple[str, Any]]) -> None:
    """Let what was said of `train` hold for each recipe, where several are compared."""
    for key, value in given:
        for name in config.catalog.recipes if OmegaConf.select(config, "recipes") else ():
            OmegaConf.update(config, f"catalog.recipes.{name}{key.removeprefix('train')}", value, force_add=True)


def put_in_place(config: DictConfig, given: Iterable[tuple[str, Any]]) -> None:
    """Let a map stand for the one that was there before. Hydra lays it over that one, so that `presets.deltaconv={}`
    would drop nothing, and of a hybrid's `sites` the old patterns would come first. Parts with settings stay merged.
    """
    placed: tuple[str, ...] = ()
    for key, value in given:
        there = OmegaConf.select(config, key)
        if isinstance(value, dict | DictConfig) and isinstance(there, DictConfig) and not _holds_parts(there):
            OmegaConf.update(config, key, value, merge=False, force_add=True)
            placed += (f"{key}.",)
        elif key.startswith(placed):
            OmegaConf.update(config, key, value, force_add=True)


def _holds_parts(node: DictConfig) -> bool:
    """Whether it describes a part, or some by their names."""
    return "_target_" in node or any(isinstance(each, DictConfig) and "_target_" in each for each in node.values())


def _keys(settings: Any) -> Iterator[str]:
    """The names of settings, those of a hybrid's choices as `choices.deltaconv.kernel_size`."""
    for name, value in settings.items():
        inside = value.items() if name == "choices" and value else ()
        yield from (f"choices.{choice}.{key}" for choice, node in inside for key in _keys(node))
        yield str(name)


def checked(config: DictConfig, path: str = "") -> Any:
    """What a configuration describes, made after all its settings were checked. path: what its settings begin with."""
    from hydra.utils import instantiate

    from harness.settings import check

    check(OmegaConf.to_container(config, resolve=True), path)
    return instantiate(config, _convert_="all")


def give_way(config: DictConfig, overrides: Sequence[str]) -> None:
    """Drop the presets of models that the command line sets itself, for a variant or for one choice of a hybrid.

    `deltaconv-k7`, which has the presets of `deltaconv`, then has a copy of them less what was set.
    """
    for override in overrides:
        named = re.match(r"\+*catalog\.variants\.([^.=]+(?:\.choices\.[^.=]+)?)\.([^.=]+)", override)
        if named is None:
            continue
        variant, setting = named.groups()
        name = variant.partition(".")[0]
        for model in config.catalog.models.values():
            presets = OmegaConf.select(model, "presets") or OmegaConf.create()
            with open_dict(presets):
                if name not in presets and (base := presets.get(name.partition("-")[0])):
                    presets[name] = deepcopy(base)
                (OmegaConf.select(presets, variant) or {}).pop(setting, None)


def verb_of(arguments: list[str]) -> Callable[[DictConfig], int]:
    """What is to be done; the words of `gate VERB` are taken off the command line, whose rest is Hydra's. `base=REF`
    stands for gate.speed.base=, with the quotes that Hydra wants around HEAD~1.
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


def status_of(job: Callable[[], int | None]) -> int:
    """Exit status: 0 well, 1 a gate or a case failed, 2 bad input, 3 a gate is inconclusive, 130 interrupted."""
    try:
        status = job() or 0
        sys.stdout.flush()
        return status
    except InstantiationException as error:
        return _refused(error.__cause__ if isinstance(error.__cause__, BadInput) else error)
    except (HydraException, OmegaConfBaseException, BadInput) as error:
        return _refused(error)
    except BrokenPipeError:  # who read this has left, as `head` does: nothing is said, also at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except KeyboardInterrupt:
        print("interrupted: finished cases are kept, and the same command goes on from there", file=sys.stderr)
        return INTERRUPTED


def _refused(error: BaseException) -> int:
    why = f": {error.__cause__}" if isinstance(error, HydraException) and error.__cause__ else ""
    print(" ".join(f"{error}{why}".split()), file=sys.stderr)
    return BAD_INPUT


def main() -> int:
    """Compose and run."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if sys.argv[1:2] == ["students"]:
        from harness.distillation.shelf import students

        return status_of(lambda: students(sys.argv[2:]))
    statuses: list[int] = []
    status = status_of(lambda: _composed(verb_of(sys.argv), statuses))
    return max(statuses, default=0) if status == 0 else status


def _composed(do: Callable[[DictConfig], int], statuses: list[int]) -> None:
    """Hand the command line to Hydra."""
    sys.argv[1:] = plain(sys.argv[1:])
    Plugins.instance().register(OwnFolderFirst)
    ConfigStore.instance().store(name="catalog", node=catalog(sys.argv), package="catalog")
    with TemporaryDirectory() as folder:  # where Hydra writes down what -m stands for
        if {"-m", "--multirun"} & set(sys.argv):
            sys.argv += [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=."]
        entrance(do, statuses)()


if __name__ == "__main__":
    sys.exit(main())
