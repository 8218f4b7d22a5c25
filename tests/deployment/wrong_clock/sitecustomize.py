"""A clock that is off by as many minutes as the file $WRONG_CLOCK says, while that file is there; it may come and go.

In:  this folder on a process's PYTHONPATH, which has Python import this module at its start. Used by chaos. Who asks
Python for the time gets the wrong one; seconds that a process counts (time.monotonic, its sleeps) stay true, as beside
a wrong clock of a machine. gRPC gives its core deadlines by Python's clock, and the core compares them with the
machine's own: for gRPC, both are the machine's.
"""

import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import grpc._channel
import grpc._cython.cygrpc
import grpc._server
import time_machine

LOOK_S = 0.05


def minutes_off(file: Path) -> float:
    """By how much the clock is to be off now."""
    try:
        return float(file.read_text())
    except FileNotFoundError:
        return 0.0


def follow(file: Path, off: float) -> None:
    """Set the clock wrong when the file comes, and right when it goes."""
    while True:
        time.sleep(LOOK_S)
        wanted = minutes_off(file)
        traveller.shift(timedelta(minutes=wanted - off))
        off = wanted


machine = SimpleNamespace(**{**vars(time), "time": time_machine.escape_hatch.time.time})
for module in (grpc._channel, grpc._server, grpc._cython.cygrpc):
    module.time = machine
clock = Path(os.environ["WRONG_CLOCK"])
at_first = minutes_off(clock)
traveller = time_machine.travel(timedelta(minutes=at_first), tick=True).start()
threading.Thread(target=follow, args=(clock, at_first), daemon=True).start()
