"""What sites send for the federated Cox model of a table, and the likelihood that the sums give.

In:  at a site: follow-up (N,) days, events (N,), covariates (N, p). Out: `ColumnSums` (twice, for mean and standard
     deviation), `EventSums` (once), `RiskSums` (once a Newton step); at the coordinator: `Likelihood`. Called by
     `linear_cox` and `linear_cox_inference`. Pure, numpy float64.

Risk sets are the sums by exit bin, cumulated from the right. With z = (1, x) the three sums of a bin, exp(eta),
exp(eta) x and exp(eta) x x', are the blocks of one matrix, sum exp(eta) z z', called *moments* here:
(bins, 1 + p, 1 + p). Covariates are standardised by the pooled mean and standard deviation, so that exp(eta) stays
in the range of float64 and one patient's units do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedecg.objectives.hazard import event_counts, exit_bin, first_bin

__all__ = [
    "FAR",
    "CoxPatients",
    "EventSums",
    "EventTerms",
    "Likelihood",
    "RiskSums",
    "Scaling",
    "SiteDesign",
    "Stratum",
    "event_sums",
    "event_terms",
    "from_right",
    "partial_likelihood",
    "risk_sums",
    "site_design",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Ties = Literal["efron", "breslow"]
FAR = 5.0  # standard deviations; n values can be (n - 1) / sqrt(n) from their mean at most, 5 needs 27


@dataclass(frozen=True, eq=False)
class CoxPatients:
    """A site's patients, checked by the caller; they never leave the site.

    Attributes:
        follow_up_days: (N,) days from the ECG to the event or the last contact, >= 0.
        event: (N,) bool; True = event seen, False = censored.
        covariates: (N, p), p >= 1, finite, in the order of the study's names.
        entry_days: (N,) days from which a patient is under observation, 0 <= entry < follow-up (left truncation:
            at risk for events strictly later); None: everybody from day 0.
    """

    follow_up_days: Floats
    event: Booleans
    covariates: Floats
    entry_days: Floats | None = None


class Scaling(NamedTuple):
    """Pooled mean (p,) and standard deviation (p,; n - 1) of the covariates, in their own units."""

    mean: Floats
    sd: Floats


@dataclass(frozen=True, eq=False)
class SiteDesign:
    """A site's patients as Newton steps need them; stays at the site.

    Attributes:
        z: (N, 1 + p), a column of ones and the standardised covariates.
        event: (N,) bool.
        first_bin: (N,) first bin at risk; `exit_bin + 1` for who is in no risk set at all.
        exit_bin: (N,) bin in which the patient leaves, at risk there.
        n_bins: bins of the study's grid.
    """

    z: Floats
    event: Booleans
    first_bin: Integers
    exit_bin: Integers
    n_bins: int


@dataclass(frozen=True, eq=False)
class EventSums:
    """What a site sends once; adds up over sites.

    Attributes:
        events: (bins,) int64, events by exit bin.
        leaving: (bins,) int64, patients by exit bin less late entrants by the bin before their first: summed from a bin
            to the last, the number at risk in it.
        event_x: (bins, p), sum of the standardised covariates over the events, by exit bin.
        patients: all patients, at risk in any bin or not.
        far_out: (p,) int64, values more than `FAR` standard deviations from the mean, for the messages of errors.
    """

    events: Integers
    leaving: Integers
    event_x: Floats
    patients: int
    far_out: Integers

    def __add__(self, other: EventSums) -> EventSums:
        return EventSums(
            self.events + other.events,
            self.leaving + other.leaving,
            self.event_x + other.event_x,
            self.patients + other.patients,
            self.far_out + other.far_out,
        )


@dataclass(frozen=True, eq=False)
class RiskSums:
    """What a site sends for one beta; adds up over sites.

    Attributes:
        leaving: (bins, 1 + p, 1 + p), moments by exit bin less those of late entrants by the bin before their first.
        tied: (bins, 1 + p, 1 + p), moments of the events by exit bin; None with Breslow ties, which need none.
    """

    leaving: Floats
    tied: Floats | None

    def __add__(self, other: RiskSums) -> RiskSums:
        tied = None if self.tied is None or other.tied is None else self.tied + other.tied
        return RiskSums(self.leaving + other.leaving, tied)


class Stratum(NamedTuple):
    """Sums of the patients who share risk sets: all sites', or one site's."""

    events: EventSums
    risk: RiskSums


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log partial likelihood at a beta and its derivatives; adds up over strata.

    Attributes:
        value: nats.
        gradient: (p,), per standardised covariate.
        information: (p, p), minus the Hessian.
    """

    value: float
    gradient: Floats
    information: Floats

    def __add__(self, other: Likelihood) -> Likelihood:
        return Likelihood(
            self.value + other.value,
            self.gradient + other.gradient,
            self.information + other.information,
        )

    def penalised(self, beta: Floats, strength: float) -> Likelihood:
        """Less strength / 2 |beta|^2."""
        return Likelihood(
            self.value - 0.5 * strength * float(beta @ beta),
            self.gradient - strength * beta,
            self.information + strength * np.eye(beta.size),
        )

    def is_finite(self) -> bool:
        """False where exp(eta) left the range of float64, or a bin with events has nobody at risk."""
        return bool(
            np.isfinite(self.value)
            and np.isfinite(self.gradient).all()
            and np.isfinite(self.information).all()
        )


