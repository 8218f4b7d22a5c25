"""Any table with a row an ECG, and the files that it names, as a `Dataset`; the study file names its columns.

In:  a folder, the name of a table in it (CSV, TSV or Parquet, also .gz), `[data.columns]`.
Out: one ECG a patient, the first row of each; outcomes as the table has them, or SIMULATED where it has none. Called by
     `sources`. No message names a patient, a file or a cell.

For public sets that fedecg does not know by name, and for exports of a registry. A hospital's dated diagnoses become
outcomes with `fedecg cohort build`, not here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import ALIGN, PARTS
from fedecg.cohort.build_tables import Table, read_table
from fedecg.config import DataColumns
from fedecg.errors import CohortError
from fedecg.signals.reading import header_path, read_recording
from fedecg.text import scp_statements
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.index_ecgs import IndexEcgs, Outcomes, given_or_drawn, with_outcomes
from fedecg_simulations.simulated_outcomes import with_simulated_outcomes
from fedecg_simulations.snomed_codes import scp_codes

__all__ = ["load_table_folder"]

FEMALE, MALE = ("f", "female", "w", "weiblich", "1", "1.0"), ("m", "male", "männlich", "0", "0.0")
TRUE, FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
OLDEST_YEARS = 120.0
STATED = 100.0  # likelihood of a code that is stated without one
BLANKS = {"site": "folder", "device": "unknown", "source": "unknown", "year": "unknown"}


def load_table_folder(
    path: str | Path, table: str, columns: DataColumns, seed: int, event_fraction: float
) -> Dataset:
    """Read the table; the ECGs are read later.

    Args:
        path: folder; files that the table names start from it.
        table: name of the table in the folder.
        columns: what its columns are called; an empty name: not there.
        seed: of the study; decides simulated outcomes, and parts where the table has none.
        event_fraction: share of simulated events, in (0, 1); not used where the table has outcomes.

    Raises:
        CohortError: FECG-629 no such table, it lacks a column that is named, or cells that cannot be used, of all
            columns; FECG-616 fewer than two ECGs; FECG-623 files that are not there; FECG-222..230 as
            `Cohort.validate`.
    """
    folder = Path(path)
    rows = _read(folder / table, columns)
    first = rows.select(_first_rows(rows))
    cells = _Cells(first)
    cells.faults += _blank_patients(rows)
    files = [folder / name for name in cells.values("file", _not_blank, "the name of a file", "")]
    stated = cells.values("codes", _codes, 'SCP codes ("LVH AFIB") or a JSON object of them', {})
    mapped = cells.values("snomed", _snomed, "SNOMED CT codes", {})
    ecgs = IndexEcgs(
        age_years=np.array(cells.values("age_years", _age, "years in 0..120, or blank", 0.0)),
        female=np.array(cells.values("sex", _sex, "female, male, f, m, 1, 0 or blank", 0.0)),
        codes=tuple({**snomed, **scp} for snomed, scp in zip(mapped, stated, strict=True)),
        columns={name: np.array(cells.texts(name, blank)) for name, blank in BLANKS.items()},
        recordings=[partial(read_recording, file) for file in files],
        source=f"folder, {len(files)} ECGs, sha256 {_state_sha256(files)}",
        notes={"records": rows.rows, "later-ecgs-left-out": rows.rows - first.rows},
    )
    part = (
        np.array(cells.values("part", _part, " or ".join((*PARTS, ALIGN)), "train")) if columns.part else None
    )
    own = _outcomes(cells, columns.endpoint) if columns.event else None
    cells.check()
    _require_files(files)
    if own is None:
        return with_simulated_outcomes(ecgs, seed, event_fraction, part)
    return with_outcomes(ecgs, own, given_or_drawn(part, own.event, seed))


def _read(path: Path, columns: DataColumns) -> Table:
    named = columns.model_dump(exclude={"endpoint"})
    names = {key: name for key, name in named.items() if name}
    try:
        return read_table(path, "data.table", names)
    except CohortError as error:
        raise CohortError(
            "FECG-629",
            "data.table",
            found=error.found,
            expected=error.expected,
            fix="Check data.path, data.table and the names in [data.columns].",
        ) from None


def _first_rows(table: Table) -> NDArray[np.int64]:
    """The first row of each patient, in the order of the table; all rows where no column names the patients.

    All blank cells count as one patient: they are refused with whatever else is wrong (`_blank_patients`).
    """
    if "patient" not in table.columns:
        return np.arange(table.rows)
    names = table["patient"].cells()
    return np.sort(np.unique(names.astype(str), return_index=True)[1])


def _blank_patients(table: Table) -> list[str]:
    """What is wrong with the names of patients, of all rows."""
    if "patient" not in table.columns:
        return []
    blank = int(np.sum(table["patient"].cells() == ""))
    return [f"{blank} of {table.rows} cells of patient that are blank"] if blank else []


class _Cells:
    """Columns of cells become columns of values; what cannot be read is counted, over all columns."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.faults: list[str] = []

    def values(self, name: str, parse: Callable[[str], Any], expected: str, instead: Any) -> list[Any]:
        """A value a row: of an unreadable cell `instead`; what "" means where the table has no such column."""
        values, bad = [], 0
        for text in self.texts(name, ""):
            try:
                values.append(parse(text))
            except (ValueError, TypeError):
                values.append(instead)
                bad += 1
        if bad:
            self.faults.append(
                f"{bad} of {len(values)} cells of {name.replace('_', '-')} that are not {expected}"
            )
        return values

    def texts(self, name: str, blank: str) -> list[str]:
        """The cells themselves; `blank` in place of those that are."""
        if name not in self.table.columns:
            return [blank] * self.table.rows
        return [str(text) or blank for text in self.table[name].cells()]

    def check(self) -> None:
        """Raises:
        CohortError: FECG-629 with every column that has cells that cannot be read.
        """
        if self.faults:
            _refuse("; ".join(self.faults))


