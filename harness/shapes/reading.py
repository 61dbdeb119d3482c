"""How a text encoder learns to read captions before anything is drawn: it must say what stands at each place (README,
Method, on why). Each place asks the caption's states, in one attention, for shape, colour and size of the thing there.
Shapes: B captions, L tokens, D width, P places.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from harness.distillation.training import Schedule, train
from harness.shapes.captions import BACKGROUNDS, PLACES, Scene
from harness.shapes.probe import Probe, answers_loss, truth

if TYPE_CHECKING:
    from transformers import T5EncoderModel

UNSAID = -100  # no answer is asked for: nothing stands there, or the caption leaves the colour open


class Reader(nn.Module):
    """(B, L, D) states and (B, L) mask to class scores (B, P, shapes + 1 + colours + sizes + backgrounds)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.places = nn.Parameter(0.1 * torch.randn(len(PLACES), width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.name = nn.Linear(width, sum(Probe.SPLIT) + len(BACKGROUNDS))

    def forward(self, states_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        asked_BPD = self.places.expand(len(states_BLD), -1, -1)
        found_BPD, _ = self.attention(asked_BPD, states_BLD, states_BLD, key_padding_mask=mask_BL == 0)
        return cast(Tensor, self.name(self.norm(found_BPD)))


def learn_to_read(
    encoder: "T5EncoderModel",
    tokens: tuple[Tensor, Tensor],
    scenes: Sequence[Scene],
    schedule: Schedule,
    checkpoint: Path,
    batch: int = 128,
) -> None:
    """Train the encoder on ids and masks (N, L) of the scenes' captions, then freeze it."""
    ids, mask = tokens
    device = next(encoder.parameters()).device
    reader = Reader(encoder.config.d_model).to(device)
    asked = said(scenes)

    def loss(step: int) -> Tensor:
        rows = torch.randint(len(scenes), (batch,), generator=torch.Generator().manual_seed(step))
        seen = mask[rows].to(device)
        scores = reader(encoder(ids[rows].to(device), attention_mask=seen)[0], seen).float()
        return answers_loss(scores, [*Probe.SPLIT, len(BACKGROUNDS)], [answer[rows] for answer in asked])

    learner = nn.ModuleDict({"encoder": encoder, "reader": reader})
    path = checkpoint.with_stem(f"{checkpoint.stem}-reading")
    train(learner, loss, schedule, "reading", path, setting="train.reading")
    encoder.eval().requires_grad_(False)


def said(scenes: Sequence[Scene]) -> tuple[Tensor, ...]:
    """What captions say of each place: shape, colour, size and background, (N, P) each."""
    sight = truth(scenes)
    named = torch.tensor([scene.things[0].named for scene in scenes])
    background = torch.tensor([scene.background for scene in scenes])
    colour = sight.colour.masked_fill(~named[:, None], UNSAID)
    return sight.shape, colour, sight.size, background[:, None].expand(-1, len(PLACES))
