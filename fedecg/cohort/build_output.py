"""The files of a built cohort.

In:  `BuiltCohort`, a folder, the key of the store. Out: cohort.csv and cohort.json, which says whose rows they are
     (without a store cohort-files.csv); flow.json. Called by `commands`.
No file holds a patient's name: patients are numbers made of their names under a secret key, which lies beside the table
or where the settings say, and is kept, so that a table that is built again, with more patients, gives everybody the
number of before. The privacy ledger knows patients by it. Without a store the names of the ECG files are written, as
the hospital has them: keep that table inside.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build import BuiltCohort
from fedecg.cohort.build_key import key_of, numbers_of
from fedecg.cohort.cohort import Cohort, write_cohort
from fedecg.cohort.cohort_store import store_note, write_store_note
from fedecg.cohort.flow import flow_to_json
from fedecg.errors import RunError
from fedecg.files import in_words, write_whole

__all__ = ["write_built"]

FILE_COLUMNS = (
    "file", "patient", "part", "event", "follow_up_days", "entry_days", "died", "age_years", "female", "codes",
)  # fmt: skip
ROWS, FILES, FLOW = "cohort.csv", "cohort-files.csv", "flow.json"
_FOLD = re.compile(r"fold-[1-9][0-9]*")


def write_built(built: BuiltCohort, folder: Path, store_key: str | None, key_file: str = "") -> list[Path]:
    """Write one table (in fold-K/ where there are folds) and flow.json; tables of an earlier build go.

    With a store, `cohort.csv` as `read_cohort` takes it. Without, `cohort-files.csv`: the column `file` in place of
    `record`, as `fedecg evaluate MODEL cohort-files.csv --records FOLDER` takes it.

    Args:
        store_key: of the store that `built.record` points into; None without a store.
        key_file: of the patients' numbers; "" = patients.key in the folder.

    Raises:
        RunError: FECG-601. CohortError: FECG-286 the key cannot be used; FECG-221..230 a rule of cohorts is broken (a
            fault of the builder).
    """
    patient = numbers_of(built.order, key_of(key_file, folder))
    name = FILES if store_key is None else ROWS
    folds = [folder / f"fold-{number}" for number in range(1, len(built.parts) + 1)]
    targets = [place / name for place in (folds if len(folds) > 1 else [folder])]
    _remove_earlier(folder, targets)
    written = []
    for target, part in zip(targets, built.parts, strict=True):
        if store_key is None:
            write_whole(target, _table(built, patient, part))
            written.append(target)
        else:
            write_cohort(_cohort(built, patient, part), target)
            # After the table: a kill between the two leaves a table that is refused, or one that says nothing.
            write_store_note(target, store_key)
            written += [target, store_note(target)]
    write_whole(folder / FLOW, flow_to_json(built.flow))
    return [*written, folder / FLOW]


def _remove_earlier(folder: Path, targets: Collection[Path]) -> None:
    """Remove tables that an earlier build wrote here and this one does not replace: two cohorts side by side mislead.

    Raises:
        RunError: FECG-601 they cannot be removed.
    """
    if not (folder / FLOW).is_file():  # nobody built here: what lies here is not ours
        return
    kept = {*targets, *(store_note(target) for target in targets if target.name == ROWS)}
    try:
        folds = [place for place in folder.iterdir() if _FOLD.fullmatch(place.name) and place.is_dir()]
        for place in (folder, *folds):
            for file in (place / ROWS, store_note(place / ROWS), place / FILES):
                if file not in kept:
                    file.unlink(missing_ok=True)
        for place in folds:
            with suppress(OSError):  # it holds something else, or what is replaced
                place.rmdir()
    except OSError as error:
        raise RunError(
            "FECG-601",
            "tables of an earlier build",
            found=in_words(error),
            expected="a folder whose files can be removed",
            fix="Choose another --out, or remove them.",
        ) from None


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
        codes=built.codes,
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
                json.dumps(built.codes[row]) if built.codes[row] else "",
            ]
        )
    return text.getvalue()
