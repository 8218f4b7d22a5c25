"""How far virtual sites are from each other: labels, events, survival; and how much of that is chance.

In:  a `Dataset` as its sites know it, site name -> rows, horizons. Out: `Divergence`, and plain values for
partition.json. Called by the runner and by `fedecg-simulate partition`; drawn by `partition_figure`.

Only patients that somebody learns from count (train, validation): the test part is never cut, so it would hide what
`partition.follow-up` does. A patient counts once, with the first record.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.evaluation import DAYS_A_YEAR
from fedecg.text import dominant_superclass
from fedecg_simulations.dataset import Dataset

__all__ = ["Divergence", "SiteDivergence", "divergence", "jensen_shannon_bits", "survival_at"]

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

FEWEST_AT_RISK = 5  # of a site, followed up to the horizon; with fewer its curve there is not worth a dot
SHUFFLES = 20
NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class SiteDivergence:
    """One site against all.

    Attributes:
        site: its name.
        patients, events: of the parts that somebody learns from.
        events_a_100_years: events per 100 patient-years under observation.
        labels_bits: Jensen-Shannon divergence of its label mix from that of all patients, 0 to 1 bit.
        survival, survival_low, survival_high: Kaplan-Meier at the horizon with its 95 % interval; None where fewer than
            `FEWEST_AT_RISK` are followed so far, or where nobody is watched from the ECG on.
    """

    site: str
    patients: int
    events: int
    events_a_100_years: float
    labels_bits: float
    survival: float | None
    survival_low: float | None
    survival_high: float | None


@dataclass(frozen=True)
class Divergence:
    """All sites.

    Attributes:
        sites: in the order of their names.
        labels_bits: generalised Jensen-Shannon divergence between the sites' label mixes, bits: what the site of a
            patient tells of the label.
        labels_bits_by_chance: the same, mean of 20 deals of the same patients at random to sites of the same sizes.
        event_bits, event_bits_by_chance: likewise of having an event or not.
        horizon_years: of survival; None where no horizon can be had.
        survival: of all patients there; None likewise.
        largest_difference: between two sites' survival there.
    """

    sites: tuple[SiteDivergence, ...]
    labels_bits: float
    labels_bits_by_chance: float
    event_bits: float
    event_bits_by_chance: float
    horizon_years: float | None
    survival: float | None
    largest_difference: float | None

    def entry(self) -> dict[str, Any]:
        """As it stands in partition.json; shares and bits to four places."""
        return {
            "label-divergence-bits": _rounded(self.labels_bits),
            "label-divergence-bits-by-chance": _rounded(self.labels_bits_by_chance),
            "event-divergence-bits": _rounded(self.event_bits),
            "event-divergence-bits-by-chance": _rounded(self.event_bits_by_chance),
            "survival-horizon-years": self.horizon_years,
            "survival-of-all": _rounded(self.survival),
            "largest-difference-of-survival": _rounded(self.largest_difference),
        }

    def entries(self) -> dict[str, dict[str, Any]]:
        """Site name -> its figures, as they stand in partition.json."""
        return {
            site.site: {
                "events-a-100-years": _rounded(site.events_a_100_years),
                "label-divergence-bits": _rounded(site.labels_bits),
                "survival": _rounded(site.survival),
                "survival-ci-low": _rounded(site.survival_low),
                "survival-ci-high": _rounded(site.survival_high),
            }
            for site in self.sites
        }


@dataclass(frozen=True)
class _Learned:
    """Patients that somebody learns from: site and label by number, outcomes."""

    site: Rows
    label: Rows
    days: Floats
    entry_days: Floats
    event: NDArray[np.bool_]


def divergence(
    dataset: Dataset, parts: Mapping[str, Rows], horizons_years: Sequence[float], seed: int
) -> Divergence:
    """Compare the sites of a partition.

    Args:
        dataset: as its sites know it (after `virtual_sites`).
        parts: site name -> rows.
        horizons_years: `evaluation.horizons-years`; survival is read at the longest one that at least half of the sites
            reach with `FEWEST_AT_RISK` patients.
        seed: of the shuffles.

    Source: generalised Jensen-Shannon divergence: Lin 1991, IEEE Trans Inf Theory 37:145.
    """
    names = sorted(parts)
    everyone = _learned(dataset, [parts[name] for name in names])
    event = everyone.event.astype(np.int64)
    counts = _table(everyone.site, everyone.label, len(names))
    rng = np.random.default_rng([seed, zlib.crc32(b"divergence by chance")])
    shuffled = [rng.permutation(everyone.site) for _ in range(SHUFFLES)]

    def by_chance(label: Rows) -> float:
        return float(np.mean([jensen_shannon_bits(_table(site, label, len(names))) for site in shuffled]))

    horizon = _horizon_years(everyone, len(names), horizons_years)
    sites = tuple(_of_site(name, number, everyone, counts, horizon) for number, name in enumerate(names))
    known = [site.survival for site in sites if site.survival is not None]
    return Divergence(
        sites=sites,
        labels_bits=jensen_shannon_bits(counts),
        labels_bits_by_chance=by_chance(everyone.label),
        event_bits=jensen_shannon_bits(_table(everyone.site, event, len(names))),
        event_bits_by_chance=by_chance(event),
        horizon_years=horizon,
        survival=None if horizon is None else _survival_where_watched(everyone, horizon),
        largest_difference=max(known) - min(known) if known else None,
    )


def jensen_shannon_bits(counts: NDArray[Any]) -> float:
    """Entropy of the mixture minus the mean entropy of its pieces, in bits, weighted by their sizes.

    Args:
        counts: (S, K) >= 0, patients by site and label; at least one.

    Returns:
        From 0 (the same mix at every site) to the smaller of log2 S and log2 K.
    """
    table = np.asarray(counts, dtype=np.float64)
    sizes = table.sum(axis=1)
    inside = sum(size * _entropy_bits(row) for size, row in zip(sizes, table, strict=True) if size)
    return max(0.0, _entropy_bits(table.sum(axis=0)) - float(inside) / float(sizes.sum()))


def survival_at(
    days: Floats, entry_days: Floats, event: NDArray[np.bool_], horizon_days: float
) -> tuple[float, float, float]:
    """Kaplan-Meier survival just after a horizon, with its 95 % interval on the log(-log) scale.

    Args:
        days, entry_days, event: (n,) exit, entry (0 = watched from the ECG on) and event of n patients; whoever enters
            on the day of an event is not at risk of it.
        horizon_days: days from the ECG.

    Source: Kaplan, Meier 1958, J Am Stat Assoc 53:457; Greenwood 1926; late entry: Tsai, Jewell, Wang 1987,
    Biometrika 74:883.
    """
    survival, variance = 1.0, 0.0
    for time in np.unique(days[event & (days <= horizon_days)]):
        at_risk = int(np.sum((days >= time) & (entry_days < time)))
        events = int(np.sum(event & (days == time) & (entry_days < time)))
        if not events:
            continue
        survival *= 1 - events / at_risk
        variance += events / (at_risk * (at_risk - events)) if at_risk > events else math.inf
    if survival in (0.0, 1.0):
        return survival, survival, survival
    log_log, spread = math.log(-math.log(survival)), math.sqrt(variance) / -math.log(survival)
    low, high = (math.exp(-math.exp(log_log + sign * NORMAL_975 * spread)) for sign in (1, -1))
    return survival, low, high


def _of_site(
    name: str, number: int, everyone: _Learned, counts: NDArray[np.int64], horizon: float | None
) -> SiteDivergence:
    inside = everyone.site == number
    days, entry_days, event = everyone.days[inside], everyone.entry_days[inside], everyone.event[inside]
    years = float(np.sum(days - entry_days)) / DAYS_A_YEAR
    survival: tuple[float, float, float] | tuple[None, None, None] = (None, None, None)
    if horizon is not None and _reaches(days, entry_days, horizon):
        survival = survival_at(days, entry_days, event, horizon * DAYS_A_YEAR)
    shares = counts[number] / max(counts[number].sum(), 1)
    return SiteDivergence(
        site=name,
        patients=int(inside.sum()),
        events=int(event.sum()),
        events_a_100_years=100 * int(event.sum()) / years if years else 0.0,
        labels_bits=jensen_shannon_bits(np.stack([shares, counts.sum(axis=0) / counts.sum()])),
        survival=survival[0],
        survival_low=survival[1],
        survival_high=survival[2],
    )


def _learned(dataset: Dataset, rows_of: Sequence[Rows]) -> _Learned:
    """Patients with a known outcome outside the test part, each with the first record; of nobody's window: left out."""
    rows = np.concatenate([np.asarray(rows, dtype=np.int64) for rows in rows_of])
    site = np.repeat(np.arange(len(rows_of)), [len(own) for own in rows_of])
    cohort = dataset.cohort
    wanted = np.isin(cohort.part[rows], ("train", "validation"))
    rows, site = rows[wanted], site[wanted]
    order = np.lexsort((cohort.record[rows], cohort.patient[rows]))
    first = order[np.unique(cohort.patient[rows][order], return_index=True)[1]]
    rows, site = rows[first], site[first]
    labels = np.array([dominant_superclass(cohort.codes[row]) for row in rows], dtype=np.str_)
    return _Learned(
        site=site,
        label=np.unique(labels, return_inverse=True)[1].astype(np.int64),
        days=cohort.follow_up_days[rows],
        entry_days=cohort.entry_days[rows],
        event=cohort.event[rows],
    )


