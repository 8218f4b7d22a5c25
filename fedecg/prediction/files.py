"""Record files in, rows out: threads read and preprocess while the network computes.

In:  a `Model`, names of records. Out: a `FileRow` a name, in order; CSV or JSON of them.
Called by `commands`. A name stands in the rows only, never in a log or an error: it may hold a patient's id.
"""

from __future__ import annotations

import csv
import io
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from fedecg.errors import ClinicalInputError
from fedecg.files import in_words, read_regular
from fedecg.prediction.predictor import BATCH, Model, Prediction, Prepared
from fedecg.prediction.readers import Readers
from fedecg.prediction.risk import HORIZONS_YEARS, checked_horizons_years
from fedecg.signals import header_path, read_recording

__all__ = [
    "FileRow",
    "csv_text",
    "predict_files",
    "record_names",
    "repeated",
    "row_fields",
    "shortened",
    "would_replace",
]

BATCHES_AHEAD = 4  # read while the network computes one; 25 KB a record
PORTION = 8  # records that a reader takes at once: handing over every single one cost up to 0.1 ms a record
# Half of the cores: the network uses them all, and every reader more is one more that its threads wait for.
READERS = min(4, max(1, (os.cpu_count() or 1) // 2))
# Longest name in a printed table: what is left of 200 columns beside four horizons and two short warnings.
NAME_WIDTH = 40
# What a file that `csv_text` or the command's JSON wrote begins with.
WRITTEN = ("file,log-hazard,", '{\n  "model-sha256": ')
# What a spreadsheet takes for a formula when a cell begins with it.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class FileRow:
    """One file and what the model says of it.

    Attributes:
        file: the name as it was given.
        prediction: with a code where the file is refused.
        explanation: the page that explains it, "" where there is none; None where none was asked for.
    """

    file: str = field(repr=False)
    prediction: Prediction
    explanation: str | None = None


def record_names(given: Sequence[str], stdin: TextIO) -> list[str]:
    """Names of records: as given, from a text file with a name a line (`@list.txt`), or from stdin (`-`).

    Raises:
        ClinicalInputError: FECG-265, a list that cannot be read, or no name at all.
    """
    names: list[str] = []
    for word in given:
        try:
            lines = stdin.read() if word == "-" else _listed(word)
        except (OSError, UnicodeDecodeError) as error:
            raise _no_names(f"a list that cannot be read ({in_words(error)})") from None
        names += [word] if lines is None else [line.strip() for line in lines.splitlines() if line.strip()]
    if not names:
        raise _no_names("0 names")
    return names


def repeated(names: Sequence[str]) -> int:
    """How many names are of a record that stands before them: a record is its .hea and its .dat or .mat."""
    # Links stay as they are: to resolve them asks the file system about every folder of every name.
    return len(names) - len({os.path.abspath(header_path(name)) for name in names})  # noqa: PTH100


def predict_files(
    model: Model,
    files: Sequence[str],
    horizons_years: Sequence[float] = HORIZONS_YEARS,
    progress: Callable[[int], object] | None = None,
) -> list[FileRow]:
    """Predict records of any format that `read_recording` knows; a bad file has its code, the rest are predicted.

    Args:
        model: of `load`.
        files: names of records, with or without ending.
        horizons_years: years > 0, rising.
        progress: called with the number of files that are done after each batch.

    Raises:
        ModelError: FECG-346, horizons that are not positive and rising.
    """
    horizons = checked_horizons_years(horizons_years)
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    rows: list[FileRow] = []
    with Readers(READERS) as readers:
        ahead: deque[list[Future[list[Prepared]]]] = deque()
        for number, batch in enumerate(batches):
            for coming in batches[number + len(ahead) : number + 1 + BATCHES_AHEAD]:
                portions = [coming[start : start + PORTION] for start in range(0, len(coming), PORTION)]
                ahead.append([readers.submit(partial(_prepared, model, portion)) for portion in portions])
            prepared = [one for future in ahead.popleft() for one in future.result()]
            predictions = model.complete(prepared, horizons)
            rows += [FileRow(*pair) for pair in zip(batch, predictions, strict=True)]
            if progress is not None:
                progress(len(rows))
    return rows


def row_fields(row: FileRow, horizons_years: Sequence[float]) -> dict[str, Any]:
    """`file`, `log-hazard`, `risk-1y`, `risk-1y-low`, `risk-1y-high`, ..., `percentile`, ..., `warnings`, `code`.

    `percentile-bound` is "at least" or "at most" where the log hazard lies beyond the population's outermost cuts;
    `explanation`, where pages were asked for, is the page's file.
    """
    prediction = row.prediction
    risks = {risk.years: risk for risk in prediction.risks}
    fields: dict[str, Any] = {"file": row.file, "log-hazard": prediction.log_hazard}
    for years in horizons_years:
        risk = risks.get(years)
        name = f"risk-{years:g}y"
        fields[name] = risk and risk.risk
        fields[f"{name}-low"] = risk and risk.low
        fields[f"{name}-high"] = risk and risk.high
    fields["percentile"] = prediction.percentile
    fields["percentile-bound"] = prediction.percentile_bound
    fields["warnings"] = list(prediction.warnings)
    fields["code"] = prediction.code
    if row.explanation is not None:
        fields["explanation"] = row.explanation
    return fields


def csv_text(
    rows: Sequence[FileRow], horizons_years: Sequence[float], beside: Mapping[str, str] | None = None
) -> str:
    """All rows as CSV, blank = not known; a name that a spreadsheet would run as a formula gets a leading '.

    Args:
        beside: columns that hold the same in every row: what must not be separated from a risk.
    """
    text = io.StringIO()
    tables = [row_fields(row, horizons_years) | dict(beside or {}) for row in rows]
    writer = csv.DictWriter(text, list(tables[0]), lineterminator="\n")
    writer.writeheader()
    for table in tables:
        safe = f"'{table['file']}" if table["file"].startswith(FORMULA) else table["file"]
        writer.writerow({**table, "file": safe, "warnings": "; ".join(table["warnings"])})
    return text.getvalue()


def shortened(name: str, width: int = NAME_WIDTH) -> str:
    """A name in at most `width` letters: its middle goes first, for files differ in their ends."""
    if len(name) <= width:
        return name
    start = (width - 1) // 3
    return f"{name[:start]}\u2026{name[start + 1 - width :]}"


def would_replace(out: Path) -> bool:
    """Whether a table of `fedecg predict` stands in the place of the one to be written.

    Raises:
        ClinicalInputError: FECG-275, another file stands there: a cohort table, an ECG, notes.
    """
    if not out.exists():
        return False
    try:
        content = read_regular(out)
    except OSError as error:
        raise _foreign(in_words(error)) from None
    if content and not content.startswith(tuple(text.encode() for text in WRITTEN)):
        raise _foreign("another file of that name")
    return True


def _foreign(found: str) -> ClinicalInputError:
    return ClinicalInputError(
        "FECG-275",
        "--out",
        found=found,
        expected="a new name, or a table that fedecg predict wrote",
        fix="Choose another --out, or remove that file first.",
    )


def _prepared(model: Model, files: Sequence[str]) -> list[Prepared]:
    return [model.prepare(partial(read_recording, file)) for file in files]


def _listed(word: str) -> str | None:
    return Path(word[1:]).read_text(encoding="utf-8-sig") if word.startswith("@") else None


def _no_names(found: str) -> ClinicalInputError:
    return ClinicalInputError(
        "FECG-265",
        "records to predict",
        found=found,
        expected="names of records, or a UTF-8 text file with a name a line (@list.txt)",
        fix="Example: fedecg predict MODEL records/*.hea",
    )
