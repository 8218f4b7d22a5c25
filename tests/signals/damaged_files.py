"""Reads damaged copies of one record, in a process of its own: a crash or a hang of it is seen by whoever started it.

    python damaged_files.py FOLDER RECORD DAMAGED-FILE FIRST-SEED INPUTS

FOLDER holds the sound files. Prints one JSON line: inputs, refusals by code ("" = read), other exceptions with their
seeds, the slowest input in seconds, growth of the process in bytes, the largest file in bytes.
"""

import json
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from damage import damaged

from fedecg.errors import FedecgError
from fedecg.signals import assess, read_recording
from fedecg.signals.reading import read_median, read_recordings

SEED_FILE = "seed"


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_all_ways(record: Path) -> str:
    """The code of the refusal, or "" where it was read; a recording that was read must be one."""
    try:
        recording = read_recording(record)
    except FedecgError as error:
        code = error.code
    else:
        assess(recording)
        code = ""
    for read in (lambda: list(read_recordings(record)), lambda: read_median(record)):
        try:
            read()
        except FedecgError:
            continue
    return code


def main(folder: Path, record: str, target: str, first: int, inputs: int) -> dict[str, object]:
    """As above."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        copy = Path(place) / "copy"
        shutil.copytree(folder, copy)
        sound = (copy / target).read_bytes()
        for _ in range(3):
            assert read_all_ways(copy / record) == "", "the sound file is refused"
        before, codes, other, slowest, largest = peak_bytes(), Counter(), [], 0.0, len(sound)
        seen = os.open(folder.parent / SEED_FILE, os.O_RDWR | os.O_CREAT)
        for seed in range(first, first + inputs):
            os.pwrite(seen, f"{seed:>12}".encode(), 0)
            content = damaged(sound, seed)
            (copy / target).write_bytes(content)
            started = time.monotonic()
            try:
                codes[read_all_ways(copy / record)] += 1
            except BaseException as error:
                other.append((seed, type(error).__name__))
            slowest, largest = max(slowest, time.monotonic() - started), max(largest, len(content))
        return {
            "inputs": inputs,
            "codes": dict(codes),
            "other": other[:20],
            "slowest-s": slowest,
            "growth": peak_bytes() - before,
            "largest": largest,
        }


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # libraries warn of what is refused here anyway
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
