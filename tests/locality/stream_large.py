"""Stream the maps of one site of SD1.5 at 1024 pixels: prints its time over that of one SDPA call, and the peak in MB.

Time is the processor's, which other work on the machine does not lengthen.

python tests/locality/stream_large.py
"""

import resource
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

from harness.locality.maps import Projections
from harness.locality.survey import SiteTallies, read_image
from harness.locality.tally import Reader, Tally
from harness.seats.mixer import Site

HEADS, GRID, SIZE = 8, (128, 128), 40


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    q_hNd, k_hNd, v_hNd = (torch.randn(HEADS, GRID[0] * GRID[1], SIZE) for _ in range(3))
    site = Site("site", HEADS * SIZE, HEADS)
    mean, by_head = (Tally(Reader(), GRID, maps, torch.device("cpu")) for maps in (1, HEADS))
    found = SiteTallies(site, GRID, (500,), mean, (mean,), by_head, {})
    scaled_dot_product_attention(q_hNd[:, :64], k_hNd, v_hNd)
    began = time.process_time()
    scaled_dot_product_attention(q_hNd[None], k_hNd[None], v_hNd[None])
    middle = time.process_time()
    with torch.no_grad():
        read_image(found, [Projections(q_hNd * SIZE**-0.5, k_hNd, v_hNd)], keep_rows=True)
    ended = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{(ended - middle) / (middle - began):.2f} {peak:.0f}")
    print(f"SDPA {middle - began:.1f} s, maps {ended - middle:.1f} s, {mean.findings()['receptive_field']} tokens")


if __name__ == "__main__":
    main()
