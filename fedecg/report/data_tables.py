"""What a site's data look like, counted: ECGs, recordings, people, outcomes, statements.

In:  `DataFacts`, a code bank. Out: `Count` tables with exact numbers of ECGs, patients and events, and survival.
Called by `data_report`, which prints them for the inside; `data_disclosure` makes of them what may go outside.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedecg.codes import CODES
from fedecg.cohort import PARTS
from fedecg.evaluation.curves import kaplan_meier
from fedecg.evaluation.life_table import life_table
from fedecg.report.data_facts import DataFacts, People
from fedecg.report.wording import DAYS_A_YEAR, printable

__all__ = ["NOT_IN_BANK", "Count", "Horizon", "Table", "all_tables", "horizons", "people_behind"]

AGE_YEARS = (0, 18, 40, 50, 60, 70, 80, 90)
FOLLOW_UP_YEARS = (0, 1, 2, 3, 5, 7, 10)
PEAK_MV = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
SECONDS = (0.0, 2.5, 9.5, 10.5, 15.0)
ECGS_A_PATIENT = (("1", 1, 1), ("2", 2, 2), ("3 or 4", 3, 4), ("5 to 9", 5, 9), ("10 and more", 10, np.inf))
HORIZONS_YEARS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0)
RULES = {
    "non_finite": "gaps in a lead",
    "flat": "a flat lead",
    "saturated": "a lead at its stop (clipped)",
    "zero_padded": "zeros at the start or end",
    "einthoven": "limb leads that contradict each other",
    "too_short": "too short",
    "low_amplitude": "smaller than hearts make it (gain? unit?)",
    "high_amplitude": "a lead larger than hearts make it (gain? unit?)",
    "no_beats": "no heartbeats in it",
    "inverted": "a wrong sign",
    "limb_swap": "limb electrodes that may be swapped",
    "paced": "spikes of a pacemaker",
    "clipped": "samples beyond 32.8 mV",
}

NOT_IN_BANK = " (not in the bank)"

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Count:
    """One row of a table; `patients` counts people, and each ECG of nobody known as one."""

    label: str
    ecgs: int
    patients: int
    events: int = 0


@dataclass(frozen=True)
class Table:
    """Counts of one kind.

    Attributes:
        name: in documents. title: on the page. rows: of the table, in its order. total: of everything it is about.
        exclusive: each patient (or ECG) stands in one row only, so that the rows add up to the total.
        free: labels come from the site's data (devices, codes), and not from this program.
        events: whether events are counted.
        chart: worth a picture. people: made of patients, and not of ECGs.
    """

    name: str
    title: str
    rows: tuple[Count, ...]
    total: Count
    exclusive: bool = True
    free: bool = False
    events: bool = False
    chart: bool = False
    people: bool = False


@dataclass(frozen=True)
class Horizon:
    """Survival without the event up to a time."""

    years: float
    at_risk: int
    events: int  # up to it
    survival: float


def people_behind(facts: DataFacts, mask: Mask) -> int:
    """Patients whose ECGs these are; an ECG of nobody known counts as a patient of its own."""
    here = facts.patient[mask]
    return len(np.unique(here[here >= 0])) + int(np.sum(here < 0))


def all_tables(facts: DataFacts, bank_codes: Collection[str]) -> list[Table]:
    """Every table that the data allow, in the order of the report.

    Args:
        bank_codes: codes that the study's bank has a statement for.
    """
    tables = [_refused(facts), _rules(facts), *_recordings(facts)]
    for name, title, column in (
        ("devices", "Devices", facts.device),
        ("languages", "Language of the reports", facts.language),
    ):
        if column is not None:
            tables.append(_by_value(facts, name, title, column, free=name == "devices"))
    if facts.people is not None:
        tables += _people(facts, facts.people)
    if any(codes is not None for codes in facts.stated):
        tables += [_coverage(facts, bank_codes), _codes(facts, bank_codes)]
    return [table for table in tables if table.rows]


def horizons(people: People) -> list[Horizon]:
    """Kaplan-Meier survival without the event, at years up to the longest follow-up; deaths count as censored."""
    known = np.isfinite(people.follow_up_days)
    days, cause = people.follow_up_days[known], np.where(people.event, 1, np.where(people.died, 2, 0))[known]
    if not len(days):
        return []
    edges = np.unique([0.0, *days])  # a bin a time: exact
    curve = kaplan_meier(life_table(days, cause, np.zeros(len(days)), edges, np.empty(0)))
    found = []
    for years in HORIZONS_YEARS:
        horizon_days = years * DAYS_A_YEAR
        at_risk = int(np.sum(days >= horizon_days))
        if at_risk:
            survival = float(curve.survival[0, np.searchsorted(edges, horizon_days, side="right") - 1])
            found.append(
                Horizon(years, at_risk, int(np.sum((cause == 1) & (days <= horizon_days))), survival)
            )
    return found


def _count(facts: DataFacts, label: str, mask: Mask) -> Count:
    return Count(label, int(mask.sum()), people_behind(facts, mask))


def _all(facts: DataFacts) -> Count:
    return _count(facts, "all", np.ones(len(facts), dtype=np.bool_))


def _by_value(facts: DataFacts, name: str, title: str, column: NDArray[np.str_], *, free: bool) -> Table:
    rows = [_count(facts, printable(value), column == value) for value in np.unique(column)]
    # A patient may have ECGs of two devices: rows then add up in ECGs only.
    return Table(name, title, _largest_first(rows), _all(facts), free=free)


def _refused(facts: DataFacts) -> Table:
    rows = [_count(facts, "usable", facts.codes == "")]
    for code in sorted(set(facts.codes.tolist()) - {""}):
        rows.append(_count(facts, f"{code} {CODES.get(code, '')}", facts.codes == code))
    return Table("refused", "Read and refused", tuple(rows), _all(facts))


def _rules(facts: DataFacts) -> Table:
    usable = facts.codes == ""
    rows = [
        _count(facts, RULES.get(rule, rule.replace("_", " ")), usable & (numbers > 0))
        for rule, numbers in facts.quality.items()
    ]
    total = _count(facts, "usable ECGs", usable)
    return Table(
        "quality", "Usable ECGs with something to look at", _largest_first(rows), total, exclusive=False
    )


def _recordings(facts: DataFacts) -> list[Table]:
    tables = []
    if "rate_hz" in facts.facts:
        rates = np.array([f"{rate} Hz" if rate else "not read" for rate in facts.facts["rate_hz"]])
        tables.append(_by_value(facts, "rates", "Sampling rate", rates, free=False))
    for name, title, fact, edges, unit in (
        ("durations", "Duration", "seconds", SECONDS, "s"),
        ("amplitudes", "Largest deflection of any lead", "peak_mv", PEAK_MV, "mV"),
    ):
        if fact in facts.facts:
            values = np.array([float(cell) if cell else np.nan for cell in facts.facts[fact]])
            tables.append(_banded(facts, name, title, values, edges, unit))
    if "missing" in facts.facts:
        missing = np.array([float(cell) if cell else 0.0 for cell in facts.facts["missing"]])
        extra = np.array([bool(cell) for cell in facts.facts["extra_leads"]])
        read = np.array([bool(cell) for cell in facts.facts["rate_hz"]])
        rows = [
            _count(facts, "complete", read & (missing == 0)),
            _count(facts, "samples missing, up to 1 %", (missing > 0) & (missing <= 0.01)),
            _count(facts, "samples missing, more than 1 %", missing > 0.01),
        ]
        tables.append(
            Table("missing", "Missing samples", tuple(rows), _count(facts, "ECGs that were read", read))
        )
        leads = (_count(facts, "12 leads", read & ~extra), _count(facts, "more leads, left out", extra))
        tables.append(Table("leads", "Leads", leads, _count(facts, "ECGs that were read", read)))
    return tables


def _banded(
    facts: DataFacts, name: str, title: str, values: NDArray[np.float64], edges: Sequence[float], unit: str
) -> Table:
    rows = [_count(facts, label, mask) for label, mask in _bands(values, edges, unit)]
    return Table(name, title, tuple(rows), _all(facts), chart=True)


def _bands(values: NDArray[np.float64], edges: Sequence[float], unit: str) -> list[tuple[str, Mask]]:
    """Labelled masks of half-open bands, the last open; one for what is missing, if anything is."""
    bands = []
    for low, high in zip(edges, [*edges[1:], np.inf], strict=True):
        label = f"{low:g} {unit} and more" if high == np.inf else f"{low:g} to below {high:g} {unit}"
        if not low and high != np.inf:
            label = f"below {high:g} {'year' if (high, unit) == (1, 'years') else unit}"
        bands.append((label, (values >= low) & (values < high)))
    missing = np.isnan(values)
    return [*bands, ("missing", missing)] if missing.any() else bands


def _people(facts: DataFacts, people: People) -> list[Table]:
    every = np.ones(len(people.number), dtype=np.bool_)
    owner = np.searchsorted(people.number, facts.patient[np.isin(facts.patient, people.number)])
    ecgs = np.bincount(owner, minlength=len(every))

    def count(label: str, mask: Mask) -> Count:
        return Count(label, int(ecgs[mask].sum()), int(mask.sum()), int(people.event[mask].sum()))

    def table(name: str, title: str, groups: Sequence[tuple[str, Mask]], chart: bool = False) -> Table:
        rows = tuple(count(label, mask) for label, mask in groups)
        return Table(name, title, rows, count("all", every), events=facts.outcomes, chart=chart, people=True)

    tables = []
    if facts.outcomes:
        parts = [(part, people.part == part) for part in (*PARTS, "align") if np.any(people.part == part)]
        tables.append(table("parts", "Parts", parts))
    sexes = [
        ("female", people.female == 1),
        ("male", people.female == 0),
        ("missing", np.isnan(people.female)),
    ]
    tables.append(
        table("sex", "Sex", [(label, mask) for label, mask in sexes if label != "missing" or mask.any()])
    )
    tables.append(table("age", "Age at the ECG", _bands(people.age_years, AGE_YEARS, "years"), chart=True))
    several = [(label, (ecgs >= low) & (ecgs <= high)) for label, low, high in ECGS_A_PATIENT]
    tables.append(table("ecgs", "ECGs of a patient", several))
    if facts.outcomes:
        years = _bands(people.follow_up_days / DAYS_A_YEAR, FOLLOW_UP_YEARS, "years")
        tables.append(table("follow-up", "Follow-up", years, chart=True))
        ends = [
            ("event", people.event),
            ("death before it", people.died),
            ("censored", np.isfinite(people.follow_up_days) & ~people.event & ~people.died),
            ("outcome not known (part align)", np.isnan(people.follow_up_days)),
        ]
        shown = [(label, mask) for label, mask in ends if mask.any()]
        ended = table("ends", "How follow-up ends", shown)
        tables.append(replace(ended, events=False))
    return tables


def _coverage(facts: DataFacts, bank_codes: Collection[str]) -> Table:
    known = set(bank_codes)
    stated = [set(codes or ()) for codes in facts.stated]
    groups = (
        ("a statement that the bank has", [bool(codes & known) for codes in stated]),
        ("statements, and none that the bank has", [bool(codes) and not codes & known for codes in stated]),
        ("no statement", [codes is not None and not codes for codes in facts.stated]),
    )
    rows = tuple(_count(facts, label, np.array(mask, dtype=np.bool_)) for label, mask in groups)
    return Table("coverage", "Statements and the code bank", rows, _of_the_cohort(facts))


def _codes(facts: DataFacts, bank_codes: Collection[str]) -> Table:
    rows_of: dict[str, list[int]] = {}
    for row, codes in enumerate(facts.stated):
        for code in codes or {}:
            rows_of.setdefault(code, []).append(row)
    rows = []
    for code, members in rows_of.items():
        mask = np.zeros(len(facts), dtype=np.bool_)
        mask[members] = True
        rows.append(_count(facts, printable(code) + ("" if code in bank_codes else NOT_IN_BANK), mask))
    total = _of_the_cohort(facts)
    title = "What the ECGs are said to show"
    return Table("codes", title, _largest_first(rows), total, exclusive=False, free=True)


def _of_the_cohort(facts: DataFacts) -> Count:
    known = np.array([codes is not None for codes in facts.stated], dtype=np.bool_)
    return _count(facts, "ECGs of the cohort table", known)


def _largest_first(rows: Sequence[Count]) -> tuple[Count, ...]:
    return tuple(sorted(rows, key=lambda row: (-row.ecgs, row.label)))
