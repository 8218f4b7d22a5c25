"""Few events: whose outcome is known, and who has an ECG and its statements alone.

In:  a `Dataset`, site name -> rows, `data.events`, the study's seed. Out: the data set with the other training patients
in the part "align". Called by `virtual_sites`. Validation and test parts stay whole: every model is judged on the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import ALIGN
from fedecg.errors import SettingsError
from fedecg_simulations.dataset import Dataset

__all__ = ["with_known_outcomes"]

Rows = NDArray[np.int64]


def with_known_outcomes(dataset: Dataset, parts: Mapping[str, Rows], events: int, seed: int) -> Dataset:
    """Keep the outcomes of so many training patients that all sites together have `events` events.

    Patients are drawn at random, those with and those without an event apart, each site in proportion to what it has:
    the share of events stays what it was over all sites. A site's order of drawing depends on seed and name alone, so
    that whoever is known among few events is, but for rounding, known among more.

    Args:
        dataset: N rows.
        parts: site name -> rows.
        events: `data.events`; 0 = all outcomes stay known.
        seed: of the study; no other draw of the study uses the same streams.

    Raises:
        SettingsError: FECG-115 fewer events than asked for.
    """
    if not events:
        return dataset
    cases = {name: _patients(dataset, rows, with_event=True) for name, rows in parts.items()}
    others = {name: _patients(dataset, rows, with_event=False) for name, rows in parts.items()}
    available, remaining = sum(map(len, cases.values())), sum(map(len, others.values()))
    if events > available:
        raise SettingsError(
            "FECG-115",
            "data.events",
            found=f"{events}, and {available} patients with an event in the training parts of all sites",
            expected=f"at most {available}, or 0 for all",
        )
    known_cases = _in_proportion(events, cases)
    known_others = _in_proportion(round(events / available * remaining), others)
    unknown = np.zeros(len(dataset.cohort), dtype=np.bool_)
    for name, rows in parts.items():
        rng = np.random.default_rng([seed, zlib.crc32(b"known outcomes"), *name.encode()])
        known = [
            rng.permutation(cases[name])[: known_cases[name]],
            rng.permutation(others[name])[: known_others[name]],
        ]
        training = rows[dataset.cohort.part[rows] == "train"]
        unknown[training] = ~np.isin(dataset.cohort.patient[training], np.concatenate(known))
    return _without_outcomes(dataset, unknown)


def _patients(dataset: Dataset, rows: Rows, *, with_event: bool) -> NDArray[np.int64]:
    """Training patients of a site, ascending; one counts as one with an event when any record says so."""
    cohort = dataset.cohort.select(rows[dataset.cohort.part[rows] == "train"])
    cases = np.unique(cohort.patient[cohort.event])
    return cases if with_event else np.setdiff1d(cohort.patient, cases)


def _in_proportion(total: int, members: Mapping[str, NDArray[np.int64]]) -> dict[str, int]:
    """Split a total in proportion to the numbers of members, by largest remainder; none gets more than it has."""
    sizes = {name: len(own) for name, own in sorted(members.items())}
    whole = max(sum(sizes.values()), 1)
    shares = {name: size * total // whole for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: -(sizes[name] * total % whole))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def _without_outcomes(dataset: Dataset, unknown: NDArray[np.bool_]) -> Dataset:
    cohort = dataset.cohort
    hidden = replace(
        cohort,
        part=np.where(unknown, ALIGN, cohort.part),
        event=cohort.event & ~unknown,
        died=cohort.died & ~unknown,
        follow_up_days=np.where(unknown, np.nan, cohort.follow_up_days),
        entry_days=np.where(unknown, 0.0, cohort.entry_days),
    )
    told = dict(dataset.notes) | {"training records without a known outcome": int(unknown.sum())}
    return replace(dataset, cohort=hidden, notes=told)
