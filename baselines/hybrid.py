"""A hybrid: some sites keep the teacher's attention and others are replaced, by patterns of their paths.

Where attention is dear (the finest level of a UNet) is seldom where it is needed most; in a transformer every second
block can go before quality does (grafting, arXiv 2506.05340). A site that takes `baselines.SelfAttention` keeps its
teacher's weights: distillation leaves it alone.
"""

from collections.abc import Callable, Mapping

from torch import nn

from harness.seats.mixer import BadInput, Site, TokenMixer


def for_site(
    site: Site,
    attention: nn.Module,
    sites: Mapping[str, str],
    choices: Mapping[str, Callable[[Site, nn.Module], TokenMixer]],
) -> TokenMixer:
    """The mixer of the first pattern in `sites` that fits the path, made by the factory of that name in `choices`.

    BadInput for a site that no pattern fits, for a pattern that fits no site, and for a name without a factory.
    """
    for pattern, name in sites.items():
        if name not in choices:
            raise BadInput(f"the hybrid has {name!r} at {pattern}: choose from {', '.join(choices)}")
    return choices[site.pick(sites, "sites")](site, attention)
