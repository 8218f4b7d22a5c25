"""The bound of benchmarks/deployment.py: a round of ours takes at most a quarter of one of Flower's own processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "deployment.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_round_of_no_work_takes_at_most_a_quarter_of_stock_flowers() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--rounds", "3"], capture_output=True, text=True, timeout=800
    )
    line = json.loads(done.stdout)
    print(line)
    assert line["benchmark"] == "deployment"
    assert (done.returncode, line["ratio-to-stock"] <= 0.25) == (0, True), done.stderr
