"""Federated, multi-site training of ECG heart-failure risk models.

The packages are in the order of the data's way: signals, cohort, text, model, objectives, evaluation, training,
federation, prediction, explanation, report. README.md has the map.

    fedecg.load("runs/demo/model").predict(recording)
"""

import os
from typing import TYPE_CHECKING, Any

from fedecg.memory import keep_freed_memory

if TYPE_CHECKING:
    from fedecg.prediction import load as load

# Threads that wait for each other by spinning stop everything as soon as another process wants a core: with one
# busy neighbour on two cores a training step took 47 ms a record instead of 1.5 ms. Must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
keep_freed_memory()


def __getattr__(name: str) -> Any:
    """`fedecg.load`, which needs torch, is loaded when it is first asked for."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fedecg.prediction import load

    return load