class EventTerms(NamedTuple):
    """The risk set of every event, E in all, tied ones with the share of Efron's that has left.

    `bin` (E,) int; `gone` (E,) share of the bin's events that have left, 0 with Breslow ties; `hazard` (E,) sum of
    exp(eta) over the risk set; `mean_x` (E, p) its weighted mean of the standardised covariates.
    """

    bin: Integers
    gone: Floats
    hazard: Floats
    mean_x: Floats


def site_design(patients: CoxPatients, scaling: Scaling, edges_days: Floats) -> SiteDesign:
    """Standardise and bin a site's patients.

    Who enters in a bin is at risk from the next one, which is exact with an edge at every event time; on a coarser
    grid this leaves a late entrant out of the rest of the bin, but an event is always at risk in its own. Late entrants
    are subtracted from the risk sets, which costs digits where hazards of one risk set differ by more than 1e10.
    """
    x = (patients.covariates - scaling.mean) / scaling.sd
    last = exit_bin(patients.follow_up_days, edges_days)
    first = np.zeros_like(last)
    if patients.entry_days is not None:
        first = first_bin(patients.entry_days, patients.event, last, edges_days)
    return SiteDesign(np.column_stack([np.ones(len(x)), x]), patients.event, first, last, len(edges_days))


def event_sums(design: SiteDesign) -> EventSums:
    """What a site sends once."""
    event_x = np.zeros((design.n_bins, design.z.shape[1] - 1))
    np.add.at(event_x, design.exit_bin[design.event], design.z[design.event, 1:])
    leaving = np.bincount(design.exit_bin, minlength=design.n_bins)
    late = design.first_bin[design.first_bin > 0]
    return EventSums(
        event_counts(design.event, design.exit_bin, design.n_bins),
        leaving - np.bincount(late - 1, minlength=design.n_bins),
        event_x,
        len(design.z),
        np.count_nonzero(np.abs(design.z[:, 1:]) > FAR, axis=0),
    )


def risk_sums(design: SiteDesign, beta: Floats, ties: Ties) -> RiskSums:
    """What a site sends for standardised coefficients beta (p,); not finite where exp(eta) overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        hazard = np.exp(design.z[:, 1:] @ beta)
        rows = np.arange(len(design.z))
        late = rows[design.first_bin > 0]
        tied = _moments(design, hazard, rows[design.event], design.exit_bin)
        leaving = tied + _moments(design, hazard, rows[~design.event], design.exit_bin)
        if late.size:
            leaving -= _moments(design, hazard, late, design.first_bin - 1)
    return RiskSums(leaving, tied if ties == "efron" else None)


def event_terms(stratum: Stratum) -> EventTerms:
    """The risk set of every event of a stratum, from its sums."""
    events, risk = stratum
    at_risk = from_right(risk.leaving[:, 0])
    event_bin = np.repeat(np.arange(events.events.size), events.events)
    if risk.tied is None:
        gone, sums = np.zeros(event_bin.size), at_risk[event_bin]
    else:
        first = np.repeat(np.cumsum(events.events) - events.events, events.events)
        gone = (np.arange(event_bin.size) - first) / events.events[event_bin]
        sums = at_risk[event_bin] - gone[:, None] * risk.tied[event_bin, 0]
    return EventTerms(event_bin, gone, sums[:, 0], sums[:, 1:] / sums[:, :1])


def partial_likelihood(stratum: Stratum, beta: Floats) -> Likelihood:
    """Log partial likelihood of a stratum and its derivatives, from sums at the same beta (p,).

    Not finite where the sums are not, or where a bin has events and nobody at risk.

    Source: Cox 1972, J R Stat Soc B 34:187-220; ties: Breslow 1974, Biometrics 30:89-99, Efron 1977, J Am Stat
        Assoc 72:557-65.
    """
    events, risk = stratum
    event_x = events.event_x.sum(axis=0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        terms = event_terms(stratum)
        # The sum of S2 / S0 over tied events needs no matrix per event: S2 = at risk - gone * tied is linear.
        bins = events.events.size
        weight = np.bincount(terms.bin, weights=1 / terms.hazard, minlength=bins)
        information = np.tensordot(weight, from_right(risk.leaving[:, 1:, 1:]), axes=1)
        if risk.tied is not None:
            weight = np.bincount(terms.bin, weights=terms.gone / terms.hazard, minlength=bins)
            information = information - np.tensordot(weight, risk.tied[:, 1:, 1:], axes=1)
        return Likelihood(
            float(event_x @ beta - np.log(terms.hazard).sum()),
            event_x - terms.mean_x.sum(axis=0),
            information - terms.mean_x.T @ terms.mean_x,
        )


def from_right(sums: Floats) -> Floats:
    """Sums (bins, ...) by exit bin -> sums over the risk set of each bin."""
    return np.cumsum(sums[::-1], axis=0)[::-1]


def _moments(design: SiteDesign, hazard: Floats, rows: Integers, bins: Integers) -> Floats:
    """Sums (bins, 1 + p, 1 + p) of exp(eta) z z' over some rows, by their bins (N,)."""
    rows = rows[np.argsort(bins[rows], kind="stable")]
    occupied, start = np.unique(bins[rows], return_index=True)
    z = design.z[rows]
    weighted = hazard[rows, None] * z
    moments = np.zeros((design.n_bins, z.shape[1], z.shape[1]))
    for column in range(z.shape[1]):  # column by column: (N, 1 + p, 1 + p) would not fit into memory
        moments[occupied, column] = np.add.reduceat(weighted[:, column, None] * z, start, axis=0)
    return moments
