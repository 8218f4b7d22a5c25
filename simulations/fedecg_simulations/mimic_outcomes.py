"""Observed outcomes of MIMIC-IV-ECG: heart failure in the admissions and diagnoses of MIMIC-IV, by the cohort's rules.

In:  the ECGs that are there, a folder of MIMIC-IV. Out: `Observed`: index ECG, outcome and part of each patient, age,
     sex and year. Called by `mimic_iv_ecg`. The rules are those of `fedecg cohort build` (docs/cohort.md): the same
     code applies them, to tables under MIMIC's own names.

Follow-up ends with the last discharge: whoever never came back after the ECG's admission was seen until then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w
from numpy.typing import NDArray

from fedecg.cohort.build import BuiltCohort, build_cohort
from fedecg.cohort.build_settings import load_cohort_settings
from fedecg.errors import CohortError
from fedecg.files import in_words
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.index_ecgs import (
    SHARES,
    SHARES_IN_WORDS,
    IndexEcgs,
    Outcomes,
    Parts,
    with_outcomes,
)

__all__ = ["CLINICAL_TABLES", "Observed", "clinical_table", "observed_outcomes"]

CLINICAL_TABLES = ("patients", "admissions", "diagnoses_icd")
COLUMNS = {
    "ecgs": {"patient": "subject_id", "date": "ecg_time", "file": "path"},
    "diagnoses": {"patient": "subject_id", "admission": "hadm_id", "code": "icd_code", "version": "icd_version"},
    "admissions": {
        "patient": "subject_id", "admission": "hadm_id", "admitted": "admittime", "discharged": "dischtime",
    },
    "follow-up": {"patient": "subject_id", "date": "dischtime"},
    "deaths": {"patient": "subject_id", "date": "dod"},
    "people": {"patient": "subject_id", "age": "anchor_age", "age-year": "anchor_year", "sex": "gender"},
}  # fmt: skip
HEART_FAILURE = {"lists": ["heart-failure"]}


@dataclass(frozen=True, eq=False)
class Observed:
    """One row a patient.

    Attributes:
        rows: (N,) labels of the chosen ECGs in the table that was given.
        built: what the rules made; its rows are these.
        columns: "year" -> (N,) the year of the ECG, true to within a year (`anchor_year_group`).
        notes: how many left at which rule.
    """

    rows: NDArray[np.int64]
    built: BuiltCohort
    columns: Mapping[str, NDArray[np.str_]]
    notes: Mapping[str, int]

    @property
    def age_years(self) -> NDArray[np.float64]:
        """(N,) at the ECG, NaN = missing."""
        return self.built.age_years

    @property
    def female(self) -> NDArray[np.float64]:
        """(N,) 1, 0 or NaN."""
        return self.built.female

    def dataset(self, ecgs: IndexEcgs) -> Dataset:
        """The ECGs with these outcomes.

        Raises:
            CohortError: FECG-221..230 as `Cohort.validate`.
        """
        outcomes = Outcomes(
            event=self.built.event,
            died=self.built.died,
            follow_up_days=self.built.follow_up_days,
            entry_days=self.built.entry_days,
            known="observed",
        )
        keyed = {**SHARES_IN_WORDS, "note": "by patient and event, keyed"}
        return with_outcomes(ecgs, outcomes, Parts(self.built.parts[0], keyed))


def observed_outcomes(records: pd.DataFrame, clinical: Path, rules: str, seed: int) -> Observed:
    """Apply the rules to the tables of MIMIC-IV.

    Args:
        records: ECGs: subject_id, ecg_time, path; labels 0..n-1.
        clinical: folder of MIMIC-IV.
        rules: "paper-hyp", "paper-mi", or "": nobody is left out but those who had heart failure before the ECG.
        seed: of the study; decides the parts.

    Raises:
        CohortError: FECG-616 a table of MIMIC-IV is missing; FECG-286..293 as `build_cohort`.
    """
    tables = {name: clinical_table(clinical, name) for name in CLINICAL_TABLES}
    with tempfile.TemporaryDirectory(prefix="fedecg-mimic-") as scratch:
        ecgs = Path(scratch) / "ecgs.csv"
        records[["subject_id", "ecg_time", "path"]].to_csv(ecgs, index=False)
        document = Path(scratch) / "cohort.toml"
        document.write_text(tomli_w.dumps(_rules(ecgs, tables, rules, seed)), encoding="utf-8")
        built = build_cohort(load_cohort_settings(document))
    row_of = {path: row for row, path in enumerate(records["path"])}
    rows = np.array([row_of[path] for path in built.file], dtype=np.int64)
    return Observed(rows, built, {"year": _years(records.loc[rows], tables["patients"])}, _notes(built))


def clinical_table(folder: Path, name: str) -> Path:
    """Where a table of MIMIC-IV lies: below hosp/ as published, or in the folder itself; .csv.gz or .csv.

    Raises:
        CohortError: FECG-616 nowhere.
    """
    places = [
        base / f"{name}{ending}" for base in (folder / "hosp", folder) for ending in (".csv.gz", ".csv")
    ]
    for place in places:
        if place.is_file():
            return place
    raise CohortError(
        "FECG-616",
        "folder of MIMIC-IV (data.clinical)",
        found=f"no {name}.csv.gz",
        expected=f"hosp/ with {', '.join(f'{one}.csv.gz' for one in CLINICAL_TABLES)}",
        fix="MIMIC-IV is for credentialed users of PhysioNet: download it with your account, or leave data.clinical "
        "out (outcomes are then simulated).",
    )


def _rules(ecgs: Path, tables: Mapping[str, Path], rules: str, seed: int) -> dict[str, Any]:
    absolute = {name: str(path.resolve()) for name, path in tables.items()}
    return {
        **({"rules": {"base": rules}} if rules else {}),
        "ecgs": {"table": str(ecgs), "people": absolute["patients"]},
        "diagnoses": {"table": absolute["diagnoses_icd"], "admissions": absolute["admissions"]},
        "follow-up": {"end-table": absolute["admissions"], "death-table": absolute["patients"]},
        "exclude": {**HEART_FAILURE, "faults": "leave-out"},
        "event": HEART_FAILURE,
        "columns": COLUMNS,
        "split": {"validation": SHARES[1], "test": SHARES[2], "seed": seed},
    }


def _years(records: pd.DataFrame, patients: Path) -> NDArray[np.str_]:
    """Year of each ECG: the middle of the patient's anchor_year_group, moved by the ECG's distance from anchor_year."""
    try:
        people = pd.read_csv(patients, dtype=str, usecols=["subject_id", "anchor_year", "anchor_year_group"])
    except (OSError, ValueError) as error:
        raise CohortError(
            "FECG-621",
            "patients.csv of MIMIC-IV",
            found=in_words(error),
            expected="subject_id, anchor_year and anchor_year_group",
            fix="Compare it with the published one.",
        ) from None
    people = people.drop_duplicates("subject_id").set_index("subject_id").reindex(records["subject_id"])
    first = pd.to_numeric(people["anchor_year_group"].str[:4], errors="coerce").to_numpy()
    anchor = pd.to_numeric(people["anchor_year"], errors="coerce").to_numpy()
    shifted = records["ecg_time"].str[:4].astype(int).to_numpy()
    year = first + 1 + shifted - anchor
    return np.array(["unknown" if np.isnan(one) else str(int(one)) for one in year])


def _notes(built: BuiltCohort) -> dict[str, int]:
    flow = built.flow
    left = {f"left at {step.key}": step.left for step in flow.steps if step.left}
    return {"patients-with-an-ecg": flow.patients, **left, "died-before-the-event": flow.died}
