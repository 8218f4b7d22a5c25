"""How much faster the encoder trains than the same architecture written as the authors write it.

Run: `python benchmarks/network.py [--seconds 60]`. Out: one JSON line with speed ratios and milliseconds a step.

A step is forward + backward + AdamW on 64 records of 608 samples, 2 threads, float32, dropout as in training. The
reference steps with plain AdamW as the authors do; ours with torch's fused AdamW, which is part of our step. All take
turns, so that other work on the machine slows all alike, and the fastest step of each counts. First the `paper` preset
must give the reference's outputs (1e-4) after copying its weights, or the benchmark stops.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from _authors_network import AuthorsEncoder, convert
from torch import Tensor, nn

from fedecg.model import DualAttentionEncoder

BATCH, SAMPLES, THREADS = 64, 608, 2
TOLERANCE = 1e-4
LEAST_TURNS = 5


def main() -> None:
    """Check, measure, print one JSON line."""
    parser = argparse.ArgumentParser(description="Speed of the encoder against a slow reference.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure (default 60)")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    signal = 0.3 * torch.randn(BATCH, 12, SAMPLES)
    steps = {
        "reference": _step(AuthorsEncoder(SAMPLES), signal, fused=False),
        "paper": _step(DualAttentionEncoder("paper", SAMPLES), signal, fused=True),
        "fedecg": _step(DualAttentionEncoder("fedecg", SAMPLES), signal, fused=True),
        "fedecg-small": _step(DualAttentionEncoder("fedecg", SAMPLES, "small"), signal, fused=True),
    }
    largest_difference = _largest_difference(signal)
    fastest_s = _fastest_s(steps, seconds)
    result = {
        "benchmark": "network",
        **{
            f"{name}_over_reference": round(fastest_s["reference"] / fastest_s[name], 3)
            for name in list(steps)[1:]
        },
        "ms": {name: round(1e3 * fastest, 2) for name, fastest in fastest_s.items()},
        "batch": BATCH,
        "samples": SAMPLES,
        "threads": THREADS,
        "paper_difference": largest_difference,
    }
    print(json.dumps(result))


def _largest_difference(signal: Tensor) -> float:
    """Largest difference of an output after copying the weights, over the root mean square of the outputs."""
    reference, ours = AuthorsEncoder(SAMPLES).eval(), DualAttentionEncoder("paper", SAMPLES).eval()
    ours.load_state_dict(convert(reference.state_dict(), ours.state_dict()))
    with torch.no_grad():
        expected, found = reference(signal), ours(signal)
    difference = float((found - expected).abs().max() / expected.square().mean().sqrt())
    if difference > TOLERANCE:
        raise SystemExit(
            f"the paper preset is off by {difference:.1e} of the reference's outputs (> {TOLERANCE})"
        )
    return difference


def _step(encoder: nn.Module, signal: Tensor, fused: bool) -> Callable[[], None]:
    """One training step of the encoder on the signal; the loss pulls every output to zero."""
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4, weight_decay=1e-2, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        encoder(signal).square().mean().backward()
        optimizer.step()

    return step


def _fastest_s(steps: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Take turns for so many seconds (at least five turns, after one to warm up); the fastest step of each, in s."""
    for step in steps.values():
        step()
    fastest_s = dict.fromkeys(steps, float("inf"))
    turns, end = 0, time.monotonic() + seconds
    while turns < LEAST_TURNS or time.monotonic() < end:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            fastest_s[name] = min(fastest_s[name], time.perf_counter() - start)
        turns += 1
    return fastest_s


if __name__ == "__main__":
    main()
