"""The three noised sums that may leave a site under differential privacy, and what a coordinator makes of them.

In:  outcomes and log hazards of one part's patients, one row a patient; bins and cuts that do not depend on them.
Out: noised numbers with the `Spend` that the ledger must hold before they leave; at the coordinator, where the noised
     numbers of all sites have been added up, counts, a baseline hazard and a histogram that are possible ones.
Called by the client (`noised_*`) and the coordinator (`possible_*`, `baseline_from_noised`).

Guarantees:
    Adding or removing one patient changes the sums before noise by at most the stated L2 sensitivity; the noise is
    Gaussian, of `noise_multiplier` times that, in every cell, also in those that nobody is in, and comes from the
    operating system. A patient in two rows is refused: that would double the sensitivity.
    What is made of noised numbers depends on nothing else, so that it costs no privacy (post-processing).

Edge cases:
    nobody in the part                zeros and noise
    a log hazard that is not a number counts as a hazard of 0; infinity as the bound
    `first_bin` given                 sensitivity sqrt 2, also if nobody enters late: whether somebody does is data
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from fedecg.errors import PolicyError
from fedecg.evaluation import RiskTimeGrid
from fedecg.objectives import Baseline
from fedecg.privacy.accountant import Part, Spend
from fedecg.privacy.secret import secret_generator

__all__ = [
    "Released", "baseline_from_noised", "clipped_hazard_sums", "event_sums", "histogram", "noised_events",
    "noised_hazard_sums", "noised_histogram", "possible_counts", "possible_risk_sets", "refuse_several",
]  # fmt: skip

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

EVENTS_SENSITIVITY = HISTOGRAM_SENSITIVITY = HAZARD_SENSITIVITY = 1.0
ENTRY_SENSITIVITY = math.sqrt(2)  # at most 1 in the bin of exit, and at most 1 in that of entry
DRAWS = 4  # of which a noise is the sum


@dataclass(frozen=True, eq=False)
class Released:
    """Noised numbers, and what they cost whoever is in them.

    Attributes:
        values: float64.
        spend: one entry of the ledger.
    """

    values: Floats
    spend: Spend


def noised_events(
    event: Booleans,
    exit_bin: Integers,
    n_bins: int,
    patient: Integers,
    part: Part,
    noise_multiplier: float,
    generator: np.random.Generator | None = None,
) -> Released:
    """Events (n_bins,) by exit bin, with noise; L2 sensitivity 1: one patient has at most one event.

    Args:
        event, exit_bin, patient: (n,) of the same patients, each once.
        n_bins: number of bins, from the lock.
        part: whose patients these are.
        noise_multiplier: standard deviation of the noise over the sensitivity.
        generator: tests give one; None: a secret one.

    Raises:
        PolicyError: FECG-439 a patient in two rows.
    """
    refuse_several(patient)
    values = _noised(event_sums(event, exit_bin, n_bins), EVENTS_SENSITIVITY, noise_multiplier, generator)
    return Released(values, Spend("events", part, noise_multiplier))


def noised_hazard_sums(
    log_hazard: Floats,
    exit_bin: Integers,
    n_bins: int,
    bound: float,
    patient: Integers,
    part: Part,
    noise_multiplier: float,
    first_bin: Integers | None = None,
    generator: np.random.Generator | None = None,
) -> Released:
    """Sums (n_bins,) of min(exp(log hazard), bound) / bound by exit bin, with noise; L2 sensitivity 1, or sqrt 2.

    Args:
        log_hazard, exit_bin, patient: (n,) of the same patients, each once.
        n_bins, part, noise_multiplier, generator: as `noised_events`.
        bound: largest hazard that counts (`privacy.hazard-clip`), the same in the loss.
        first_bin: (n,) first bin at risk, if the site's table has entry times at all; then the sensitivity is sqrt 2.

    Raises:
        PolicyError: FECG-439 a patient in two rows.
    """
    refuse_several(patient)
    sums = clipped_hazard_sums(log_hazard, exit_bin, n_bins, bound, first_bin)
    sensitivity = HAZARD_SENSITIVITY if first_bin is None else ENTRY_SENSITIVITY
    return Released(
        _noised(sums, sensitivity, noise_multiplier, generator), Spend("hazard", part, noise_multiplier)
    )


def noised_histogram(
    follow_up_days: Floats,
    event: Booleans,
    log_hazard: Floats,
    grid: RiskTimeGrid,
    patient: Integers,
    part: Part,
    noise_multiplier: float,
    generator: np.random.Generator | None = None,
) -> Released:
    """Patients (T, R, 2) by time bin, risk bin and event, with noise; L2 sensitivity 1: each is in one cell.

    Args:
        follow_up_days, event, log_hazard, patient: (n,) of the same patients, each once.
        grid: the study's, made of what is public or noised.
        part, noise_multiplier, generator: as `noised_events`.

    Raises:
        PolicyError: FECG-439 a patient in two rows.
    """
    refuse_several(patient)
    cells = histogram(follow_up_days, event, log_hazard, grid)
    values = _noised(cells, HISTOGRAM_SENSITIVITY, noise_multiplier, generator)
    return Released(values, Spend("histogram", part, noise_multiplier))


def event_sums(event: Booleans, exit_bin: Integers, n_bins: int) -> Floats:
    """Events (n_bins,) by exit bin: of one patient 1 in one bin, or nothing."""
    return np.bincount(exit_bin[event], minlength=n_bins).astype(np.float64)


def clipped_hazard_sums(
    log_hazard: Floats, exit_bin: Integers, n_bins: int, bound: float, first_bin: Integers | None = None
) -> Floats:
    """Sums (n_bins,) of min(exp(log hazard), bound) / bound by exit bin, less by the bin before the first at risk.

    Of one patient at most 1 in one bin and, with `first_bin`, at most -1 in another. Summed from bin s to the last,
    times `bound`, they are the sum over the risk set of s, as those of `objectives.hazard_sums`.
    """
    share = np.nan_to_num(np.exp(np.minimum(log_hazard, math.log(bound))) / bound, nan=0.0)
    sums = np.bincount(exit_bin, weights=share, minlength=n_bins).astype(np.float64)
    if first_bin is None:
        return sums
    late = first_bin > 0
    return sums - np.bincount(first_bin[late] - 1, weights=share[late], minlength=n_bins)


def histogram(follow_up_days: Floats, event: Booleans, log_hazard: Floats, grid: RiskTimeGrid) -> Floats:
    """Patients (T, R, 2) by time bin, risk bin and event: of one patient 1 in one cell."""
    cells = np.zeros(grid.shape)
    place = (
        np.searchsorted(grid.time_cuts_days, follow_up_days, side="right"),
        np.searchsorted(grid.risk_cuts, log_hazard, side="right"),
        event.astype(np.int64),
    )
    np.add.at(cells, place, 1.0)
    return cells


def possible_counts(noised: Floats) -> Floats:
    """The nearest counts of the same total that are not negative; what is negative in sum becomes 0.

    Floored one by one, cells that nobody is in would add up: of 100 of them with noise of 5, to 200 patients.

    Args:
        noised: of any shape, added up over the sites.

    Source: Wang, Carreira-Perpinan 2013, arXiv 1309.1541 (projection onto the simplex).
    """
    total = float(noised.sum())
    if total <= 0 or not noised.size:
        return np.zeros_like(noised)
    falling = np.sort(noised, axis=None)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, falling.size + 1)
    return np.asarray(np.maximum(noised - excess[np.flatnonzero(falling > excess)[-1]], 0.0))


def possible_risk_sets(
    sums: Floats, events: Floats, bound: float, noise: float, late_entries: bool = False
) -> Floats:
    """Sums of hazards W (bins,) over the risk sets: the nearest that do not grow, floored.

    Never below the noise of one bin, nor below the bin's events: no step of a baseline hazard is above 1.

    Args:
        sums: (bins,) noised, added up over the sites, in units of `bound`.
        events: (bins,) `possible_counts` of the same patients.
        bound: of a hazard.
        noise: standard deviation of `sums` in a bin.
        late_entries: some site has entry times: then risk sets may grow.
    """
    risk, least = bound * np.cumsum(sums[::-1])[::-1], events
    if not late_entries:
        risk = isotonic_regression(risk, increasing=False).x
        least = np.maximum.accumulate(events[::-1])[::-1]
    return np.asarray(np.maximum(risk, np.maximum(bound * noise, least)))


def baseline_from_noised(
    edges_days: Floats, events: Floats, sums: Floats, bound: float, noise: float, late_entries: bool = False
) -> Baseline:
    """Breslow's cumulative hazard of noised sums; without noise, and every hazard below `bound`, that of `breslow`.

    Args:
        edges_days: (bins,) left edges, ascending from 0. The fewer bins, the less noise.
        events, sums: (bins,) noised, added up over the same sites.
        bound, noise, late_entries: as `possible_risk_sets`.

    Returns:
        A baseline that does not fall, finite also where noise has left nobody at risk.
    """
    counts = possible_counts(events)
    risk = possible_risk_sets(sums, counts, bound, noise, late_entries)
    steps = np.divide(counts, risk, out=np.zeros_like(counts), where=counts > 0)
    return Baseline(edges_days=edges_days, cumulative_hazard=np.cumsum(steps))


def _noised(
    sums: Floats, sensitivity: float, noise_multiplier: float, generator: np.random.Generator | None
) -> Floats:
    """Gaussian noise as the sum of several draws: the last bits of a single one tell which sums it can be added to.

    Source: Holohan, Braghin 2021, arXiv 2107.10138; Mironov 2012, doi 10.1145/2382196.2382264 (the attack).
    """
    generator = generator or secret_generator()
    noise = generator.standard_normal((DRAWS, *sums.shape)).sum(axis=0) / math.sqrt(DRAWS)
    return np.asarray(sums + noise_multiplier * sensitivity * noise)


def refuse_several(patient: Integers) -> None:
    """Patients of the rows (n,) of a sum: each once.

    Raises:
        PolicyError: FECG-439.
    """
    several = len(patient) - len(np.unique(patient))
    if several:
        raise PolicyError(
            "FECG-439",
            "patients of a noised sum",
            found=f"{several} of {len(patient)} rows of a patient who has another",
            expected="one row a patient: the noise covers one",
            fix="Keep one index ECG a patient in train, validation and test.",
        )
