"""Ten thousand records are rendered in 20 s of a processor's time and 1 GB."""

import itertools
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from report_stores import GROWTH, MACHINE, case, costs

from harness.records.record import Record
from harness.records.store import Store

SIZES = [f"{64 * width}x{64 * height}" for width in range(1, 11) for height in range(1, 11)]


@pytest.mark.slow
def test_ten_thousand_records_are_a_page_within_20_seconds_and_a_gigabyte(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, (model, variant, size) in enumerate(itertools.product(range(25), GROWTH, SIZES)):
        one = case(f"model_{model}", variant, size)
        started = f"2026-11-26T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}+00:00"
        store.put(Record(case=one, status="ok", readings=costs(one), machine=MACHINE, started=started))
    assert len(list((tmp_path / "records").iterdir())) == 10_000
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-m", "reports", str(tmp_path)], env=environment, check=True)
    took_s, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    size = (tmp_path / "report.html").stat().st_size
    cpu_s = used.ru_utime + used.ru_stime
    print(
        f"{took_s:.1f} s, of which the processor {cpu_s:.1f}; {used.ru_maxrss / 1e6:.2f} GB; page {size / 1e6:.1f} MB"
    )
    assert cpu_s < 20
    assert used.ru_maxrss * 1024 < 1e9
