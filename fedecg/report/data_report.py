"""The data report: what a site looks at before it joins, and what of it may be shown outside.

In:  `DataFacts`, a code bank's name and codes, thresholds, a folder. Out: inside.html, inside.json, outside.html,
outside.json; self-contained, the same bytes for the same input. Called by `fedecg data report`.

    {"schema": "fedecg-data-report", "version": 1, "audience": "inside" | "outside", "differences": [...],
     "tables": [{"name", "title", "rows": [{"label", "ecgs", "patients", "events"}], "total": {...}}],
     "survival": [{"years", "at-risk", "events", "survival"}], ...}; a number that is withheld is text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedecg.files import write_whole
from fedecg.report.data_disclosure import STEP, Shown, ShownTable, disclosed, disclosed_horizons
from fedecg.report.data_facts import DataFacts, of_known_people
from fedecg.report.data_figures import bars_figure, survival_steps_figure
from fedecg.report.data_tables import Count, Horizon, Table, all_tables, horizons
from fedecg.report.data_worst import WorstEcg, refused_grid, worst_ecgs
from fedecg.report.disclosure import Thresholds
from fedecg.report.figure_data import csv_link, csv_text
from fedecg.report.figures import figure_svg
from fedecg.report.grid import Grid
from fedecg.report.html import ENVIRONMENT
from fedecg.report.wording import DASH, count

__all__ = ["write_data_report"]

SECTIONS = (
    ("ECGs", ("refused", "quality")),
    ("Recordings", ("rates", "durations", "amplitudes", "leads", "missing", "devices")),
    ("Patients", ("parts", "sex", "age", "ecgs")),
    ("Outcomes", ("ends", "follow-up")),
    ("Statements and reports", ("coverage", "codes", "languages")),
)
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
OF_PEOPLE = ("Patients", "Outcomes")
WHOSE_ECGS = (
    'The patients of the cohort table. The columns "ECGs" count all ECGs that are known to be theirs, not the index '
    "ECGs alone."
)
MOST_CODES = 40  # rows of the longest table on the page; documents have all

Row = Count | Shown


def write_data_report(
    facts: DataFacts, bank: str, bank_codes: Collection[str], limits: Thresholds, out: Path
) -> list[Path]:
    """Write both versions.

    Args:
        facts: of the site. bank, bank_codes: name and codes of the code bank. limits: of the version for outside.
        out: folder, made if absent.

    Returns:
        The files, the site's own first.

    Raises:
        RunError: FECG-601, a file cannot be written.
    """
    tables, survival = all_tables(facts, bank_codes), _survival(facts)
    inside = _inside(facts, tables, survival, bank, limits)
    outside = _outside(facts, all_tables(of_known_people(facts), bank_codes), survival, bank, limits)
    written = []
    for name, (page, document) in (("inside", inside), ("outside", outside)):
        for ending, text in (
            ("html", ENVIRONMENT.get_template("data_report.html.j2").render(page)),
            ("json", json.dumps(document, indent=2, ensure_ascii=False) + "\n"),
        ):
            write_whole(out / f"{name}.{ending}", text)
            written.append(out / f"{name}.{ending}")
    return written


def _survival(facts: DataFacts) -> list[Horizon]:
    return horizons(facts.people) if facts.people is not None and facts.outcomes else []


def _inside(
    facts: DataFacts, tables: Sequence[Table], survival: Sequence[Horizon], bank: str, limits: Thresholds
) -> tuple[dict[str, Any], dict[str, Any]]:
    shown = {table.name: (table, table.rows, table.total) for table in tables}
    points = [(each.years, each.at_risk, each.events, each.survival) for each in survival]
    worst, quantiles = worst_ecgs(facts), _quantiles(facts)
    page = _page("inside", facts, shown, points, bank, _differences("inside", facts, limits))
    page |= {
        "worst": [_drawn(ecg) for ecg in worst],
        "refused": refused_grid(facts),
        "quantiles": _grid(quantiles),
    }
    document = _document("inside", shown, points, page["differences"])
    document |= {
        "quantiles": quantiles,
        "worst": [{"source": ecg.source, "index": ecg.index, "faults": ecg.faults} for ecg in worst],
        "files-that-are-no-ecgs": facts.others,
        "settings": facts.settings,
    }
    return page, document


def _outside(
    facts: DataFacts, tables: Sequence[Table], survival: Sequence[Horizon], bank: str, limits: Thresholds
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Made of what disclosure control lets through, and of nothing else of `facts` than what kind of data they are."""
    allowed: dict[str, ShownTable] = {table.name: disclosed(table, limits) for table in tables}
    shown = {name: (each.table, each.rows, each.total) for name, each in allowed.items()}
    points = disclosed_horizons(survival, limits)
    page = _page("outside", facts, shown, points, bank, _differences("outside", facts, limits))
    document = _document("outside", shown, points, page["differences"])
    document |= {"thresholds": limits._asdict(), "rounded-to": STEP}
    return page | {"worst": [], "refused": None, "quantiles": None}, document


