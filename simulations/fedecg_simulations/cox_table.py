"""A table of patients for the federated Cox model: read, checked, and split into its sites.

In:  a CSV or Parquet file, one row a patient, and the names of its columns. Out: `CoxTable`. Called by `cox`.
Errors count what is wrong by column; they print names of columns, never a value: no names at all where the first line
may be a patient's.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedecg.errors import CohortError, SettingsError
from fedecg.files import in_words
from fedecg.objectives.linear_cox_sums import CoxPatients

__all__ = ["CoxColumns", "CoxTable", "read_cox_table"]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

# What pandas raises for a file that is absent, truncated, encrypted, or of another kind than its name says.
UNREADABLE = (
    *(OSError, ValueError, ImportError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)
DATE = re.compile(
    r"\d{1,4}([-./ ])(\d{1,2}|[a-z]{3,9})\1\d{1,4}|[a-z]{3,9}\.? \d{1,2}, *\d{4}|\d{1,2}:\d{2}", re.IGNORECASE
)
IDENTIFIER = re.compile(
    r"(^|[^a-z])(p|u|pt|pat)?ids?$|^(case|ecg|encounter|patient|person|record|row|sample|study|subject|visit)_?ids?$"
    r"|(^|[^a-z])(mrn|uuid|guid|identifier)$|[a-z]I[Dd]$",
)
DISTINCT_FROM = 20  # rows; fewer patients may well be of different ages


@dataclass(frozen=True)
class CoxColumns:
    """Which columns of the table are what.

    Attributes:
        time: follow-up in days; event: 0 or 1; site: any label.
        covariates: names in the order wanted; empty: all other numeric columns that do not look like identifiers.
        entry: days from which a patient is observed; None: all from day 0.
        test_part: (column, value) of the rows that are kept out of the fit; None: no test part.
    """

    time: str
    event: str
    site: str
    covariates: tuple[str, ...] = ()
    entry: str | None = None
    test_part: tuple[str, str] | None = None

    def roles(self) -> dict[str, str]:
        """Role -> column, for all but the covariates."""
        named = {"--time": self.time, "--event": self.event, "--site": self.site}
        if self.entry is not None:
            named["--entry"] = self.entry
        if self.test_part is not None:
            named["--test-part"] = self.test_part[0]
        return named


@dataclass(frozen=True, eq=False)
class CoxTable:
    """N checked patients.

    Attributes:
        names: p names of the covariates.
        by_default: True = nobody asked for these covariates by name.
        left_out: columns that were not asked for by name and are not numeric.
        identifiers: numeric columns that were not asked for by name and look like identifiers; left out too.
        patients: all N rows in the order of the table.
        site: (N,) label of each patient's site.
        test: (N,) bool, kept out of the fit.
    """

    names: tuple[str, ...]
    by_default: bool
    left_out: tuple[str, ...]
    identifiers: tuple[str, ...]
    patients: CoxPatients
    site: NDArray[np.str_]
    test: Booleans

    def part(self, rows: Booleans) -> CoxPatients:
        """Some of the patients."""
        entry = self.patients.entry_days
        return CoxPatients(
            self.patients.follow_up_days[rows],
            self.patients.event[rows],
            self.patients.covariates[rows],
            None if entry is None else entry[rows],
        )

    def sites(self) -> dict[str, CoxPatients]:
        """Site -> its patients outside the test part, in the order of the labels; a site may be empty."""
        return {str(name): self.part((self.site == name) & ~self.test) for name in np.unique(self.site)}


def read_cox_table(path: Path, columns: CoxColumns) -> CoxTable:
    """Read and check a table.

    Raises:
        CohortError: FECG-239 not readable, FECG-254 columns absent or none left, FECG-255 a covariate that is not a
            number or missing, FECG-256 time, FECG-257 event, FECG-258 site, FECG-259 entry, FECG-260 dates or
            durations.
        SettingsError: FECG-109, a test part that is empty or everything.
    """
    frame = _read(path)
    _refuse_absent(frame, columns)
    _refuse_dates(frame, columns)
    numeric = () if columns.covariates else _numeric(frame, set(columns.roles().values()))
    identifiers = tuple(name for name in numeric if _is_identifier(frame, name))
    names = columns.covariates or tuple(name for name in numeric if name not in identifiers)
    if not names:
        beside = ", ".join(columns.roles().values())
        unused = f", and what looks like identifiers: {', '.join(identifiers)}" if identifiers else ""
        raise CohortError(
            "FECG-254",
            "covariates",
            found=f"no numeric column beside {beside}{unused}",
            expected="at least one covariate",
            fix="Give numbers; code categories as 0 and 1, one column each. --columns takes any column.",
        )
    taken = {*names, *identifiers, *columns.roles().values()}
    return CoxTable(
        names,
        not columns.covariates,
        () if columns.covariates else tuple(str(name) for name in frame if name not in taken),
        identifiers,
        CoxPatients(
            _time(frame, columns.time),
            _event(frame, columns.event),
            _covariates(frame, names),
            None if columns.entry is None else _entry(frame, columns.entry, columns.time),
        ),
        _site(frame, columns.site),
        _test(frame, columns.test_part),
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        frame = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, low_memory=False, float_precision="round_trip")
        )
    except UNREADABLE as error:  # their texts may quote a cell or a path
        raise CohortError(
            "FECG-239",
            "table",
            found=in_words(error),
            expected="a CSV file with a header (UTF-8), or Parquet, one row a patient",
            fix="Check the path, the format and that the file is whole; Parquet needs pyarrow.",
        ) from None
    if frame.empty:
        raise CohortError("FECG-239", "table", found="no rows", expected="one row a patient")
    return frame.rename(columns=str)


def _refuse_absent(frame: pd.DataFrame, columns: CoxColumns) -> None:
    roles = [*columns.roles().values(), *columns.covariates]
    absent = [name for name in dict.fromkeys(roles) if name not in frame]
    if absent:
        raise CohortError(
            "FECG-254",
            "columns of the table",
            found=f"{len(absent)} absent: {', '.join(absent)}",
            **_what_there_is(frame),
        )
    twice = sorted({name for name in roles if roles.count(name) > 1})
    if twice:
        raise CohortError(
            "FECG-254",
            "columns of the table",
            found=f"{len(twice)} asked for more than once: {', '.join(twice)}",
            expected="a column of its own for every role and covariate",
        )


def _what_there_is(frame: pd.DataFrame) -> dict[str, str]:
    """`expected` and `fix` of an error: the names of the columns, unless they may be the first patient's values."""
    names = [str(name) for name in frame]
    separators = r"[;|\s]" if len(names) == 1 else r"[;|\t]"
    if not any(_is_value(part) for name in names for part in re.split(separators, name)):
        return {"expected": f"names out of {', '.join(names)}", "fix": ""}
    columns = "1 column" if len(names) == 1 else f"{len(names)} columns"
    return {
        "expected": f"names of the table's {columns}, which are not shown: some read like numbers or dates",
        "fix": "Is the header missing, or another separator used than a comma?",
    }


