"""What a site trains on: its cohort, its signal store, and what its records' codes point at in the bank.

In:  a site folder with site.toml (`fedecg.config.load_site`), the study's settings, the code bank; where site.toml has
     a section [text], the site's reports, too, of which nothing but targets and numbers is kept.
Out: a frozen `SiteData`. Called by the client and by simulations; read by the rest of `fedecg.training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedecg.cohort import ALIGN, Cohort, require_same_store
from fedecg.config import StudySettings, load_site
from fedecg.errors import CohortError, ModelError
from fedecg.privacy.withdrawal import read_site_cohort
from fedecg.signals import SignalStore
from fedecg.text import Bank, class_weights
from fedecg.text import targets as bank_targets
from fedecg.text.left_out import targets_without
from fedecg.text.report_targets import mixed_targets, report_targets
from fedecg.text.reports import read_reports
from fedecg.training.randomness import site_generator

__all__ = ["SiteData", "load_site_data", "shuffled_targets"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SiteData:
    """One site's data. `Rows` below are places in the cohort, not in the store.

    Args:
        name: of the site.
        cohort: N records (`Cohort.validate` holds).
        store: signals; `cohort.record` points into it.
        targets: (N, K) float32, weights of the stated codes in the bank; a row sums to 1 or is all zero.
        report: (N,) int64, the same number for the same report, -1 where there is none; None: no reports at all.
        class_weights: (K,) float32 of the study's loss; None: 1 each.

    Raises:
        CohortError: FECG-232 records that the store does not have; FECG-233 records that its quality rules refused.
        ModelError: FECG-328 another number of targets than of records.
    """

    name: str
    cohort: Cohort
    store: SignalStore
    targets: NDArray[np.float32]
    report: NDArray[np.int64] | None = None
    class_weights: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        record = self.cohort.record
        outside = int(np.sum((record < 0) | (record >= len(self.store))))
        if outside:
            raise CohortError(
                "FECG-232",
                "column record of the cohort table",
                found=f"{outside} of {len(record)} records that are not in the signal store",
                expected=f"rows of the store, which has {len(self.store)}",
                fix="The table and the store belong to different builds: make both again.",
            )
        refused = sum(
            self.store.codes[row] != "" for row in record.tolist()
        )  # of a store with many sites' rows
        if refused:
            raise CohortError(
                "FECG-233",
                "column record of the cohort table",
                found=f"{refused} of {len(record)} records that the store's quality rules refused",
                expected="usable records only (their code in the store's manifest.csv is blank)",
                fix="Leave these rows out of the cohort table; the manifest says why each was refused.",
            )
        if len(self.targets) != len(record):
            raise ModelError(
                "FECG-328",
                "targets of the alignment loss",
                found=f"{len(self.targets)} rows for {len(record)} records",
                expected="one row a record",
            )

    def rows(self, part: str) -> Rows:
        """Rows of "train", "validation", "test" or "align", ascending."""
        return np.flatnonzero(self.cohort.part == part)

    def rows_to_align(self) -> Rows:
        """Rows that alignment learns from, ascending: "train", and "align" whose outcome is not known.

        The same whichever of the two a row is in: alignment does not depend on whose outcomes are known.
        """
        return np.flatnonzero(np.isin(self.cohort.part, ("train", ALIGN)))

    def state_the_same(self, rows: Rows) -> NDArray[np.bool_]:
        """(n, n) True where two of the `rows` (n,) have the same targets, or the same report."""
        _, number = np.unique(self.targets[rows], axis=0, return_inverse=True)
        same: NDArray[np.bool_] = number[:, None] == number[None]
        if self.report is not None:
            report = self.report[rows]
            same |= (report[:, None] == report[None]) & (report[:, None] >= 0)
        return same

    def signals(self, rows: Rows) -> Tensor:
        """ECGs (n, 12, samples) float32 in mV, in the order of `rows` (n,)."""
        return torch.from_numpy(self.store.batch(self.cohort.record[rows]))

    def events(self, rows: Rows) -> NDArray[np.bool_]:
        """Events (n,): True = event seen, False = censored."""
        return self.cohort.event[rows]

    def follow_up_days(self, rows: Rows) -> NDArray[np.float64]:
        """Days (n,) > 0 from the ECG to the event or the last contact."""
        return self.cohort.follow_up_days[rows]

    def cause(self, rows: Rows) -> NDArray[np.int64]:
        """Why follow-up ended (n,): 0 = censored, 1 = event, 2 = death before it."""
        return np.where(self.cohort.died[rows], 2, self.cohort.event[rows].astype(np.int64))

    def entry_days(self, rows: Rows) -> NDArray[np.float64]:
        """Days (n,) >= 0 from the ECG to the first day under observation."""
        return self.cohort.entry_days[rows]


def load_site_data(site_folder: str | Path, settings: StudySettings, bank: Bank) -> SiteData:
    """Open what site.toml names, and check that its parts belong together and to the study.

    Args:
        site_folder: holds site.toml.
        settings: of the study.
        bank: statements that the targets point at.

    Raises:
        SettingsError: site.toml cannot be used.
        SignalError: the store cannot be opened.
        PolicyError: FECG-450 who has withdrawn cannot be read.
        CohortError: the table cannot be used; FECG-292 it was built on another store; FECG-232, FECG-233 as `SiteData`.
        TextError: codes that the bank does not know; FECG-378 as `targets_without`; FECG-270 as `class_weights`;
            reports or a language model that cannot be used, as `read_reports` and `report_targets`.
        ModelError: FECG-327 the store's signals have another length than the study's network reads.
    """
    site = load_site(Path(site_folder) / "site.toml")
    store, cohort = SignalStore.open(site.store), read_site_cohort(site_folder, site.cohort)
    require_same_store(site.cohort, store.key)
    if store.samples != settings.signals.samples or store.input != settings.signals.input:
        raise ModelError(
            "FECG-327",
            "signal store",
            found=f"signals of {store.samples} samples ({store.input})",
            expected=f"{settings.signals.samples} samples ({settings.signals.input}), as in the study's [signals]",
            fix="Build the store with the study's [signals] settings.",
        )
    targets = bank_targets(cohort.codes, bank, settings.align.likelihood_zero)
    report = None
    if site.text is not None:
        reports = read_reports(site.text.reports, cohort.record)
        of_reports = report_targets(reports, bank, site.text, Path(site_folder))
        targets, report = mixed_targets(targets, of_reports, site.text.mix), _numbered(reports)
    if settings.align.leave_out:
        targets = targets_without(targets, bank, settings.align.leave_out)
    if settings.align.targets == "shuffled":
        targets, report = shuffled_targets(targets, cohort.part, settings.seed, site.name), None
    weights = class_weights(bank.codes) if settings.align.class_weights == "public" else None
    return SiteData(site.name, cohort, store, targets, report, weights)


def _numbered(reports: Sequence[str]) -> Rows:
    """(N,) the same number for the same text, -1 for none: what is left of the reports after this."""
    number: dict[str, int] = {}
    return np.array(
        [number.setdefault(text, len(number)) if text else -1 for text in reports], dtype=np.int64
    )


def shuffled_targets(
    targets: NDArray[np.float32], part: NDArray[np.str_], seed: int, site_name: str
) -> NDArray[np.float32]:
    """Rows of (N, K) targets dealt anew among the records of each part: the control of what alignment is worth.

    Records of "train" and "align" are dealt together: alignment learns from both.

    What a part states as a whole is unchanged; which record states it follows from seed and site name alone, the same
    in every round.
    """
    dealt = targets.copy()
    rng = site_generator(seed, site_name, "shuffled targets", 0)
    for names in (("train", ALIGN), ("validation",), ("test",)):
        rows = np.flatnonzero(np.isin(part, names))
        dealt[rows] = targets[rng.permutation(rows)]
    return dealt
