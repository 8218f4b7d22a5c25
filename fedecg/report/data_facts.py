"""What a site has, before any of it is counted: its ECGs, whose they are, what is known of these people.

In:  a site folder, a signal store with or without its cohort table, or files of ECGs; a table of devices and reports.
Out: `DataFacts`. Called by `data_report`. The language of a report is kept, its text is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort, read_cohort, require_same_store
from fedecg.cohort.build_settings import PeopleColumns
from fedecg.config import load_site
from fedecg.errors import SignalError
from fedecg.files import in_words
from fedecg.privacy.withdrawal import read_site_cohort
from fedecg.progress import Progress
from fedecg.report.data_languages import report_language
from fedecg.report.data_said import Cells, read_said, refuse, said_of
from fedecg.signals import Recording, SignalStore, read_recording
from fedecg.signals.ingest import NOT_AN_ECG, rows_of
from fedecg.signals.ingest_sources import Item, find_items
from fedecg.signals.ingest_workers import in_processes, in_turn

__all__ = ["DataFacts", "People", "gather", "of_known_people"]

FEW_FILES = 64  # are read in this process: starting others takes longer
OLDEST_YEARS = 120.0


@dataclass(frozen=True, eq=False)
class People:
    """Patients, one entry each.

    Attributes:
        number: (P,) int64, as in `DataFacts.patient`, ascending.
        age_years, female: (P,) float64, NaN = missing.
        part: (P,) str, "" where nobody says.
        follow_up_days: (P,) float64, NaN = not known. event, died: (P,) bool.
    """

    number: NDArray[np.int64]
    age_years: NDArray[np.float64]
    female: NDArray[np.float64]
    part: NDArray[np.str_]
    follow_up_days: NDArray[np.float64]
    event: NDArray[np.bool_]
    died: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DataFacts:
    """ECGs, one entry each, and the people.

    Attributes:
        kind: "store" or "files".
        codes: (N,) str, "" or the code of the refusal.
        quality: rule -> (N,) leads that break it (0 or 1 for rules of the whole recording).
        facts: name of `fedecg.signals.ingest.FACTS` -> (N,) text; none of a store that was not ingested.
        patient: (N,) int64, -1 where nobody says whose it is; of an ECG outside the cohort what the table says, which
            may be none of `people`.
        stated: (N,) dictionaries of codes, None where no cohort row has the ECG.
        device, language: (N,) str, or None where no table says.
        people: or None where it is not known whose any ECG is.
        outcomes: whether `people` has follow-up: there is a cohort table.
        settings: of the store, or None.
        others: files that are no ECGs; None of a store, whose refused.csv names them.
        drawn: row -> the recording and what was filtered; None where it cannot be had.
    """

    kind: str
    codes: NDArray[np.str_]
    quality: Mapping[str, NDArray[np.int64]]
    facts: Mapping[str, Sequence[str]] = field(repr=False)
    patient: NDArray[np.int64] = field(repr=False)
    stated: Sequence[dict[str, float] | None] = field(repr=False)
    device: NDArray[np.str_] | None = field(repr=False)
    language: NDArray[np.str_] | None = field(repr=False)
    people: People | None = field(repr=False)
    outcomes: bool
    settings: Mapping[str, Any] | None
    others: int | None
    drawn: Callable[[int], tuple[Recording, str] | None] = field(repr=False)

    def __len__(self) -> int:
        return len(self.codes)


def gather(
    data: Path,
    cohort: Path | None,
    table: Path | None,
    column: str,
    renamed: Mapping[str, str],
    jobs: int,
    progress: Progress,
) -> DataFacts:
    """Everything that a report is made of.

    Args:
        data: a site folder (site.toml), a store (store.json), or a folder, list or table of ECGs.
        cohort: table of the store; of a site folder its own is taken.
        table: with a column of file names and any of `data_said.COLUMNS`.
        column: of the table, that holds the file names.
        renamed: name of `data_said.COLUMNS` -> the table's column.
        jobs: processes to read files with.

    Raises:
        RunInputError: FECG-609, what was given is nothing to report on, or a table that cannot be used.
        FedecgError: whatever is wrong with the store or the cohort table.
    """
    said = read_said(table, column, renamed, progress) if table else None
    if _holds(data, "site.toml"):
        site = load_site(data / "site.toml")
        store = SignalStore.open(site.store)
        require_same_store(site.cohort, store.key)
        return _of_store(store, read_site_cohort(data, site.cohort), said, progress)
    if _holds(data, "store.json"):
        store = SignalStore.open(data)
        if cohort:
            require_same_store(cohort, store.key)
        return _of_store(store, read_cohort(cohort) if cohort else None, said, progress)
    if cohort:
        refuse("--cohort with a folder that is no store", "a store: its rows are what the cohort table names")
    try:
        items = find_items([str(data)], column)
    except SignalError as error:
        refuse(
            f"neither site.toml nor store.json nor files ({error.found})",
            "a site folder, a signal store, or a folder of ECGs",
        )
    return _of_files(items, said_of([item.source for item in items], said, progress), jobs, progress)


def _holds(data: Path, name: str) -> bool:
    """Whether there is such a file.

    Raises:
        RunInputError: FECG-609, nobody can look there (a name that is too long, say).
    """
    try:
        return (data / name).is_file()
    except OSError as error:
        refuse(in_words(error), "a site folder, a signal store, or a folder of ECGs")


def of_known_people(facts: DataFacts) -> DataFacts:
    """The same without ECGs of which nobody says whose they are, if it is known of any: how many people are behind the
    others cannot be said. Nothing of it can be drawn.
    """
    if facts.people is None or not np.any(facts.patient < 0):
        return facts
    kept = facts.patient >= 0
    rows = np.flatnonzero(kept).tolist()
    return replace(
        facts,
        codes=facts.codes[kept],
        quality={rule: numbers[kept] for rule, numbers in facts.quality.items()},
        facts={name: tuple(cells[row] for row in rows) for name, cells in facts.facts.items()},
        patient=facts.patient[kept],
        stated=[facts.stated[row] for row in rows],
        device=None if facts.device is None else facts.device[kept],
        language=None if facts.language is None else facts.language[kept],
        drawn=lambda _: None,
    )


def _of_store(
    store: SignalStore,
    cohort: Cohort | None,
    table: Mapping[str, Cells] | None,
    progress: Progress,
) -> DataFacts:
    sources = store.facts.get("source", ("",) * len(store))
    of_row = said_of(sources, table, progress)
    patient, people = _patients(of_row)
    stated: list[dict[str, float] | None] = [None] * len(store)
    if cohort is not None:
        inside = (cohort.record >= 0) & (cohort.record < len(store))
        if not inside.all():
            refuse(
                f"{int((~inside).sum())} rows of the cohort table that the store does not have", "one build"
            )
        patient = _with_cohort(patient, cohort)
        people = _of_cohort(cohort)
        for row, codes in zip(cohort.record.tolist(), cohort.codes, strict=True):
            stated[row] = codes

    def drawn(row: int) -> tuple[Recording, str] | None:
        if store.codes[row]:
            return None
        hz, low, high = (store.settings[name] for name in ("rate-hz", "highpass-hz", "lowpass-hz"))
        return Recording(
            store.batch(np.array([row]))[0], float(hz)
        ), f"as stored: {low:g}-{high:g} Hz, {hz} Hz"

    return DataFacts(
        kind="store",
        codes=np.array(store.codes, dtype=np.str_),
        quality=store.quality,
        facts=store.facts,
        patient=patient,
        stated=stated,
        device=_column(of_row, "device"),
        language=_languages(of_row),
        people=people,
        outcomes=cohort is not None,
        settings=store.settings,
        others=None,
        drawn=drawn,
    )


def _of_files(items: Sequence[Item], said: Sequence[Cells], jobs: int, progress: Progress) -> DataFacts:
    """Files are read and judged; nothing of them is kept but what the report counts. `said`: of each item."""
    work = partial(rows_of, settings=None, powerline="none")
    events = in_turn(items, work) if jobs == 1 or len(items) < FEW_FILES else in_processes(items, work, jobs)
    entries: list[tuple[int, dict[str, Any]]] = []
    others = 0
    with progress.task("ECG files", len(items)) as advance:
        for number, row in events:
            if row is None:
                advance(number + 1, f"{len(entries)} ECGs")
            elif items[number].searched and row.entry["code"] in NOT_AN_ECG:
                others += 1
            else:
                entries.append((number, row.entry))
    of_row = [said[number] for number, _ in entries]
    patient, people = _patients(of_row)
    rules = [name for name in (entries[0][1] if entries else {}) if name not in ("code", "source", "index")]
    texts = ("source", "index", "rate_hz", "seconds", "peak_mv", "missing", "extra_leads")

    def drawn(row: int) -> tuple[Recording, str] | None:
        number, entry = entries[row]
        item, place = items[number], entry.get("index", "")
        try:
            path = item.path if place == "" else item.path.with_name(f"{item.path.name}#{place}")
            return read_recording(path), "no filter"
        except (SignalError, OSError):
            return None

    return DataFacts(
        kind="files",
        codes=np.array([entry["code"] for _, entry in entries], dtype=np.str_),
        quality={
            rule: np.array([entry.get(rule, 0) for _, entry in entries], dtype=np.int64)
            for rule in rules
            if rule not in texts
        },
        facts={name: tuple(str(entry.get(name, "")) for _, entry in entries) for name in texts},
        patient=patient,
        stated=[None] * len(entries),
        device=_column(of_row, "device"),
        language=_languages(of_row),
        people=people,
        outcomes=False,
        settings=None,
        others=others,
        drawn=drawn,
    )


def _of_cohort(cohort: Cohort) -> People:
    """Each patient once: by the first row whose outcome is known, else by the first."""
    order = np.lexsort((cohort.record, np.isnan(cohort.follow_up_days), cohort.patient))
    first = order[np.unique(cohort.patient[order], return_index=True)[1]]
    one = cohort.select(first)
    return People(one.patient, one.age_years, one.female, one.part, one.follow_up_days, one.event, one.died)


def _with_cohort(patient: NDArray[np.int64], cohort: Cohort) -> NDArray[np.int64]:
    """Numbers of the cohort for its ECGs and for others that the table gives to the same people; new ones for the rest.

    Args:
        patient: (N,) numbers by the table, -1 where it says nothing.
    """
    joined = np.full(len(patient), -1, dtype=np.int64)
    joined[cohort.record] = cohort.patient
    by_table: dict[int, int] = {}
    for row in cohort.record.tolist():
        by_table.setdefault(int(patient[row]), int(joined[row]))
    by_table[-1] = -1
    unused = 1 + int(cohort.patient.max(initial=-1))
    outside = np.ones(len(patient), dtype=np.bool_)
    outside[cohort.record] = False
    for row in np.flatnonzero(outside).tolist():
        joined[row] = by_table.setdefault(int(patient[row]), unused + int(patient[row]))
    return joined


def _patients(of_row: Sequence[Mapping[str, str]]) -> tuple[NDArray[np.int64], People | None]:
    """Whose each ECG is, by the table; and what it says of them in the first of their rows that says it."""
    numbers: dict[str, int] = {}
    patient = np.array(
        [numbers.setdefault(row["patient"], len(numbers)) if row.get("patient") else -1 for row in of_row],
        dtype=np.int64,
    )
    if not numbers:
        return patient, None
    known: dict[str, list[float]] = {name: [np.nan] * len(numbers) for name in ("age_years", "female")}
    for number, row in zip(patient.tolist(), of_row, strict=True):
        for name, values in known.items():
            if number >= 0 and np.isnan(values[number]):
                values[number] = _READ[name](row.get(name, ""))
    age, female = np.array(known["age_years"]), np.array(known["female"])
    nobody = np.zeros(len(numbers), dtype=np.bool_)
    return patient, People(
        number=np.arange(len(numbers)),
        age_years=np.where((age >= 0) & (age <= OLDEST_YEARS), age, np.nan),
        female=np.where(np.isin(female, (0, 1)), female, np.nan),
        part=np.full(len(numbers), ""),
        follow_up_days=np.full(len(numbers), np.nan),
        event=nobody,
        died=nobody,
    )


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _female(cell: str) -> float:
    """1, 0 or NaN, from such a number or a word, as `fedecg cohort build` reads them."""
    word = cell.lower()
    return 1.0 if word in _WORDS.female else 0.0 if word in _WORDS.male else _number(cell)


_WORDS = PeopleColumns()
_READ = {"age_years": _number, "female": _female}


def _column(of_row: Sequence[Mapping[str, str]], name: str) -> NDArray[np.str_] | None:
    if not any(name in row for row in of_row):
        return None
    return np.array([" ".join(row.get(name, "").split()) or "not stated" for row in of_row], dtype=np.str_)


def _languages(of_row: Sequence[Mapping[str, str]]) -> NDArray[np.str_] | None:
    if not any("report" in row for row in of_row):
        return None
    return np.array([report_language(row.get("report", "")) for row in of_row], dtype=np.str_)
