"""The files of a built cohort.

In:  `BuiltCohort`, a folder. Out: cohort.csv (or cohort-files.csv without a store), flow.json. Called by `commands`.
No file holds a patient's name: patients are numbers made of their names under a secret key, which lies beside the table
and is kept, so that a table that is built again, with more patients, gives everybody the number of before. The privacy
ledger knows patients by it. Without a store the names of the ECG files are written, as the hospital has them: keep that
table inside.
"""

from __future__ import annotations

import csv
import hmac
import io
import secrets
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build import BuiltCohort
from fedecg.cohort.cohort import Cohort, write_cohort
from fedecg.cohort.flow import flow_to_json
from fedecg.files import read_regular, write_whole

__all__ = ["write_built"]

FILE_COLUMNS = (
    "file", "patient", "part", "event", "follow_up_days", "entry_days", "died", "age_years", "female",
)  # fmt: skip


KEY, KEY_BYTES = "patients.key", 32


def write_built(built: BuiltCohort, folder: Path) -> list[Path]:
    """Write one table (in fold-K/ where there are folds) and flow.json.

    With a store, `cohort.csv` as `read_cohort` takes it. Without, `cohort-files.csv`: the column `file` in place of
    `record` and `codes`, as `fedecg evaluate MODEL cohort-files.csv --records FOLDER` takes it.

    Raises:
        RunError: FECG-601. CohortError: FECG-221..230 a rule of cohorts is broken (a fault of the builder).
    """
    has_store = bool(np.all(built.record >= 0))
    patient = _numbers(built.order, _key(folder / KEY))
    written = []
    for number, part in enumerate(built.parts, start=1):
        place = folder / f"fold-{number}" if len(built.parts) > 1 else folder
        target = place / ("cohort.csv" if has_store else "cohort-files.csv")
        if has_store:
            write_cohort(_cohort(built, patient, part), target)
        else:
            write_whole(target, _table(built, patient, part))
        written.append(target)
    write_whole(folder / "flow.json", flow_to_json(built.flow))
    return [*written, folder / "flow.json"]


def _key(file: Path) -> bytes:
    """The secret of the numbers: made once, then kept."""
    if not file.exists():
        write_whole(file, secrets.token_bytes(KEY_BYTES), private=True)
    return read_regular(file)


def _numbers(names: Iterable[str], key: bytes) -> NDArray[np.int64]:
    """(n,) a number of 63 bits for each name; two patients share one with a chance below n^2 / 2^64."""
    digests = [hmac.digest(key, name.encode(), "sha256") for name in names]
    return np.array([int.from_bytes(digest[:8], "big") >> 1 for digest in digests], dtype=np.int64)


def _cohort(built: BuiltCohort, patient: NDArray[np.int64], part: NDArray[np.str_]) -> Cohort:
    return Cohort(
        record=built.record,
        patient=patient,
        part=part,
        event=built.event,
        follow_up_days=built.follow_up_days,
        entry_days=built.entry_days,
        died=built.died,
        age_years=built.age_years,
        female=built.female,
        codes=({},) * len(part),
    )


def _table(built: BuiltCohort, patient: NDArray[np.int64], part: NDArray[np.str_]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FILE_COLUMNS)
    for row in range(len(part)):
        numbers = (built.follow_up_days[row], built.entry_days[row])
        blanks = (built.age_years[row], built.female[row])
        writer.writerow(
            [
                built.file[row],
                int(patient[row]),
                part[row],
                int(built.event[row]),
                *(repr(float(one)) for one in numbers),
                int(built.died[row]),
                *("" if np.isnan(one) else repr(float(one)) for one in blanks),
            ]
        )
    return text.getvalue()
