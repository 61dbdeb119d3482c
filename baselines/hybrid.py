"""A hybrid: some sites keep the teacher's attention and others are replaced.

Which ones is said by patterns of their paths, by a share of them, or by a budget of FLOPs, for which the harness puts
in the sites that a measured profile chooses (harness/locality/profile.py). In a transformer every second block can go
before quality does (grafting, arXiv 2506.05340). A site with `baselines.SelfAttention` keeps its teacher's weights.
"""

from collections.abc import Callable, Mapping, Sequence
from math import floor

from torch import nn

from harness.seats.mixer import BadInput, Site, TokenMixer, fits

ORDERS = ("interleaved", "shallow", "deep")
KEPT = "self_attention"


def for_site(
    site: Site,
    attention: nn.Module,
    sites: Mapping[str, str] | Sequence[str],
    choices: Mapping[str, Callable[[Site, nn.Module], TokenMixer]],
    share: float | None = None,
    order: str = "interleaved",
    replacement: str = "deltaconv",
    flops: float | None = None,
) -> TokenMixer:
    """The mixer of this site, made by the factory of its name in `choices`.

    sites: patterns of paths and the name at each, the first that fits decides; or a list of patterns of what the
    replacement takes. share: of the sites that the replacement takes instead, spread evenly over the order of
    execution (`interleaved`), from its beginning (`shallow`) or from its end (`deep`). BadInput for a site that no
    pattern fits, a pattern that fits no site, a name without a factory, and a share or an order that cannot be.
    """
    if flops is not None:
        raise BadInput(f"flops={flops} is a budget that the harness spells out by a measured profile: give sites here")
    if share is not None:
        name = replacement if _taken(site, share, order) else KEPT
    elif isinstance(sites, Mapping):
        _check(sites, choices)
        name = site.pick(sites, "sites")
    else:
        name = replacement if _listed(site, sites) else KEPT
    if name not in choices:
        raise BadInput(f"the hybrid has {name!r} at {site.path}: choose from {', '.join(choices)}")
    return choices[name](site, attention)


def _check(sites: Mapping[str, str], choices: Mapping[str, object]) -> None:
    """BadInput for a name without a factory, also where no site takes it."""
    for pattern, name in sites.items():
        if name not in choices:
            raise BadInput(f"the hybrid has {name!r} at {pattern}: choose from {', '.join(choices)}")


def _listed(site: Site, patterns: Sequence[str]) -> bool:
    """Whether a pattern of the list fits the site; BadInput for one that fits none."""
    site.pick(dict.fromkeys([*patterns, "*"], ""), "sites")
    return any(fits(site.path, pattern) for pattern in patterns)


def _taken(site: Site, share: float, order: str) -> bool:
    if not 0 <= share <= 1:
        raise BadInput(f"share={share} is not possible: give the share of the sites to replace, from 0 to 1")
    if order not in ORDERS:
        raise BadInput(f"order {order!r} is not known: choose from {', '.join(ORDERS)}")
    if site.path not in site.among:
        raise BadInput(f"share={share} needs all sites of the model, and {site.path} came alone: give sites instead")
    at, total = site.among.index(site.path), len(site.among)
    count = floor(share * total + 0.5)
    if order == "interleaved":
        return (at + 1) * count // total > at * count // total
    return at < count if order == "shallow" else at >= total - count
