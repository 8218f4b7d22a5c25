"""report.json: what the page of a report is made of, as plain data.

In:  the parts of a page (`html.report_page`). Out: one JSON document. Called by `fedecg report`.

    schema, version    "fedecg-report", 1; the version rises when a name below goes away or changes its meaning
    study, simulated   name of the study; whether outcomes are simulated (or not stated to be observed)
    question, data, result        the page's first sentences
    comparison, sites, rounds, settings        tables: {header, rows, total}, cells as printed
    notes, data-notes, rounds-line, settings-notes        sentences beside them
    evaluation         null, or {lines, left-out, horizons, horizon-notes, subgroups, sites, site-notes}
    faithfulness       null, or {title, sentences, table, notes}: whether attention is true
    privacy            {lines, table}: spend by site and phase
    fingerprints       name -> value
    figures            name -> {caption, alternative, columns, rows}: data of every figure, cells as text ("" = none)

Numbers of small groups are withheld here as on the page.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from fedecg.report.grid import Grid

__all__ = ["SCHEMA", "VERSION", "report_document", "report_json"]

SCHEMA, VERSION = "fedecg-report", 1

Page = Mapping[str, Any]


def report_json(page: Page) -> str:
    """The document as text; the same for the same page."""
    return json.dumps(report_document(page), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def report_document(page: Page) -> dict[str, Any]:
    """The document as plain data.

    Args:
        page: of `html.report_page`.
    """
    evaluation, faithfulness, settings = page["evaluation"], page["faithfulness"], page["settings"]
    return {
        "schema": SCHEMA,
        "version": VERSION,
        **{name: page[name] for name in ("study", "simulated", "question", "data", "result")},
        "comparison": _table(page["comparison"]),
        "notes": list(page["notes"]),
        "evaluation": None if evaluation is None else _evaluation(evaluation),
        "faithfulness": None if faithfulness is None else _faithfulness(faithfulness["section"]),
        "sites": _table(page["sites"]),
        "data-notes": page["data_notes"],
        "rounds": _table(page["rounds"]),
        "rounds-line": page["rounds_line"],
        "privacy": {"lines": list(page["privacy"].lines), "table": _table(page["privacy"].grid)},
        "settings": None if settings is None else _table(settings),
        "settings-notes": list(page["settings_notes"]),
        "fingerprints": dict(page["fingerprints"]),
        "figures": {picture["name"]: _figure(picture) for picture in _pictures(page)},
    }


def _evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    subgroups = evaluation["subgroups"]
    return {
        "lines": list(evaluation["lines"]),
        "left-out": list(evaluation["left_out"]),
        "horizons": _table(evaluation["horizons"]),
        "horizon-notes": list(evaluation["horizon_notes"]),
        "subgroups": subgroups and {"table": _table(subgroups["table"]), "notes": list(subgroups["notes"])},
        "sites": _table(evaluation["sites"]),
        "site-notes": list(evaluation["site_notes"]),
    }


def _faithfulness(section: Any) -> dict[str, Any]:
    return {
        "title": section.title,
        "sentences": list(section.sentences),
        "table": _table(section.grid),
        "notes": list(section.notes),
    }


def _pictures(page: Page) -> list[Mapping[str, str]]:
    evaluation, faithfulness = page["evaluation"] or {}, page["faithfulness"] or {}
    subgroups = evaluation.get("subgroups")
    return [
        *page["figures"].values(),
        *evaluation.get("pictures", ()),
        *([subgroups["figure"]] if subgroups else []),
        *faithfulness.get("figures", ()),
    ]


def _figure(picture: Mapping[str, str]) -> dict[str, Any]:
    header, *rows = csv.reader(io.StringIO(picture["csv"])) if picture["csv"] else [[]]
    return {
        "caption": picture["caption"],
        "alternative": picture["alternative"],
        "columns": header,
        "rows": rows,
    }


def _table(grid: Grid) -> dict[str, Any]:
    return {
        "header": list(grid.header),
        "rows": [list(row) for row in grid.rows],
        "total": list(grid.total),
    }
