"""A world's images and captions as a model's latents and text states, encoded once and kept in the cache, under what
made them: the model's files, what the world teaches, the kind of device.

Where a world teaches captions alone, the teacher draws the images.
"""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from harness.distillation.alone import say
from harness.distillation.processes import count, wait
from harness.distillation.shards import ROWS, Shards, writing
from harness.distillation.student import cache_folder
from harness.features.world import Captioned, World, taught_on, to_draw
from harness.models.model import Model
from harness.models.quiet import quiet
from harness.records.case import BadInput, Resolution
from harness.records.files import locked
from harness.records.spelled import digest

AT_ONCE = 8  # images that the teacher draws at once


def encoded(model: Model, world: World, sizes: Sequence[Resolution], n: int) -> tuple[dict[Resolution, Shards], Shards]:
    """Latents of the first n images at each size, and the states of their captions."""
    weight = next(model.denoiser.parameters())
    made_of = [model.fingerprint(), dict(model.fingerprints()), taught_on(world), str(weight.dtype), weight.device.type]
    folder = cache_folder() / "encoded" / f"{model.name}-{digest(made_of)}"
    latents, text = {size: Shards(folder / str(size), n) for size in sizes}, Shards(folder / "text", n)
    with ExitStack() as stack:
        if count() == 1:
            with writing(folder):
                stack.enter_context(locked(folder / ".lock", "another run encodes the same images: waiting for it"))
        for size, shards in latents.items():
            _encode_images(model, world, size, shards)
        for rows in text.missing():
            with quiet():
                text.put(rows, model.text_states_at_once(latents[sizes[0]].texts(rows)))
    wait()
    for shards in (*latents.values(), text) if weight.is_cuda else ():
        shards.hold(weight.device)
    return latents, text


def _encode_images(model: Model, world: World, size: Resolution, shards: Shards) -> None:
    """Encode the images that are missing, of each file once."""
    missing = shards.missing()
    if not missing:
        return
    first, todo = missing[0].start, f"{sum(map(len, missing))} images of {world.name} at {size}"
    if alone := to_draw(world, shards.n):
        say(f"{world.name} teaches captions alone: {model.name} draws {todo}, kept in {shards.folder}")
        batches = _drawn(model, alone, size, first)
    else:
        say(f"encoding {todo} for {model.name}, kept in {shards.folder}")
        batches = world.training(shards.n, size, str(next(model.denoiser.parameters()).device), first)
    latents, texts = [], list[str]()
    for rows, images, captions in _cut(batches, first):
        if rows.start not in missing[0]:
            continue
        latents.append(model.encode(images))
        texts += captions
        if rows.stop == missing[0].stop:
            shards.put(missing.pop(0), {"latents": torch.cat(latents)}, texts)
            latents, texts = [], []
            if not missing:
                break
    else:
        raise BadInput(f"world {world.name!r} teaches fewer than {shards.n} images: lower train.samples or add images")
    for note in world.notes:
        say(note)


def _drawn(model: Model, captions: list[str], size: Resolution, first: int) -> Iterator[Captioned]:
    """What the teacher makes of each caption, from one of them on, by its pipeline's own steps and guidance."""
    own = inspect.signature(type(model.pipeline).__call__).parameters
    steps, guidance = own["num_inference_steps"].default, own["guidance_scale"].default
    for start in range(first, len(captions), AT_ONCE):
        some = captions[start : start + AT_ONCE]
        with quiet():
            yield model.generate(some, [*range(start, start + len(some))], size, steps, guidance, AT_ONCE), some


def _cut(batches: Iterable[Captioned], first: int) -> Iterator[tuple[range, Tensor, list[str]]]:
    """Batches with the numbers of their rows, cut where a file ends."""
    for images, captions in batches:
        while captions:
            some = ROWS - first % ROWS
            rows = range(first, first + len(captions[:some]))
            yield rows, images[:some], captions[:some]
            first, images, captions = rows.stop, images[some:], captions[some:]