def _page(
    audience: str,
    facts: DataFacts,
    shown: Mapping[str, tuple[Table, Sequence[Row], Row]],
    points: Sequence[tuple[Any, ...]],
    bank: str,
    differences: Sequence[str],
) -> dict[str, Any]:
    sections = []
    for title, names in SECTIONS:
        blocks = [_block(*shown[name]) for name in names if name in shown]
        if title == "Outcomes" and points:
            blocks.append(_survival_block(points))
        if blocks:
            people = title in OF_PEOPLE and facts.outcomes
            sections.append({"title": title, "blocks": blocks, "note": WHOSE_ECGS if people else ""})
    return {
        "audience": audience,
        "lead": _lead(shown, facts),
        "bank": bank if "coverage" in shown else "",
        "sections": sections,
        "differences": list(differences),
        "unknown_people": facts.people is None,
        "kind": facts.kind,
    }


def _lead(shown: Mapping[str, tuple[Table, Sequence[Row], Row]], facts: DataFacts) -> str:
    total = shown["refused"][2] if "refused" in shown else None
    words = f"{_cell(total.ecgs if total else 0)} ECGs"
    if "sex" in shown:
        people = shown["sex"][2]
        # Of a hospital's ECGs most are not the cohort's: the two numbers are not of the same people.
        words += f"; {_cell(people.patients)} patients{' in the cohort' if facts.outcomes else ''}"
        words += f", {_cell(people.events)} with an event" if facts.outcomes else ""
    return f"{words}."


def _block(table: Table, rows: Sequence[Row], total: Row) -> dict[str, Any]:
    none = [row.label for row in rows if row.ecgs == 0] if not table.exclusive else []
    rows = [row for row in rows if row.label not in none]
    grid = _counts_grid(table, rows, total)
    left_out = len(rows) - MOST_CODES
    notes = [f"{left_out} more in the document."] if left_out > 0 else []
    notes += [f"In no ECG: {'; '.join(none)}."] if none else []
    picture = None
    unit = "patients" if table.people else "ECGs"
    bars = [(row.label, row.patients if table.people else row.ecgs) for row in rows]
    if table.chart and any(isinstance(number, int) and number for _, number in bars):
        picture = _picture(
            bars_figure(unit, bars),
            f"{table.title}: {unit} by band; the numbers are in the table below.",
            csv_text(("band", unit), [(label, number) for label, number in bars]),
            table.name,
        )
    return {
        "title": table.title,
        "grid": grid,
        "picture": picture,
        "note": " ".join(notes),
    }


def _counts_grid(table: Table, rows: Sequence[Row], total: Row) -> Grid:
    def cells(row: Row) -> tuple[str, ...]:
        numbers = (row.ecgs, row.patients, row.events) if table.events else (row.ecgs, row.patients)
        return (row.label, *map(_cell, numbers))

    header = ("", "ECGs", "patients", "with an event") if table.events else ("", "ECGs", "patients")
    return Grid(
        header=header,
        rows=tuple(cells(row) for row in rows[:MOST_CODES]),
        numeric=(False, *(True for _ in header[1:])),
        total=cells(total),
    )


