"""Trials whose rows are given: metrics judge them as they judge what extractors say of images."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.features.kept import FINITE
from harness.records.case import Resolution


def trial(**rows: Tensor) -> Any:
    """Of N prompts with one image each.

    rows: `features` (N, D) of images with as many `references` or more; `logits` (N, K); `embeddings` (N, E) with the
    `texts` of their prompts. What is not given is not asked for.
    """
    n = len(next(iter(rows.values())))
    held = {"dino": rows.get("features"), "classes": rows.get("logits"), "clip": rows.get("embeddings")}
    held[FINITE.protocol] = torch.ones(n, dtype=torch.bool)
    prompts = [f"prompt {i}" for i in range(2 * n)]
    references = rows.get("references")
    world = SimpleNamespace(
        name="known",
        dino=SimpleNamespace(protocol="dino", logits_protocol="classes", features=None, logits=None),
        clip=SimpleNamespace(protocol="clip", images=None, texts=lambda asked: rows["texts"]),
        prompts=lambda count: prompts[:count],
        pictured=references is not None,
        held=lambda count: len(references) if references is not None else 0,
    )
    return SimpleNamespace(
        case=SimpleNamespace(n=n, variant="v", model="m", resolution=Resolution(8, 8)),
        world=world,
        rows=lambda reader: held[reader.protocol],
        reference_rows=lambda reader, count: references[:count],
        references=lambda count: torch.zeros(count, 3, 8, 8),
        real=SimpleNamespace(once=lambda made_of, rows, compute: compute()),
        prompts=prompts[:n],
        trained=True,
        untrained_allowed=False,
    )


@pytest.fixture
def rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are no images: what is tried on images is left out, and the floor, which is no part of an interval."""
    monkeypatch.setattr("harness.judged.fdd.split_half_floor", lambda y, count: (0.0, count))
    monkeypatch.setattr("harness.judged.fdd.untrusted_distance", lambda images, distance: "")
