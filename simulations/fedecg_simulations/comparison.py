"""Was federation worth it? Every column scored on the same test patients, from raw predictions.

In:  test outcomes and the log hazards that each way of training gives them. Out: the `columns` and `differences`
of summary.json. Only a simulation can do this: it alone sees all patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort
from fedecg.evaluation import concordance_interval, paired_bootstrap, stratified_interval

__all__ = ["Column", "TestPart", "column_entry", "difference_entry", "site_only_risk"]

Floats = NDArray[np.float64]
Column = dict[str, float | None]


@dataclass(frozen=True)
class TestPart:
    """The patients on whom every column is scored."""

    follow_up_days: Floats
    event: NDArray[np.bool_]
    site: NDArray[np.str_]

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def stratified_c(self, risk: Floats) -> float:
        """Stratified C of one score (n,)."""
        return stratified_interval(self.follow_up_days, self.event, risk, self.site).c_index

    def entry(self) -> dict[str, int]:
        """Patients, events and comparable pairs, as in summary.json."""
        constant = np.zeros(len(self.event))
        everyone = concordance_interval(self.follow_up_days, self.event, constant)
        within = stratified_interval(self.follow_up_days, self.event, constant, self.site)
        return {
            "patients": len(self.event),
            "events": int(self.event.sum()),
            "comparable-pairs": everyone.comparable,
            "comparable-pairs-stratified": within.comparable,
        }


def column_entry(test: TestPart, risks: Floats) -> Column:
    """C-index (global) with its interval and stratified C with its own.

    Args:
        test: the test part.
        risks: (models, n) log hazards; figures of several models are averaged, not their risks.
    """
    outcome = test.follow_up_days, test.event
    everyone = concordance_interval(*outcome, risks)
    within = stratified_interval(*outcome, risks, test.site)
    return {
        "c-index": _number(everyone.c_index),
        "c-index-stratified": _number(within.c_index),
        "ci-low": _number(everyone.ci_low),
        "ci-high": _number(everyone.ci_high),
        "stratified-ci-low": _number(within.ci_low),
        "stratified-ci-high": _number(within.ci_high),
    }


def difference_entry(
    test: TestPart, risk: Floats, others: Floats, replicates: int, generator: np.random.Generator
) -> dict[str, float | int | None]:
    """Stratified C of `risk` minus that of `others` (their mean), by a paired bootstrap of patients within sites."""
    outcome = test.follow_up_days, test.event
    paired = paired_bootstrap(*outcome, risk, others, generator, replicates, stratum=test.site)
    return {
        "difference": _number(paired.difference),
        "ci-low": _number(paired.ci_low),
        "ci-high": _number(paired.ci_high),
        "p-value": _number(paired.p_value),
        "replicates": paired.replicates,
    }


def site_only_risk(train_site: NDArray[np.str_], train: Cohort, test_site: NDArray[np.str_]) -> Floats:
    """A control (n,) that knows only the site: its training events per patient-year; 0 for a site without any."""
    rates: Mapping[str, float] = {
        site: float(train.event[inside].sum() / train.follow_up_days[inside].sum())
        for site in np.unique(train_site)
        if (inside := train_site == site).any()
    }
    return np.array([rates.get(site, 0.0) for site in test_site])


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
