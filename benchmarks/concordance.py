"""Exact concordance at n = 100,000 with 5 % events, against lifelines and scikit-survival in the same run.

In:  nothing; patients are simulated with a fixed seed. Out: one line of JSON on standard output; counts must agree.
Run by hand or by `make benchmarks`: `python benchmarks/concordance.py`, about a minute on 2 cores.

`seconds` are the best of some repeats. `growth` is the time for each n and the time per n log2 n relative to the
smallest: about 1 where time grows as n log n (somewhat more once the data leave the processor's caches).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from lifelines.utils.concordance import _concordance_summary_statistics as lifelines_counts
from sksurv.metrics import concordance_index_censored

from fedecg.evaluation import concordance, concordance_interval

PATIENTS = 100_000
EVENT_FRACTION = 0.05
GROWTH = (10_000, 30_000, 100_000, 300_000, 1_000_000)
TARGETS = {"lifelines": 5.0, "scikit-survival": 15.0}


def cohort(patients: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """(time, event, risk): about 5 % events; a risk that says something; distinct risks, times in whole days."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=patients)
    days = np.ceil(3650 * rng.exponential(1, patients) * np.exp(-0.5 * risk)) + 1
    return days, rng.random(patients) < EVENT_FRACTION, risk


def best_seconds(call: Callable[[], object], repeats: int) -> float:
    """Shortest of some runs: the others were disturbed."""
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return min(spent)


def compare() -> dict[str, object]:
    """Seconds and ratios at `PATIENTS`; raises AssertionError where any count differs."""
    days, event, risk = cohort(PATIENTS)
    ours = concordance(days, event, risk)
    concordant, tied, comparable = lifelines_counts(days, -risk, event)
    assert (ours.concordant, ours.tied_risk, ours.comparable) == (concordant, tied, comparable)
    c_index, concordant, discordant, tied, _ = concordance_index_censored(event, days, risk, tied_tol=0)
    assert (ours.concordant, ours.discordant, ours.tied_risk) == (concordant, discordant, tied)
    assert abs(ours.c_index - c_index) <= 1e-12
    seconds = {
        "fedecg": best_seconds(lambda: concordance(days, event, risk), 10),
        "fedecg-interval": best_seconds(lambda: concordance_interval(days, event, risk), 3),
        "lifelines": best_seconds(lambda: lifelines_counts(days, -risk, event), 3),
        "scikit-survival": best_seconds(lambda: concordance_index_censored(event, days, risk, tied_tol=0), 3),
    }
    ratios = {name: round(seconds[name] / seconds["fedecg"], 1) for name in TARGETS}
    return {
        "patients": PATIENTS,
        "events": int(event.sum()),
        "comparable": ours.comparable,
        "c-index": ours.c_index,
        "seconds": {name: round(spent, 4) for name, spent in seconds.items()},
        "times-as-fast-as": ratios,
        "targets-met": all(ratios[name] >= target for name, target in TARGETS.items()),
    }


def growth() -> dict[str, object]:
    """Seconds by n, and seconds per n log2 n relative to the smallest n."""
    seconds = {n: best_seconds(partial(concordance, *cohort(n)), 3) for n in GROWTH}
    unit = seconds[GROWTH[0]] / (GROWTH[0] * math.log2(GROWTH[0]))
    return {
        "seconds": {str(n): round(spent, 4) for n, spent in seconds.items()},
        "per-n-log-n": {str(n): round(spent / (n * math.log2(n)) / unit, 2) for n, spent in seconds.items()},
    }


if __name__ == "__main__":
    print(json.dumps({"benchmark": "concordance", **compare(), "growth": growth()}))
