"""What attention does whatever the query: its smooth part, its artefact tokens (which all queries look at; arXiv
2504.21292, section 3), and how evenly it is spread. Shapes: M maps, Q queries, N keys.
"""

import torch
from torch import Tensor


def low_frequency_share(sharp_mass: float) -> float:
    """What a high-pass takes from maps that sum to 1: 1 for a uniform map, near 0 for attention to oneself alone.

    sharp_mass: the mean over queries of what is left, negative values clipped.
    """
    return 1 - sharp_mass


def artefact_tokens(received_N: Tensor, factor: float) -> Tensor:
    """Keys that receive more than `factor` times their equal share from the queries together, the largest first.

    received_N: the mean attention on each key over all queries.
    """
    found = (received_N > factor / len(received_N)).nonzero().flatten()
    return found[received_N[found].argsort(descending=True)]


def entropy(maps_MQN: Tensor) -> Tensor:
    """(M,) mean over the queries of -sum p log p, in nats: 0 for one key alone, log N for all keys alike."""
    each_MQ: Tensor = torch.special.entr(maps_MQN).sum(dim=-1, dtype=torch.float64)
    return each_MQ.mean(dim=-1)
