"""Tests that need a process of their own: run in one, with what they did not do said."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_S = 240
"""Less than pytest's own limit for the test that waits, so that the process is ended with it."""
ALL_WELL, NONE_FOUND = 0, 5
"""pytest's exit statuses; the second also for a file that skips itself."""


def passes_alone(file: Path, **environment: str) -> None:
    """Run a test file by itself; fail as it does, and skip with its reasons where none of its tests ran."""
    command = [sys.executable, "-m", "pytest", str(file), "-q", "-rs", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    told = ran.stdout + ran.stderr
    assert ran.returncode in (ALL_WELL, NONE_FOUND), told
    if not re.search(r"\b[1-9]\d* passed", ran.stdout):
        reasons = re.findall(r"^SKIPPED \[\d+\] .*?:(?:\d+:)? (.*)$", ran.stdout, re.MULTILINE)
        assert reasons, told
        pytest.skip("; ".join(dict.fromkeys(reasons)))