def _outcomes(cells: _Cells, endpoint: str) -> Outcomes:
    return Outcomes(
        event=np.array(cells.values("event", _flag, "1 or 0", False), dtype=np.bool_),
        died=np.array(cells.values("died", _flag_or_blank, "1, 0 or blank", False), dtype=np.bool_),
        follow_up_days=np.array(cells.values("follow_up_days", _days, "days, > 0", 1.0)),
        entry_days=np.array(cells.values("entry_days", _days_or_blank, "days, or blank", 0.0)),
        known="observed",
        endpoint=endpoint,
    )


def _not_blank(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _flag(text: str) -> bool:
    if text.lower() not in (*TRUE, *FALSE):
        raise ValueError
    return text.lower() in TRUE


def _flag_or_blank(text: str) -> bool:
    return bool(text) and _flag(text)


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days < inf:
        raise ValueError
    return days


def _days_or_blank(text: str) -> float:
    days = float(text or 0)
    if not 0 <= days < inf:
        raise ValueError
    return days


def _age(text: str) -> float:
    age = float(text or "nan")
    if age < 0 or age > OLDEST_YEARS:
        raise ValueError
    return age


def _sex(text: str) -> float:
    if not text:
        return float("nan")
    if text.lower() not in (*FEMALE, *MALE):
        raise ValueError
    return float(text.lower() in FEMALE)


def _part(text: str) -> str:
    if text not in (*PARTS, ALIGN):
        raise ValueError
    return text


def _codes(text: str) -> dict[str, float]:
    if text.startswith("{"):
        stated = {str(code): float(likelihood) for code, likelihood in json.loads(text).items()}
    else:
        stated = dict.fromkeys(text.replace(",", " ").replace(";", " ").split(), STATED)
    if not scp_statements().keys() >= stated.keys():
        raise ValueError
    return stated


def _snomed(text: str) -> dict[str, float]:
    codes = text.replace(",", " ").replace(";", " ").split()
    if not all(code.isdigit() for code in codes):
        raise ValueError
    return scp_codes(codes)[0]


def _require_files(files: Sequence[Path]) -> None:
    missing = sum(not _is_there(file) for file in files)
    if missing:
        raise CohortError(
            "FECG-623",
            "signal files",
            found=f"{missing} of {len(files)} that the table names and that are not there",
            expected="files that start from data.path, with or without .hea, .dat or .mat; FILE#3 for one of many",
            fix="Complete the folder, or take their rows out of the table.",
        )


def _is_there(file: Path) -> bool:
    return header_path(file).is_file() or file.is_file() or _container(file).is_file()


def _container(file: Path) -> Path:
    return file.with_name(file.name.rpartition("#")[0] or file.name)


def _state_sha256(files: Sequence[Path]) -> str:
    """Hash of names, sizes and times of change: another table or other files need another store."""
    digest = hashlib.sha256()
    for file in files:
        at = next((one for one in (header_path(file), file, _container(file)) if one.is_file()), None)
        state = at.stat() if at else None
        digest.update(f"{file} {state and state.st_size} {state and state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _refuse(found: str) -> NoReturn:
    raise CohortError(
        "FECG-629",
        "data.table",
        found=found,
        expected="cells as docs/datasets.md says of each column",
        fix="Correct the table, or leave the column out of [data.columns].",
    )