def _is_value(text: str) -> bool:
    """True for what reads as a number or a date, in which a first line of names would be odd."""
    try:
        float(text.strip().replace(",", "."))
    except ValueError:
        return DATE.search(text) is not None
    return True


def _refuse_dates(frame: pd.DataFrame, columns: CoxColumns) -> None:
    """As numbers, dates and durations would be nanoseconds."""
    roles = columns.roles()
    asked = [
        roles["--time"],
        roles["--event"],
        *([columns.entry] if columns.entry else []),
        *columns.covariates,
    ]
    dates = [name for name in asked if _is_date(frame[name])]
    if dates:
        raise CohortError(
            "FECG-260",
            "columns of the table",
            found=f"{len(dates)} of dates or durations: {', '.join(dates)}",
            expected="numbers; times in days",
            fix="Turn them into days since the patient's day 0.",
        )


def _is_date(values: pd.Series) -> bool:
    return values.dtype.kind in "mM" or isinstance(values.dtype, pd.PeriodDtype)


def _numeric(frame: pd.DataFrame, taken: set[str]) -> tuple[str, ...]:
    numbers = frame.select_dtypes(include=["number", "bool"], exclude=["timedelta"])
    return tuple(str(name) for name in numbers if name not in taken)


def _is_identifier(frame: pd.DataFrame, column: str) -> bool:
    """By its name (id, pid, patient_id, recordID, mrn, ...), or as whole numbers of which no two are equal."""
    if IDENTIFIER.search(column) or IDENTIFIER.search(column.lower()):
        return True
    values = _numbers(frame, column)
    known = values[~np.isnan(values)]
    whole = (known % 1 == 0) & (np.abs(known) < 2**53)  # from there on float64 knows whole numbers only
    return known.size >= DISTINCT_FROM and bool(whole.all()) and np.unique(known).size == known.size


