"""Measured memory, in a process whose heap no other test has touched."""

import subprocess
import sys
from pathlib import Path


def test_measured_memory_is_that_of_known_blocks_and_of_projections() -> None:
    file = Path(__file__).with_name("measured_memory.py")
    command = [sys.executable, "-m", "pytest", str(file), "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
