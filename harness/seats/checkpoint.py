"""Weights of a variant from one file: found, read, given to the mixers site by site, and accounted for.

A source is a safetensors file or a folder with one: on this disk, inside a package (`pkg://package/file`), or on the
model hub (`owner/name`, or `owner/name/file.safetensors` where the hub's folder has several). How a file names its
tensors is known to the mixers (`TokenMixer.locate`): as published, or as in a student of ours.
"""

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness.records.case import BadInput
from harness.seats.factory import at, differing, made_with, makers, mixer_name
from harness.seats.mixer import Site, TokenMixer
from harness.seats.sources import PACKAGED, PICKLED, json_of, path_of, reaching_hub, read_tensors, sha256, unreachable
from harness.seats.surgery import Factory

SUFFIX = ".safetensors"
WAYS = f"give a {SUFFIX} file, a folder with one, or a hub id written owner/name or owner/name/file{SUFFIX}"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by their names in the file. source: as it was asked for. config: the config.json beside it, if any."""

    source: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    header: Mapping[str, str] = field(default_factory=dict, repr=False)

    def names(self, mixer: type[TokenMixer]) -> dict[str, dict[str, str]]:
        """Site path -> the mixer's parameter -> the file's name for it; BadInput for a parameter with two names."""
        found: dict[str, dict[str, str]] = {}
        for name in self.tensors:
            located = mixer.locate(name, self.config)
            if located is not None:
                path, parameter = located
                other = found.setdefault(path, {}).setdefault(parameter, name)
                if other != name:
                    raise BadInput(f"{self.source} holds {other} and {name} for one parameter: leave one of them")
        return found

    def states(self, mixer: type[TokenMixer]) -> dict[str, dict[str, Tensor]]:
        """Site path -> the mixer's parameter -> its value."""
        return {
            path: {own: self.tensors[name] for own, name in names.items()} for path, names in self.names(mixer).items()
        }

    def student(self) -> tuple[str, dict[str, Any]] | None:
        """Mixer and settings that it says it was made with, if it is a student."""
        return made_with(self.source, self.config, self.header)


@dataclass(frozen=True)
class Account:
    """loaded, left_over: names in the file. missing: `<site>.<parameter>` of biases that it lacks, which are zero."""

    source: str
    sites: int
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        said = [f"{self.source}: {len(self.loaded)} tensors loaded at {self.sites} sites"]
        if self.missing:
            said.append(f"{len(self.missing)} missing biases are zero, the first {self.missing[0]}")
        if self.left_over:
            said.append(f"{len(self.left_over)} tensors left over, the first {self.left_over[0]}")
        return "; ".join(said)


@dataclass
class Weighted:
    """A factory whose mixers get a checkpoint's weights; one that is the teacher's own attention keeps its own.

    chosen: settings that the user gave, in which the factory may differ from what a student was made with.
    """

    factory: Factory
    checkpoint: Checkpoint
    chosen: Container[str] = ()
    _names: dict[type[TokenMixer], dict[str, dict[str, str]]] = field(default_factory=dict, repr=False)
    _filled: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """BadInput where the checkpoint is a student of another mixer than the factory's."""
        self._differing: dict[str, tuple[Any, Any]] = {}
        student = self.checkpoint.student()
        if student is None or not isinstance(self.factory, partial):
            return
        name, settings = student
        made_by = next((each for each in makers(self.factory) if mixer_name(each) == name), None)
        if made_by is None:
            raise BadInput(
                f"{self.checkpoint.source} is a student of {name}, not of {mixer_name(self.factory)}: "
                "apply it as what it is"
            )
        found = differing(made_by, settings)
        self._differing = {key: values for key, values in found.items() if key not in self.chosen}

    def __call__(self, site: Site, attention: nn.Module) -> TokenMixer:
        """The mixer of a site; BadInput where the checkpoint is of another model, or does not fit this site."""
        self._agree(site)
        mixer = self.factory(site, attention)
        if mixer.exact:
            return mixer
        kind = type(mixer)
        if kind not in self._names:
            self._names[kind] = self.checkpoint.names(kind)
        known = self._names[kind]
        if site.path not in known or (site.among and not known.keys() <= set(site.among)):
            raise BadInput(_misfit(self.checkpoint, site, kind, list(known)))
        names = known[site.path]
        try:
            mixer.load_published({own: self.checkpoint.tensors[name] for own, name in names.items()})
        except BadInput as error:
            raise BadInput(f"{self.checkpoint.source} does not fit site {site.path}: {error}") from error
        missing = [f"{site.path}.{own}" for own in mixer.state_dict() if own not in names]
        self._filled[site.path] = (list(names.values()), missing)
        return mixer

    def _agree(self, site: Site) -> None:
        """BadInput where a student was made with other settings at this site than the factory has there."""
        here = {name: [at(site, value, name) for value in values] for name, values in self._differing.items()}
        unlike = {name: values for name, values in here.items() if values[0] != values[1]}
        if unlike:
            theirs, ours = (", ".join(f"{name}={values[i]}" for name, values in unlike.items()) for i in (0, 1))
            raise BadInput(
                f"{self.checkpoint.source} is a student with {theirs}, not with {ours}, at site {site.path}: give it "
                "the settings that it was made with"
            )

    def account(self) -> Account:
        """What became of the checkpoint at the sites that have been filled so far."""
        loaded = sorted(name for names, _ in self._filled.values() for name in names)
        missing = tuple(name for _, names in self._filled.values() for name in names)
        left_over = tuple(sorted(self.checkpoint.tensors.keys() - set(loaded)))
        return Account(self.checkpoint.source, len(self._filled), tuple(loaded), missing, left_over)


