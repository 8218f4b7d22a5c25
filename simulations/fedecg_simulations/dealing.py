"""How many patients of each label go to each virtual site, and which: the draws behind a partition.

In:  a label a patient, settings, a random generator. Out: the number of a site a patient. Called by `partitions`.
Pure arithmetic on labels: nothing here knows of ECGs, parts or names.

With `sizes = "drawn"` every label is cut in proportions of its own, and how large a site is follows from what it was
dealt. With "equal" or "power-law" how large each site is comes first; the same draws then give the odds of the labels
at the sites, and the table with these odds that has both margins is found by iterative proportional fitting: nobody is
left over, and no last site has to take what the others did not get.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.config import PartitionSettings

__all__ = ["dealt", "site_sizes", "table_with_margins"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

BACKGROUND = 1e-3  # share of each label that is spread evenly: no cell of the table is shut
MOST_FITS = 10_000
CLOSE = 1e-7  # patients


def dealt(labels: NDArray[np.str_], settings: PartitionSettings, rng: np.random.Generator) -> Integers:
    """Deal patients.

    Args:
        labels: (n,) of the patients; all the same where labels do not matter.
        settings: `by` is not "column".
        rng: of this partition alone.

    Returns:
        (n,) number of a site, 0 .. sites - 1. A site may get nobody.

    Source: a draw of the sites' shares for every label: Yurochkin et al. 2019, arXiv 1905.12022; fitting: Deming,
    Stephan 1940, Ann Math Stat 11:427.
    """
    if settings.sizes == "drawn":
        return _cut_by_label(labels, settings, rng)
    names, label = np.unique(labels, return_inverse=True)
    counts = np.bincount(label, minlength=len(names))
    sizes = site_sizes(len(labels), settings, rng)
    share = np.full((len(names), settings.sites), 1 / settings.sites)
    if settings.by == "dirichlet":
        drawn = rng.dirichlet(np.full(settings.sites, settings.alpha), size=len(names))
        share = (1 - BACKGROUND) * drawn + BACKGROUND * share
    table = table_with_margins(share.T * counts, sizes, counts)
    site = np.empty(len(labels), dtype=np.int64)
    for number in range(len(names)):
        members = rng.permutation(np.flatnonzero(label == number))
        site[members] = np.repeat(np.arange(settings.sites), table[:, number])
    return site


def site_sizes(patients: int, settings: PartitionSettings, rng: np.random.Generator) -> Integers:
    """(sites,) patients of each site, at least 1 and together `patients`.

    A power law: the k-th largest site in proportion to k^-exponent; which site that is is drawn, so that the order of
    the names, which decides the windows of follow-up, says nothing of size.
    """
    share = np.ones(settings.sites)
    if settings.sizes == "power-law":
        share = rng.permutation(np.arange(1.0, settings.sites + 1) ** -settings.exponent)
    wanted = share / share.sum() * (patients - settings.sites)
    whole = np.floor(wanted).astype(np.int64)
    rest = patients - settings.sites - int(whole.sum())
    whole[np.argsort(whole - wanted, kind="stable")[:rest]] += 1
    sizes: Integers = whole + 1
    return sizes


def table_with_margins(wish: Floats, rows: Integers, columns: Integers) -> Integers:
    """The whole numbers nearest to a table in the sense of iterative proportional fitting, with these margins.

    Args:
        wish: (S, K) > 0.
        rows, columns: (S,) and (K,) sums that the result has, of one total.
    """
    fitted = wish.copy()
    for _ in range(MOST_FITS):
        fitted *= (rows / fitted.sum(axis=1))[:, None]
        off = columns - fitted.sum(axis=0)
        if np.abs(off).max() < CLOSE:
            break
        fitted *= columns / fitted.sum(axis=0)
    else:
        fitted *= columns / fitted.sum(axis=0)
    table = np.floor(fitted + CLOSE).astype(np.int64)
    return _filled(table, rows - table.sum(axis=1), columns - table.sum(axis=0))


def _filled(table: Integers, lacking: Integers, left: Integers) -> Integers:
    """One more in the cells of each column whose rows lack most: gives both margins wherever that can be.

    Source: Gale 1957, Pacific J Math 7:1073; Ryser 1957, Canad J Math 9:371 (largest remaining rows first).
    """
    lacking = lacking.copy()
    for column in np.argsort(-left, kind="stable"):
        while left[column] > 0:
            chosen = np.argsort(-lacking, kind="stable")[: left[column]]
            table[chosen, column] += 1
            lacking[chosen] -= 1
            left[column] -= len(chosen)
    return table


def _cut_by_label(
    labels: NDArray[np.str_], settings: PartitionSettings, rng: np.random.Generator
) -> Integers:
    """Within each label shuffled, then cut in the drawn proportions."""
    site = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        share = np.full(settings.sites, 1 / settings.sites)
        if settings.by != "iid":
            share = rng.dirichlet(np.full(settings.sites, settings.alpha))
        edges = np.rint(np.cumsum(share)[:-1] * len(members)).astype(np.int64)
        for number, own in enumerate(np.split(members, edges)):
            site[own] = number
    return site
