"""Patients who do not exist, for a look at whether a loss couples the patients of a batch.

In:  a site, of which only its name, the length of its ECGs and the number of statements are read. Out: a `SiteData` of
     a few ECGs of noise. Called by `fedecg.training.protected` before the first protected step of a round.

What the look finds, it tells the coordinator: a site that stops sends a code. Were it made on the site's own records,
weights could be chosen that overflow on certain ECGs, and the code, which no noise covers, would say whether a patient
has one. Of these ECGs everybody knows everything.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort
from fedecg.privacy.independence import MOST_RECORDS
from fedecg.signals import LEADS, SignalStore
from fedecg.training.site_data import SiteData

__all__ = ["stand_ins"]

SEED = 20230515
SPREAD = 200.0  # counts of 1 µV
DAYS = (30.0, 3000.0)


def stand_ins(site: SiteData) -> SiteData:
    """As many made-up patients as a look needs, by turns with and without an event, each stating another code.

    Args:
        site: whose place they take; none of its records is read.
    """
    rng = np.random.default_rng(SEED)
    number, at = MOST_RECORDS, np.arange(MOST_RECORDS)
    cohort = Cohort(
        record=at,
        patient=at,
        part=np.full(number, "train"),
        event=at % 2 == 0,
        follow_up_days=rng.permutation(np.linspace(*DAYS, number)),
        entry_days=np.zeros(number),
        died=np.zeros(number, dtype=np.bool_),
        age_years=np.full(number, 60.0),
        female=np.zeros(number),
        codes=({},) * number,
    )
    codes = site.targets.shape[1]
    targets = np.eye(codes, dtype=np.float32)[at % codes]
    return SiteData(
        site.name, cohort, _store(rng, site.store.samples), targets, class_weights=site.class_weights
    )


def _store(rng: np.random.Generator, samples: int) -> SignalStore:
    """Noise in all leads, in memory."""
    counts = rng.normal(0.0, SPREAD, (MOST_RECORDS, len(LEADS), samples)).round()
    in_words: NDArray[np.int16] = counts.astype(np.int16)
    return SignalStore(Path(), "", samples, {}, ("",) * MOST_RECORDS, {}, {}, in_words)
