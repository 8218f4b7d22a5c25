"""The site's own data: the table, the ECGs, and whether the two belong together and to the studies that it has joined.

In:  what site.toml names. Out: one `Check` each, with counts for the people at the site; what may leave is chosen by
`fedecg_client.preflight.share`. Called by preflight. The readers are those of training: what passes here is read there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedecg_client.folder import SiteFolder
from fedecg_client.preflight.check import Check, failed, passed, skipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedecg.cohort import Cohort
    from fedecg.config import StudySettings
    from fedecg.federation.lock import StudyLock
    from fedecg.signals import SignalStore
    from fedecg.text import Bank

__all__ = ["SiteDataChecks"]

KIND = "data"
LOOKED_AT = 200  # ECGs whose amplitude is looked at
PLAUSIBLE_MV = (0.2, 8.0)  # median over ECGs of the largest deflection; outside: another unit than millivolt?
SHORT_DAYS = 100.0  # longest follow-up of a table whose unit is years or months
QUANTILES = (0.05, 0.5, 0.9)


class SiteDataChecks:
    """Opens what there is, once."""

    def __init__(self, site: SiteFolder) -> None:
        self.site = site
        self.cohort: Cohort | None = None
        self.store: SignalStore | None = None

    def check_cohort(self) -> Check:
        """The table: schema, patients, events, follow-up by part."""
        from fedecg.cohort import ALIGN, PARTS
        from fedecg.privacy.withdrawal import read_site_cohort

        file = Path(self.site.settings.cohort)
        if not file.is_file():
            return failed(
                "cohort", KIND, "FECG-227", "no table where `cohort` of site.toml points to",
                "Put it there, or write its path into site.toml.",
            )  # fmt: skip
        cohort = read_site_cohort(self.site.folder, file)
        if not len(cohort):
            return failed(
                "cohort", KIND, "FECG-661", "a table without a row below its header", "Write one row an ECG into it.",
            )  # fmt: skip
        self.cohort = cohort
        parts = {part: _counts(cohort, part) for part in PARTS}
        if (cohort.part == ALIGN).any():
            parts[ALIGN] = _counts(cohort, ALIGN)
        code, fault = _unusable(parts, survival="survival" in self.site.settings.policy.phases)
        notes = _notes(cohort)
        words = "; ".join(f"{part} {_part_words(counts)}" for part, counts in parts.items())
        if code:
            return failed(
                "cohort", KIND, code, f"{fault} ({words})", "Split the table again, by patient.", parts=parts
            )
        return passed("cohort", KIND, "; ".join([words, *notes]), parts=parts, notes=notes)

    def check_store(self) -> Check:
        """The ECGs: whole, readable, refused, plausible in millivolt."""
        from fedecg.signals import SignalStore

        self.store = store = SignalStore.open(self.site.settings.store)
        refused: dict[str, int] = {}
        for code in filter(None, store.codes):
            refused[code] = refused.get(code, 0) + 1
        usable = len(store) - sum(refused.values())
        amplitude = _amplitude_mv(store)
        details: dict[str, Any] = {
            "ecgs": len(store), "usable": usable, "refused": refused, "samples": store.samples,
            "settings": store.settings, "quality": {name: int((n > 0).sum()) for name, n in store.quality.items()},
            "median-amplitude-mv": amplitude,
        }  # fmt: skip
        if not usable:
            return failed(
                "store", KIND, "FECG-215", "a store without a usable ECG", "See its manifest.csv.", **details
            )
        words = (
            f"{len(store)} ECGs, {len(store) - usable} refused, {store.samples} samples, {amplitude:.2f} mV"
        )
        if not PLAUSIBLE_MV[0] <= amplitude <= PLAUSIBLE_MV[1]:
            words += " (median of the largest deflection): is the unit millivolt?"
        return passed("store", KIND, words, **details)

    def check_together(self) -> Check:
        """Table and store: every row of the one is a usable ECG of the other; and the studies that were joined."""
        if self.cohort is None or self.store is None:
            return skipped("data", KIND, "the table or the store cannot be used")
        import numpy as np

        from fedecg.cohort import require_same_store
        from fedecg.training import SiteData

        require_same_store(self.site.settings.cohort, self.store.key)
        nothing = np.zeros((len(self.cohort), 1), dtype=np.float32)
        SiteData(self.site.settings.name, self.cohort, self.store, nothing)
        joined = sorted(_joined(self.site))
        for study in joined:
            self._fits(study)
        words = f", and the {len(joined)} studies joined" if joined else ""
        return passed("data", KIND, f"every row of the table is a usable ECG of the store{words}")

    def check_reports(self) -> Check:
        """What a section [text] names: reports, and the language model of the studies that were joined."""
        from fedecg_client.preflight.reports import check_reports

        text = self.site.settings.text
        if text is None or self.cohort is None:
            return skipped("reports", KIND, "no [text] in site.toml, or a table that cannot be used")
        agreed = {study: lock for study in sorted(_joined(self.site)) if (lock := self._lock(study))}
        banks = {study: self._bank(lock)[1] for study, lock in agreed.items()}
        return check_reports(self.site, text, self.cohort, banks)

    def _lock(self, study: str) -> StudyLock | None:
        from fedecg_client.pinned import pinned_lock

        return pinned_lock(self.site.folder, study)

    def _bank(self, lock: StudyLock) -> tuple[StudySettings, Bank]:
        """The study's settings and the site's copy of its bank, which must be the one that was agreed on."""
        from fedecg.config import StudySettings, parse_settings
        from fedecg.text import load_bank
        from fedecg_client.own_bank import require_agreed_bank, with_own_bank

        settings = with_own_bank(self.site.folder, parse_settings(StudySettings, lock.settings))
        bank = load_bank(settings.align.bank)
        require_agreed_bank(self.site.folder, lock, settings, bank)
        return settings, bank

    def _fits(self, study: str) -> None:
        """Raises what the study's first round would."""
        from fedecg.errors import ModelError
        from fedecg.text import targets

        lock = self._lock(study)
        if lock is None or self.cohort is None or self.store is None:
            return
        settings, bank = self._bank(lock)
        signals = settings.signals
        if self.store.samples != signals.samples or self.store.input != signals.input:
            raise ModelError(
                "FECG-327",
                f"signal store, for study {study}",
                found=f"signals of {self.store.samples} samples ({self.store.input})",
                expected=f"{signals.samples} samples ({signals.input}), as in the study's [signals]",
                fix="Build the store with the study's [signals] settings.",
            )
        targets(self.cohort.codes, bank, settings.align.likelihood_zero)


