"""A thousand virtual sites on one machine: time, memory, and whether memory grows with the rounds.

    python benchmarks/thousand_sites.py [--sites 1000] [--keep STORE]

`fedecg-simulate run configs/thousand-sites.toml` in a process of its own: 20 patients a site, 100 sites a round, 10 and
10 rounds, from generating the ECGs to the report. Prints one JSON line: seconds by the clock and of processors (wanted:
less than 900 s on two cores), the most resident memory (wanted: less than 4 GB), and resident memory after the last
round of each stage over that after its first (wanted: 1; the first round is the named peer of this figure).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
LOOK_EVERY_S = 0.2
Rounds = dict[str, list[float]]  # stage -> MB after each of its rounds


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS")), 0.0)


def new_rounds(events: Path, known: int) -> list[str]:
    """Stages of the rounds that have ended since `known` of them were seen."""
    if not events.exists():
        return []
    told = [json.loads(line) for line in events.read_text().splitlines() if line.endswith("}")]
    return [event["stage"] for event in told if event["event"] == "round"][known:]


def watched(command: list[str], events: Path) -> tuple[float, Rounds]:
    """Run to the end; seconds, and memory after each round."""
    rounds: Rounds = {}
    began = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT) as process:
        while process.poll() is None:
            for stage in new_rounds(events, sum(map(len, rounds.values()))):
                rounds.setdefault(stage, []).append(resident_mb(process.pid))
            time.sleep(LOOK_EVERY_S)
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"the study ended with {process.returncode}")
    return seconds, rounds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="folder of prepared ECGs, kept (default: made anew)")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        store = (options.keep or Path(folder) / "store").absolute()
        study = ["configs/thousand-sites.toml", "--out", str(out)]
        settings = [f"data.store={store}", f"partition.sites={options.sites}"]
        command = [sys.executable, "-m", "fedecg_simulations.cli", "run", *study, "--set", *settings]
        seconds, rounds = watched(command, out / "events.jsonl")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        json.dumps(
            {
                "benchmark": "thousand-sites",
                "sites": options.sites,
                "seconds": round(seconds, 1),
                "processor-seconds": round(used.ru_utime + used.ru_stime, 1),
                "cores": os.cpu_count(),
                "most-resident-mb": round(used.ru_maxrss / 1e3),
                "mb-after-each-round": {
                    stage: [round(one) for one in all_of] for stage, all_of in rounds.items()
                },
                "last-round-over-first": {
                    stage: round(all_of[-1] / all_of[0], 3) for stage, all_of in rounds.items()
                },
            }
        )
    )


if __name__ == "__main__":
    main()
