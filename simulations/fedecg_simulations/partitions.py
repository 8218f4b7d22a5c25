"""Virtual sites: which rows of a data set each of them holds.

In:  a `Dataset`, `[partition]` settings and the study's seed. Out: site name -> rows of the cohort, and a table of
what each site got. Called by the runner and by `fedecg-simulate partition`.

Patients are dealt, not records: all rows of a patient go to one site. The result depends on the set of patients
and the seed, not on the order of the rows.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import ALIGN, PARTS
from fedecg.config import DriftSettings, PartitionSettings
from fedecg.errors import CohortError, some_of
from fedecg.text import dominant_superclass
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.dealing import dealt
from fedecg_simulations.drift import with_drift
from fedecg_simulations.follow_up import as_followed
from fedecg_simulations.known_outcomes import with_known_outcomes

__all__ = ["partition", "partition_table", "virtual_sites"]

Rows = NDArray[np.int64]


def virtual_sites(
    dataset: Dataset,
    settings: PartitionSettings,
    seed: int,
    events: int = 0,
    drift: DriftSettings | None = None,
) -> tuple[Dataset, dict[str, Rows]]:
    """Deal the patients, cut each site's follow-up, forget outcomes, give each site its recorder.

    The four are independent: each may be asked for with each of the others.

    Args:
        dataset, settings, seed: as `partition`.
        events: `data.events`, training events whose outcome stays known; 0 = all.
        drift: `[drift]`, how recorders differ; None = all alike.

    Returns:
        The data set as its sites know it, and site name -> rows.

    Raises:
        CohortError: FECG-625, FECG-626 as `partition`.
        SettingsError: FECG-115 fewer events than that.
    """
    dataset, parts = as_followed(dataset, partition(dataset, settings, seed), settings.follow_up)
    dataset = with_known_outcomes(dataset, parts, events, seed)
    return with_drift(dataset, parts, drift or DriftSettings(), seed), parts


def partition(dataset: Dataset, settings: PartitionSettings, seed: int) -> dict[str, Rows]:
    """Deal the patients to virtual sites.

    `column`: a site for every value of the column (a patient with several: that of the first record).
    `iid`: equal numbers, at random. `quantity`: numbers in the proportions of one Dirichlet(alpha) draw.
    `dirichlet`: for every label apart, numbers in the proportions of a Dirichlet(alpha) draw of its own; the label
    of a patient is that of the first record: its dominant diagnostic superclass, or the event.
    `sizes` "equal" or "power-law" decides how large each site is, instead of the draw (`dealing`).

    Args:
        dataset: N rows.
        settings: how to deal.
        seed: of the study; no other draw of the study uses the same stream.

    Returns:
        Site name -> its rows, ascending; sites in the order of their names. By column the names are the values
        with all but letters, digits, dot, dash and underscore replaced by a dash; else site-01, site-02, ...

    Raises:
        CohortError: FECG-625 a site without training patients (it is named); FECG-626 no such column, values that
            cannot be told apart as names, or fewer patients than sites.

    Source: those of `dealing.dealt`.
    """
    patient = np.unique(dataset.cohort.patient, return_inverse=True)[1]
    first = _first_records(patient, dataset.cohort.record)
    if settings.by == "column":
        site_of_patient = _by_column(dataset, settings.column, first)
    else:
        if settings.sites > len(first):
            _refuse_split(f"{len(first)} patients for {settings.sites} sites", "at least one patient a site")
        rng = np.random.default_rng([seed, zlib.crc32(b"partition")])
        site_of_patient = _dealt(dataset, settings, first, rng)
    site = site_of_patient[patient]
    parts = {str(name): np.flatnonzero(site == name) for name in np.unique(site)}
    _check_training(dataset, parts, settings)
    return parts


def partition_table(dataset: Dataset, parts: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """One row a site, for printing and for summary.json.

    Returns:
        Rows with the keys `site`; `patients`; `events` (patients with one); `train`, `validation`, `test`, and where
        there are any `align` (patients); `label-mix` (superclass -> share of the site's records, largest first).
    """
    return [{"site": name, **_describe(dataset, rows)} for name, rows in parts.items()]


def _describe(dataset: Dataset, rows: Rows) -> dict[str, Any]:
    cohort = dataset.cohort.select(rows)
    labels, counts = np.unique([dominant_superclass(codes) for codes in cohort.codes], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {
        "patients": _distinct(cohort.patient),
        "events": _distinct(cohort.patient[cohort.event]),
        **{name: _distinct(cohort.patient[cohort.part == name]) for name in PARTS},
        **({ALIGN: unknown} if (unknown := _distinct(cohort.patient[cohort.part == ALIGN])) else {}),
        "label-mix": {str(labels[at]): round(float(counts[at] / len(rows)), 4) for at in order},
    }


def _distinct(patient: NDArray[np.int64]) -> int:
    return len(np.unique(patient))


def _first_records(patient: NDArray[np.intp], record: NDArray[np.int64]) -> Rows:
    """Row of each patient's lowest record, in the order of the patients."""
    order = np.lexsort((record, patient))
    return order[np.unique(patient[order], return_index=True)[1]]


def _by_column(dataset: Dataset, column: str, first: Rows) -> NDArray[np.str_]:
    if column not in dataset.columns:
        _refuse_split(f"no column {column}", f"one of {', '.join(sorted(dataset.columns))}")
    values, value_of_patient = np.unique(dataset.columns[column][first], return_inverse=True)
    names = np.array([_site_name(str(value)) for value in values])
    if len(set(names.tolist())) < len(values):
        alike = len(values) - len(set(names.tolist()))
        _refuse_split(
            f"{alike} of {len(values)} values of {column} with the same site name as another",
            "values that differ in letters or digits",
        )
    named: NDArray[np.str_] = names[value_of_patient]
    return named


def _site_name(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("._-")[:64] or "unknown"


def _dealt(
    dataset: Dataset, settings: PartitionSettings, first: Rows, rng: np.random.Generator
) -> NDArray[np.str_]:
    """Site name of every patient."""
    site = dealt(_labels(dataset, settings, first), settings, rng)
    named: NDArray[np.str_] = np.array(_numbered_names(settings.sites))[site]
    return named


def _numbered_names(sites: int) -> list[str]:
    digits = max(2, len(str(sites)))
    return [f"site-{number:0{digits}d}" for number in range(1, sites + 1)]


def _labels(dataset: Dataset, settings: PartitionSettings, first: Rows) -> NDArray[np.str_]:
    if settings.by != "dirichlet":
        return np.full(len(first), "all")
    if settings.label == "event":
        return np.where(dataset.cohort.event[first], "event", "censored")
    return np.array([dominant_superclass(dataset.cohort.codes[row]) for row in first])


def _check_training(dataset: Dataset, parts: Mapping[str, Rows], settings: PartitionSettings) -> None:
    wanted = list(parts) if settings.by == "column" else _numbered_names(settings.sites)
    nobody = np.empty(0, dtype=np.int64)
    without = [name for name in wanted if not np.any(dataset.cohort.part[parts.get(name, nobody)] == "train")]
    if without:
        raise CohortError(
            "FECG-625",
            "virtual sites",
            found=f"{len(without)} without a training patient: {some_of(without)}",
            expected="at least one training patient a site",
            fix='Use fewer sites, a larger partition.alpha, partition.sizes = "equal", or another seed or column.',
        )


def _refuse_split(found: str, expected: str) -> NoReturn:
    raise CohortError("FECG-626", "partition", found=found, expected=expected, fix="Change [partition].")
