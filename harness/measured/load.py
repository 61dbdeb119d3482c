"""What else the machine did during a measurement: cores busy with other work, time that a host took away."""

import os
import time
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Load:
    """The machine's clocks at one moment, in seconds: `end` tells what happened since."""

    wall: float
    own: float
    busy: float
    stolen: float

    @classmethod
    def begin(cls) -> "Load":
        import psutil

        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        stolen = getattr(times, "steal", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return cls(time.perf_counter(), time.process_time(), sum(times) - idle - stolen - guest, stolen)

    def end(self) -> dict[str, Any]:
        """Threads, load average, cores that other processes kept busy, and the share that the host stole."""
        now = Load.begin()
        wall = max(now.wall - self.wall, 1e-9)
        cores = os.cpu_count() or 1
        return {
            "threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "other_cores": max(0.0, (now.busy - self.busy - (now.own - self.own)) / wall),
            "stolen": max(0.0, (now.stolen - self.stolen) / wall / cores),
        }