def _survival_block(points: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    rows = tuple(
        (f"{years:g}", _cell(risk), _cell(events), _share(value)) for years, risk, events, value in points
    )
    curve = [(years, value) for years, _, _, value in points]
    return {
        "title": "Without the event (Kaplan-Meier; deaths before it count as censored)",
        "grid": Grid(("years", "followed until then", "events", "share without"), rows, (True,) * 4),
        "picture": _survival_picture(curve),
        "note": "",
    }


def _survival_picture(curve: Sequence[tuple[float, Any]]) -> dict[str, str] | None:
    if not any(isinstance(value, float) for _, value in curve):
        return None
    return _picture(
        survival_steps_figure(curve),
        "Share of patients without the event by years from the ECG; the numbers are in the table below.",
        csv_text(("years", "share"), [(years, value) for years, value in curve]),
        "survival",
    )


def _picture(figure: Any, alternative: str, data: str, name: str) -> dict[str, str]:
    source = "data:image/svg+xml;base64," + base64.b64encode(figure_svg(figure)).decode()
    return {"source": source, "alternative": alternative, "data": csv_link(data), "file": f"{name}.csv"}


def _drawn(ecg: WorstEcg) -> dict[str, str]:
    source = "data:image/svg+xml;base64," + base64.b64encode(ecg.svg).decode()
    return {"source": source, "name": ecg.name, "faults": "; ".join(ecg.faults)}


def _document(
    audience: str,
    shown: Mapping[str, tuple[Table, Sequence[Row], Row]],
    points: Sequence[tuple[Any, ...]],
    differences: Sequence[str],
) -> dict[str, Any]:
    return {
        "schema": "fedecg-data-report",
        "version": 1,
        "audience": audience,
        "differences": list(differences),
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "rows": [_as_json(row, table.events) for row in rows],
                "total": _as_json(total, table.events),
            }
            for table, rows, total in shown.values()
        ],
        "survival": [
            dict(zip(("years", "at-risk", "events", "survival"), point, strict=True)) for point in points
        ],
    }


def _as_json(row: Row, events: bool) -> dict[str, Any]:
    entry = {"label": row.label, "ecgs": row.ecgs, "patients": row.patients}
    return entry | {"events": row.events} if events else entry


def _quantiles(facts: DataFacts) -> dict[str, list[float]]:
    """Smallest, 5 %, middle, 95 % and largest of what is a number; for the inside only."""
    columns: dict[str, Any] = {}
    for name, fact in (("seconds", "seconds"), ("largest deflection, mV", "peak_mv")):
        columns[name] = np.array([float(cell) for cell in facts.facts.get(fact, ()) if cell])
    if facts.people is not None:
        columns["age, years"] = facts.people.age_years
        columns["follow-up, days"] = facts.people.follow_up_days
    known = {name: values[np.isfinite(values)] for name, values in columns.items()}
    return {
        name: [round(float(value), 3) for value in np.quantile(values, QUANTILES)]
        for name, values in known.items()
        if len(values)
    }


def _grid(quantiles: Mapping[str, Sequence[float]]) -> Grid | None:
    rows = tuple((name, *(f"{value:g}" for value in values)) for name, values in quantiles.items())
    header = ("", "smallest", "5 %", "middle", "95 %", "largest")
    return Grid(header, rows, (False, *(True,) * 5)) if rows else None


def _cell(number: int | str) -> str:
    return number if isinstance(number, str) else count(number)


def _share(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}" if np.isfinite(value) else DASH


def _differences(audience: str, facts: DataFacts, limits: Thresholds) -> list[str]:
    """What one version has and the other has not; the same lines in both, in another order."""
    inside = [
        "inside.html and inside.json: exact numbers, smallest and largest values, names of refused files and of the "
        "worst ECGs, which are drawn. They stay at the site.",
    ]
    outside = [
        f"outside.html and outside.json: {limits.rule()}, nor, within a table, one from which it could be worked "
        f"out; numbers are rounded to {STEP} and survival to 0.01. No ECG, no name of a file or patient, no date, no "
        "single value; devices and codes of few patients are not named.",
    ]
    if facts.people is None:
        outside.append(
            "Nobody said whose the ECGs are: each counts as a patient of its own there. Give --cohort or --table "
            "with a column patient."
        )
    elif np.any(facts.patient < 0):
        outside.append(
            "ECGs of which neither the cohort nor the table says whose they are do not count there; inside each counts "
            "as a patient of its own."
        )
    return [*inside, *outside] if audience == "inside" else [*outside, *inside]
