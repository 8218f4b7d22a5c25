"""Border of the evaluation: outcomes and risks that cannot be ranked are refused before any count.

In:  time, event and risk as a caller has them (lists, arrays, CPU tensors without gradient).
Out: `Outcomes`, three aligned arrays that the mathematics takes as they are. Called by every public function here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import CohortError

__all__ = ["Outcomes", "checked_models", "checked_outcomes", "checked_strata"]


class Outcomes(NamedTuple):
    """What is known of n patients.

    Attributes:
        time: (n,) float64, days from the ECG to the event or the last contact, >= 0.
        event: (n,) bool; True = event seen, False = censored.
        risk: (n,) float64, no unit; larger means earlier event.
    """

    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    risk: NDArray[np.float64]

    def rows(self, rows: NDArray[np.intp]) -> Outcomes:
        """Some patients, in the order asked for."""
        return Outcomes(self.time[rows], self.event[rows], self.risk[rows])


def checked_outcomes(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> Outcomes:
    """Align and check three columns; none of them may be empty of meaning, all may be of length 0.

    Raises:
        CohortError: FECG-235 lengths differ, FECG-236 time, FECG-237 event, FECG-238 risk.
    """
    times = _numbers("time", time, "FECG-236")
    events = _numbers("event", event, "FECG-237")
    risks = _numbers("risk", risk, "FECG-238")
    _same_length({"time": times, "event": events, "risk": risks})
    usable = np.isfinite(times) & (times >= 0)
    _refuse_rows("FECG-236", "time", usable, "negative or not finite", "days, finite and >= 0")
    _refuse_rows("FECG-237", "event", np.isin(events, (0, 1)), "neither 0 nor 1", "0 = censored, 1 = event")
    _refuse_rows("FECG-238", "risk", np.isfinite(risks), "not finite", "finite risks, larger = earlier event")
    return Outcomes(times, events == 1, risks)


def checked_models(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> list[Outcomes]:
    """The same patients under the risk of each model; (n,) is one model, (models, n) are several.

    Raises:
        CohortError: FECG-235..238, as `checked_outcomes`.
    """
    risks = _numbers("risk", risk, "FECG-238")
    models = risks if risks.ndim == 2 and len(risks) else [risks]
    return [checked_outcomes(time, event, of_model) for of_model in models]


def checked_strata(stratum: ArrayLike, patients: int) -> list[NDArray[np.intp]]:
    """Row numbers of each stratum, in the order of the sorted labels.

    Raises:
        CohortError: FECG-235, not one label a patient.
    """
    labels = np.asarray(stratum)
    _same_length({"time": np.empty(patients), "stratum": labels})
    _, member = np.unique(labels, return_inverse=True)
    by_stratum = np.argsort(member, kind="stable")
    return np.split(by_stratum, np.cumsum(np.bincount(member))[:-1]) if patients else []


def _numbers(column: str, values: ArrayLike, code: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):  # numpy's own message would print the value
        pass
    raise CohortError(code, column, found="values that are not numbers", expected="one number a patient")


def _same_length(columns: dict[str, NDArray[np.float64]]) -> None:
    shapes = {name: values.shape for name, values in columns.items()}
    if len(set(shapes.values())) == 1 and all(len(shape) == 1 for shape in shapes.values()):
        return
    raise CohortError(
        "FECG-235",
        ", ".join(columns),
        found="shapes " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
        expected="one value a patient in each, (n,)",
        fix="Give columns of the same patients in the same order.",
    )


def _refuse_rows(code: str, column: str, usable: NDArray[np.bool_], wrong: str, expected: str) -> None:
    refused = int(np.count_nonzero(~usable))
    if refused:
        raise CohortError(
            code, column, found=f"{refused} of {usable.size} values that are {wrong}", expected=expected
        )