def _numbers(frame: pd.DataFrame, column: str) -> Floats:
    """A column as float64; what is missing, infinite or no number is NaN."""
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _refuse(code: str, column: str, wrong: Booleans, found: str, expected: str, fix: str) -> None:
    count = int(np.count_nonzero(wrong))
    if count:
        raise CohortError(
            code, column, found=f"{count} of {wrong.size} values {found}", expected=expected, fix=fix
        )


def _covariates(frame: pd.DataFrame, names: Sequence[str]) -> Floats:
    values = np.column_stack([_numbers(frame, name) for name in names])
    missing = np.isnan(values).sum(axis=0)
    if missing.any():
        counts = [f"{name} {count}" for name, count in zip(names, missing, strict=True) if count]
        raise CohortError(
            "FECG-255",
            "covariates",
            found=f"missing values or values that are not numbers, of {len(frame)} patients: {', '.join(counts)}",
            expected="a finite number in every row",
            fix="Impute them, drop these patients, or choose other columns with --columns.",
        )
    return values


def _time(frame: pd.DataFrame, column: str) -> Floats:
    days = _numbers(frame, column)
    wrong = ~(days >= 0)  # NaN too
    _refuse(
        "FECG-256",
        column,
        wrong,
        "that are negative, missing or no numbers",
        "days to the event or the last contact, finite and >= 0",
        "Drop patients whose last contact is before day 0.",
    )
    return days


def _event(frame: pd.DataFrame, column: str) -> Booleans:
    event = _numbers(frame, column)
    fix = "Code competing events and losses to follow-up as 0."
    _refuse(
        "FECG-257", column, ~np.isin(event, (0, 1)), "that are neither 0 nor 1", "0 or 1 = event seen", fix
    )
    return np.asarray(event == 1)


def _entry(frame: pd.DataFrame, column: str, time: str) -> Floats:
    entry = _numbers(frame, column)
    wrong = ~((entry >= 0) & (entry < _numbers(frame, time)))
    fix = "Drop patients who are never observed."
    _refuse(
        "FECG-259", column, wrong, f"that are no days from 0 to before {time}", "0 <= entry < follow-up", fix
    )
    return entry


def _site(frame: pd.DataFrame, column: str) -> NDArray[np.str_]:
    fix = "Give every patient a site, or drop these rows."
    _refuse(
        "FECG-258",
        column,
        frame[column].isna().to_numpy(),
        "that are missing",
        "a site's label in every row",
        fix,
    )
    return frame[column].astype(str).to_numpy(dtype=np.str_)


def _test(frame: pd.DataFrame, part: tuple[str, str] | None) -> Booleans:
    if part is None:
        return np.zeros(len(frame), dtype=np.bool_)
    test = (frame[part[0]].astype(str) == part[1]).to_numpy(dtype=np.bool_)
    if test.all() or not test.any():
        raise SettingsError(
            "FECG-109",
            "--test-part",
            found=f"{int(test.sum())} of {test.size} rows with that value in {part[0]}",
            expected="some rows to test and some to fit",
        )
    return test
