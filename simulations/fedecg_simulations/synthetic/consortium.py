"""The synthetic consortium: patients of virtual hospitals, and their recordings.

In:  site names with numbers of patients, a seed. Out: `Patients` (tables) and 12-lead recordings in mV.
Called by the simulation runner and by `calibration`.

What a site holds depends on (seed, site name, part) alone: not on other sites, their order or their sizes. A
patient and the recording depend on these and on the patient's index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedecg_simulations.synthetic.hazard import draw_follow_up, true_log_hazard
from fedecg_simulations.synthetic.physiology import Physiology, draw_physiology
from fedecg_simulations.synthetic.recording import record
from fedecg_simulations.synthetic.sites import SITE_PROFILES, profile
from fedecg_simulations.synthetic.statements import state_findings

__all__ = [
    "SITE_PROFILES",
    "Part",
    "Patients",
    "consortium",
    "make_patients",
    "make_recordings",
    "share_out",
]

Part = Literal["train", "test"]
VALIDATION_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Patients:
    """n patients of one virtual hospital; one ECG each.

    Attributes:
        site, seed, generated_for: what they were drawn from; `generated_for` is "train" or "test".
        physiology: latent findings and features, age (years), sex.
        codes: (n) dicts, PTB-XL SCP code -> likelihood (0..100).
        reports: (n) English reports.
        event: (n,) bool, heart failure seen.
        follow_up_days: (n,) > 0, to heart failure or to the end of follow-up.
        true_log_hazard: (n,); the site's baseline hazard is not in it.
        part: (n,) "train", "validation" or "test".
    """

    site: str
    seed: int
    generated_for: Part
    physiology: Physiology
    codes: tuple[dict[str, float], ...]
    reports: tuple[str, ...]
    event: NDArray[np.bool_]
    follow_up_days: NDArray[np.float64]
    true_log_hazard: NDArray[np.float64]
    part: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.event)

    @property
    def age_years(self) -> NDArray[np.float64]:
        """(n,), years."""
        return self.physiology.age_years

    @property
    def female(self) -> NDArray[np.float64]:
        """(n,), 1 = woman, 0 = man."""
        return self.physiology.female

    @property
    def findings(self) -> dict[str, NDArray[np.bool_]]:
        """Name in `physiology.FINDINGS` -> (n,) bool."""
        return self.physiology.findings

    @property
    def features(self) -> dict[str, NDArray[np.float64]]:
        """Name in `physiology.FEATURES` -> (n,) float64, unit in the name."""
        return self.physiology.features

    @property
    def rate_hz(self) -> float:
        """Sampling rate of the site's recorder."""
        return SITE_PROFILES[self.site].rate_hz


def consortium(
    sites: Mapping[str, int], test_patients: int, seed: int
) -> Iterator[tuple[str, Patients, Patients]]:
    """Each site by name: (name, its train and validation patients, its share of the test part).

    Args:
        sites: profile name -> patients for train + validation.
        test_patients: patients of the separate test part, shared out in proportion to the sites' sizes.
        seed: of the study.

    Raises:
        SettingsError: FECG-611, a name without a profile.
    """
    for name in sites:
        profile(name)
    shares = share_out(test_patients, sites)
    for name in sorted(sites):
        yield name, make_patients(name, sites[name], seed), make_patients(name, shares[name], seed, "test")


def share_out(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Split a total in proportion to sizes by largest remainder, at least 1 each where the total allows it."""
    names = sorted(sizes)
    floor = 1 if total >= len(names) else 0
    exact = np.array([sizes[name] for name in names]) * (total - floor * len(names)) / sum(sizes.values())
    shares = np.floor(exact).astype(int)
    rest = total - floor * len(names) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:rest]] += 1
    return {name: int(share) + floor for name, share in zip(names, shares, strict=True)}


def make_patients(site_name: str, n: int, seed: int, part: Part = "train") -> Patients:
    """Draw n patients of a site. `part` "train" is split 80/20 into train and validation within events.

    Raises:
        SettingsError: FECG-611, a name without a profile.
    """
    site = profile(site_name)
    for_physiology, for_time, for_statements, for_split = _seed(seed, site_name, part).spawn(4)
    physiology = draw_physiology(site, n, for_physiology)
    log_hazard = true_log_hazard(physiology)
    event, days = draw_follow_up(log_hazard, site, for_time)
    codes, reports = state_findings(physiology, for_statements)
    labels = np.full(n, "test") if part == "test" else _split(event, np.random.default_rng(for_split))
    return Patients(site_name, seed, part, physiology, codes, reports, event, days, log_hazard, labels)


def make_recordings(patients: Patients, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Recordings (len(rows), 12, samples) in mV of these patients, at `patients.rate_hz`, 10 s, with noise.

    A row's recording is the same in every call, whatever the other rows are.
    """
    index = np.asarray(rows, dtype=np.int64)
    generators = [
        np.random.default_rng(_seed(patients.seed, patients.site, patients.generated_for, f"ecg {row}"))
        for row in index
    ]
    return record(patients.physiology.rows(index), SITE_PROFILES[patients.site], generators)


def _seed(seed: int, site_name: str, part: Part, use: str = "patients") -> np.random.SeedSequence:
    text = f"fedecg synthetic {seed} {site_name} {part} {use}"
    return np.random.SeedSequence(int.from_bytes(hashlib.sha256(text.encode()).digest()))


def _split(event: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.str_]:
    """Train or validation (n,): one in five of those with and of those without an event validates."""
    labels = np.full(len(event), "train", dtype="<U10")
    for outcome in (True, False):
        group = rng.permutation(np.flatnonzero(event == outcome))
        labels[group[: round(VALIDATION_SHARE * len(group))]] = "validation"
    return labels