def _table(site: Rows, label: Rows, sites: int) -> NDArray[np.int64]:
    """(S, K) patients by site and label."""
    labels = int(label.max(initial=0)) + 1
    cell = site * labels + label
    return np.bincount(cell, minlength=sites * labels).reshape(sites, labels)


def _horizon_years(everyone: _Learned, sites: int, horizons_years: Sequence[float]) -> float | None:
    for years in sorted(horizons_years, reverse=True):
        reached = sum(
            _reaches(everyone.days[inside], everyone.entry_days[inside], years)
            for inside in (everyone.site == number for number in range(sites))
        )
        if 2 * reached >= sites:
            return float(years)
    return None


def _reaches(days: Floats, entry_days: Floats, years: float) -> bool:
    from_the_ecg = entry_days == 0
    return int(np.sum(from_the_ecg & (days >= years * DAYS_A_YEAR))) >= FEWEST_AT_RISK


def _survival_where_watched(everyone: _Learned, years: float) -> float:
    return survival_at(everyone.days, everyone.entry_days, everyone.event, years * DAYS_A_YEAR)[0]


def _entropy_bits(counts: Floats) -> float:
    share = counts[counts > 0] / counts.sum() if counts.sum() else np.ones(1)
    return float(-(share * np.log2(share)).sum())


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
