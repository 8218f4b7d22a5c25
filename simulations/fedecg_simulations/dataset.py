"""What every data set of the simulations looks like, synthetic or public.

In:  loaders (`ptbxl.py`, `sources.py`). Out: one `Dataset`, which `partitions.py` splits and the runner trains on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort
from fedecg.signals import Recording

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Patients, their ECGs and what a simulation alone knows of them.

    Attributes:
        cohort: N rows; `record` is 0..N-1.
        columns: name ("site", "device") -> (N,) str, what a partition by column splits on.
        recordings: N callables without arguments, picklable, each of which reads or makes one ECG.
        source: text that is part of the signal store's key: data set, files, rows; not the outcomes.
        outcomes: "simulated" or "observed".
        true_log_hazard: (N,) float64, or None where nobody knows it.
        folds: what became which part, for the summary.
        notes: counts worth telling, such as records left out.
        endpoint: what the event is, in words.
    """

    cohort: Cohort
    columns: Mapping[str, NDArray[np.str_]]
    recordings: Sequence[Callable[[], Recording]]
    source: str
    outcomes: Literal["simulated", "observed"]
    true_log_hazard: NDArray[np.float64] | None
    folds: Mapping[str, list[int] | str]
    notes: Mapping[str, int] = field(default_factory=dict)
    endpoint: str = "heart failure"