def _counts(cohort: Cohort, part: str) -> dict[str, Any]:
    """Of one part; events and follow-up of patients, each once. Nobody in the part "align" is followed."""
    import numpy as np

    here = cohort.select(cohort.part == part)
    _, first, ecgs = np.unique(here.patient, return_index=True, return_counts=True)
    days = here.follow_up_days[first]
    days = days[~np.isnan(days)]
    quantiles: NDArray[np.float64] = (
        np.quantile(days, QUANTILES) if len(days) else np.full(len(QUANTILES), np.nan)
    )
    return {
        "ecgs": len(here),
        "patients": len(first),
        "events": int(here.event[first].sum()),
        "died": int(here.died[first].sum()),
        "several-ecgs": int((ecgs > 1).sum()),
        "age-missing": int(np.isnan(here.age_years[first]).sum()),
        "sex-missing": int(np.isnan(here.female[first]).sum()),
        "nothing-stated": sum(not codes for codes in here.codes),
        "follow-up-days": {f"{q:g}": float(d) for q, d in zip(QUANTILES, quantiles, strict=True)}
        if len(days)
        else {},
    }


def _part_words(counts: dict[str, Any]) -> str:
    days = counts["follow-up-days"]
    if not days and counts["patients"]:
        return f"{counts['patients']} patients without a known outcome"
    followed = f", median {days['0.5'] / 365.25:.1f} years" if days else ""
    return f"{counts['patients']} patients, {counts['events']} events{followed}"


def _unusable(parts: dict[str, dict[str, Any]], *, survival: bool) -> tuple[str | None, str]:
    """What would end the first round; alignment takes several ECGs of a patient, survival does not."""
    learned = parts["train"]["patients"] + (0 if survival else parts.get("align", {}).get("patients", 0))
    empty = [part for part, some in (("train", learned), ("test", parts["test"]["patients"])) if not some]
    if empty:
        return "FECG-665", f"no patient in {' and '.join(empty)}"
    if survival and parts["train"]["several-ecgs"]:
        return (
            "FECG-231",
            f"{parts['train']['several-ecgs']} patients of train with several ECGs: not independent",
        )
    return None, ""


def _notes(cohort: Cohort) -> list[str]:
    notes = []
    if (cohort.follow_up_days[cohort.part != "align"] < SHORT_DAYS).all():
        notes.append(f"nobody is followed for {SHORT_DAYS:.0f} days: is the unit of follow_up_days days?")
    if not cohort.event.any():
        notes.append(
            "no event at all: this site trains the network, and adds nothing to what is known of the risk"
        )
    return notes


def _amplitude_mv(store: SignalStore) -> float:
    """Median over some usable ECGs of the largest deflection in any lead."""
    import numpy as np

    usable = np.flatnonzero(np.array(store.codes, dtype=np.str_) == "")
    if not len(usable):
        return 0.0
    rows = usable[np.linspace(0, len(usable) - 1, min(LOOKED_AT, len(usable))).astype(np.int64)]
    return float(np.median(np.abs(store.batch(rows)).max(axis=(1, 2))))


def _joined(site: SiteFolder) -> list[str]:
    names = (file.name.removesuffix(".json") for file in (site.state / "locks").glob("*.json"))
    return [name for name in names if not name.endswith(".proposed")]
