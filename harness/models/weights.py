"""Where weights come from, and what is refused: safetensors only, nothing is ever unpickled.

A source is a diffusers pipeline folder: on this disk, inside a package (`pkg://harness.shapes/weights/tiny_sd`), or on
the model hub (`owner/name`), whose files land in the hub's own cache.
"""

import hashlib
from pathlib import Path

from harness.records.case import BadInput
from harness.seats.sources import PACKAGED, PICKLED, json_of, path_of, reaching_hub, sha256

RANDOM = "random"
UNET = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
PIXART = {"transformer": "PixArtTransformer2DModel", "vae": "AutoencoderKL", "text_encoder": "T5EncoderModel"}
PARTS: dict[str, dict[str, str]] = {
    "StableDiffusionPipeline": UNET,
    "StableDiffusionXLPipeline": UNET | {"text_encoder_2": "CLIPTextModelWithProjection"},
    "PixArtAlphaPipeline": PIXART,
    "PixArtSigmaPipeline": PIXART,
}
"""Pipeline -> its parts that have weights, and their classes: never those that a folder's index names."""
LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
NUMBERS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the formats of weights; whole numbers are quantised ones, which lack their scales here."""
POSITIONS = "position_ids"  # the one tensor of whole numbers that text encoders of old have in their files
READ = (".json", ".txt", ".model")  # configurations and vocabularies: they decide an image as much as weights do


def local(source: str | None) -> Path | None:
    """The folder that a source names on this disk; None for the hub, for random weights and for shapes alone."""
    if source is None or source == RANDOM:
        return None
    folder = path_of(source)
    if not folder.exists() and not source.startswith((".", "/", "~", PACKAGED)) and source.count("/") == 1:
        return None
    if not folder.exists():
        raise BadInput(f"{source} does not exist: give a diffusers pipeline folder, or a hub id written owner/name")
    if not (folder / "model_index.json").is_file():
        raise BadInput(
            f"{source} is not a diffusers pipeline, it has no model_index.json: "
            "give the folder that save_pretrained wrote, the one with model_index.json in it"
        )
    return folder


def at_hand(source: str | None) -> bool:
    """Whether nothing has to be downloaded: a local folder, or a hub id that the hub's cache knows."""
    if source is None or source == RANDOM or local(source) is not None:
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source, "model_index.json"), str)


def fetch(source: str, name: str) -> Path:
    """The folder of a source, downloaded where it is a hub id that the hub's cache lacks; BadInput if unreachable."""
    folder = local(source)
    if folder is not None:
        return folder
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    remedy = f"set catalog.models.{name}.source= to a local diffusers folder, or to random for costs without quality"
    try:
        logging.set_verbosity_error()  # and not `quiet`, which would also hide how far a long download is
        with reaching_hub(f"{name} could not be fetched from the model hub as {source}", remedy):
            return Path(DiffusionPipeline.download(source, use_safetensors=True, safety_checker=None))
    finally:
        logging.set_verbosity(verbosity)


def components(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """Part -> the library and the class that a pipeline's index names for it; BadInput for a damaged index."""
    index = json_of(folder / "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in PARTS:
        raise BadInput(f"{folder} holds a {kind}, which is not supported: choose from {', '.join(PARTS)}")
    found = {part: index[part] for part in PARTS[kind] if part in index}
    found |= {part: value for part, value in index.items() if isinstance(value, list)}
    for part, value in found.items():
        if not isinstance(value, list) or [type(name) in (str, type(None)) for name in value] != [True, True]:
            raise BadInput(
                f"{folder / 'model_index.json'} names {value!r} as its {part}, not a library and a class: "
                "write the pipeline again with save_pretrained"
            )
    return {part: (value[0], value[1]) for part, value in found.items() if isinstance(value, list)}


def weight_files(folder: Path) -> dict[str, list[Path]]:
    """Part -> the safetensors files that a pipeline folder has for it; BadInput names a part that has none."""
    components(folder)
    kind = json_of(folder / "model_index.json")["_class_name"]
    return {part: _files_of(folder / part) for part in PARTS[kind]}


def variant_of(part: Path) -> str | None:
    """The `fp16` of `diffusion_pytorch_model.fp16.safetensors`, where a part has no files without such a word."""
    stem = _stem(part)
    if any((part / f"{stem}.safetensors{ending}").is_file() for ending in ("", ".index.json")):
        return None
    named = {path.name.removeprefix(f"{stem}.").partition(".safetensors")[0] for path in part.glob(f"{stem}.*")}
    words = {word for word in named if (part / f"{stem}.{word}.safetensors").is_file()}
    words |= {path.name.split(".")[-2] for path in part.glob(f"{stem}.safetensors.index.*.json")}
    return min(words, default=None)


def _stem(part: Path) -> str:
    return "model" if part.name.startswith("text_encoder") else "diffusion_pytorch_model"


def _files_of(part: Path) -> list[Path]:
    stem, variant = _stem(part), variant_of(part)
    infix = f".{variant}" if variant else ""
    whole = part / f"{stem}{infix}.safetensors"
    shards = part / f"{stem}.safetensors.index{infix}.json"
    if whole.is_file():
        return [whole]
    if shards.is_file():
        found = [part / name for name in sorted(set(json_of(shards).get("weight_map", {}).values()))]
        if missing := next((shard for shard in found if not shard.is_file()), None):
            raise BadInput(f"{missing} is missing, though {shards.name} names it: fetch the rest of the weights")
        return found
    pickled = [path.name for path in sorted(part.glob("*")) if path.suffix in PICKLED]
    if pickled:
        raise BadInput(
            f"{part} has pickled weights only ({pickled[0]}), and loading a pickle can run any code: "
            f"convert them to {whole.name} with save_pretrained(..., safe_serialization=True)"
        )
    raise BadInput(f"{part} has no weights: {whole.name} is what is looked for")


def check(folder: Path) -> None:
    """Read the header of every weight file; BadInput names what is missing, truncated, corrupt or quantised."""
    parts = weight_files(folder)
    for part, named in components(folder).items():
        if named[0] not in LIBRARIES:
            raise BadInput(
                f"{folder} wants {'.'.join(map(str, named))} as its {part}: only diffusers' own parts are loaded"
            )
    for path in (path for paths in parts.values() for path in paths):
        _check_header(path)
    for part in parts:
        words = folder / part.replace("text_encoder", "tokenizer")
        if part.startswith("text_encoder") and not any((words / name).is_file() for name in VOCABULARIES):
            raise BadInput(f"{words} has no vocabulary: {' or '.join(VOCABULARIES)} is what is looked for")


def _check_header(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as tensors:
            formats = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is missing, truncated or corrupt ({error}): fetch or write it again") from error
    for name, kind in formats.items():
        if kind not in NUMBERS and not name.endswith(POSITIONS):
            raise BadInput(f"{path} holds {name} in {kind}, quantised: give weights in fp32, fp16 or bf16")


def fingerprint(folder: Path) -> str:
    """Twelve hex digits over the weights, configurations and vocabularies that a pipeline folder loads."""
    weights = [path for paths in weight_files(folder).values() for path in paths]
    parts = [folder / part for part in components(folder)]
    read = [path for part in parts if part.name not in UNUSED for path in part.glob("*") if path.suffix in READ]
    total = hashlib.sha256()
    for path in sorted({*weights, *read}):
        total.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return total.hexdigest()[:12]