def _misfit(checkpoint: Checkpoint, site: Site, mixer: type[TokenMixer], found: list[str]) -> str:
    among = site.among or (site.path,)
    if not found:
        first = next(iter(checkpoint.tensors), "nothing at all")
        return f"{checkpoint.source} holds no weights of a {mixer.__name__}: what it holds begins with {first}"
    if set(found) < set(among):
        return (
            f"{checkpoint.source} has {len(found)} of this model's {len(among)} sites and lacks {site.path}: "
            "give the whole checkpoint"
        )
    return (
        f"{checkpoint.source} is a checkpoint of another model: its {len(found)} sites run from {found[0]} to "
        f"{found[-1]}, this model's {len(among)} from {among[0]} to {among[-1]}"
    )


def read(source: str | Path) -> Checkpoint:
    """The checkpoint at a source; BadInput where there is none, or one that cannot be read safely."""
    from safetensors import SafetensorError

    path = find(source)
    beside = path.parent / "config.json"
    try:
        tensors, header = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is truncated or corrupt ({error}): fetch or write it again") from error
    return Checkpoint(str(source), tensors, json_of(beside) if beside.is_file() else {}, header)


def digest(source: str | Path) -> str:
    """Twelve hex digits over a source's file and the config.json beside it."""
    path = find(source)
    total = hashlib.sha256()
    for part in (path, path.parent / "config.json"):
        if part.is_file():
            total.update(bytes.fromhex(sha256(part)))
    return total.hexdigest()[:12]


def local(source: str | Path) -> Path | None:
    """The file or folder that a source names on this disk; None for the hub. BadInput where it does not exist."""
    written = str(source)
    path = path_of(source)
    if path.exists():
        return path
    parts = written.split("/")
    named = path.suffix in (SUFFIX, *PICKLED)
    if isinstance(source, str) and not written.startswith((".", "/", "~", PACKAGED)) and len(parts) > 1 + named:
        return None
    raise BadInput(f"{written} does not exist: {WAYS}")


def find(source: str | Path) -> Path:
    """The one safetensors file of a source, downloaded where it is on the hub."""
    path = local(source)
    if path is None:
        return _downloaded(str(source))
    if path.is_dir():
        path /= _only((inside.name for inside in path.iterdir()), str(path))
    _check_suffix(path)
    return path


def _check_suffix(path: Path) -> None:
    if path.suffix in PICKLED:
        raise BadInput(
            f"{path} is a pickle, and loading a pickle can run any code: convert it with safetensors.torch.save_file"
        )
    if path.suffix != SUFFIX:
        raise BadInput(f"{path} is no {SUFFIX} file: {WAYS}")


def _only(names: Iterable[str], folder: str) -> str:
    """The one file of weights in a folder, a pickle only where there is nothing else; BadInput for none or several."""
    inside = sorted(names)
    found = [name for name in inside if name.endswith(SUFFIX)]
    found = found or [name for name in inside if name.endswith(PICKLED)][:1]
    if len(found) != 1:
        said = f"{len(found)} of them ({', '.join(found)})" if found else "none"
        raise BadInput(f"one {SUFFIX} file is looked for in {folder} and there is {said}: {WAYS}")
    return found[0]


def _downloaded(source: str) -> Path:
    """The one file of weights in a hub's folder, or the one that the source names, in the hub's own cache."""
    from huggingface_hub import snapshot_download

    owner, name, *inside = source.split("/")
    failed, remedy = f"{source} could not be fetched from the model hub", "download it and give the local file"
    with reaching_hub(failed, remedy):
        names = [] if inside else _listed(f"{owner}/{name}")
    wanted = "/".join(inside) or _only(names, source)
    _check_suffix(Path(wanted))
    with reaching_hub(failed, remedy):
        folder = snapshot_download(f"{owner}/{name}", allow_patterns=[wanted, "*.json"])
    path = Path(folder) / wanted
    if not path.exists():
        raise BadInput(f"{owner}/{name} has no {wanted} on the model hub: {WAYS}")
    return path


def _listed(repository: str) -> list[str]:
    """The files at the top of a hub's folder; where the hub is out of reach, those that its cache has."""
    from huggingface_hub import list_repo_files, snapshot_download

    try:
        return [name for name in list_repo_files(repository) if "/" not in name]
    except unreachable():
        return [path.name for path in Path(snapshot_download(repository, local_files_only=True)).iterdir()]
