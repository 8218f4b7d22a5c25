"""Reports of a study: the table that says whether federation was worth it, figures, an HTML page, a model card.

In:  plain data as in summary.json, rounds.json and assessment.json. Out: terminal tables, Markdown, PNG, SVG, HTML.
Called by the command lines of the simulation and by `fedecg report`.

    findings, wording, grid               what a study says: rows, sentences, numbers as text
    assessment, subgroups                 the final evaluation as tables and lines; disclosure control
    look, figures, assessment_figures, decision, subgroup_figure   figures of a study
    assessment_words, figure_data         words beside the figures, their data as CSV
    table, html                           terminal and Markdown; report.html
    model_card, checklists, tripod        model_card.md; tripod.md
    ecg_paper, attention_figures, explain ECGs on paper, attention on them, one ECG explained
    run, commands                         a run folder as plain data; `fedecg report`

Names are loaded when they are first asked for, so that the command line says --help without matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedecg.report.assessment import without_curves
    from fedecg.report.assessment_figures import calibration_figure, survival_figure
    from fedecg.report.figures import comparison_figure, rounds_figure, save_figures, sites_figure
    from fedecg.report.html import report_html, write_report
    from fedecg.report.model_card import write_model_card
    from fedecg.report.table import comparison_markdown, comparison_table, partition_table, print_summary

__all__ = [
    "calibration_figure",
    "comparison_figure",
    "comparison_markdown",
    "comparison_table",
    "partition_table",
    "print_summary",
    "report_html",
    "rounds_figure",
    "save_figures",
    "sites_figure",
    "survival_figure",
    "without_curves",
    "write_model_card",
    "write_report",
]

_HOMES = {
    "calibration_figure": "assessment_figures",
    "comparison_figure": "figures",
    "comparison_markdown": "table",
    "comparison_table": "table",
    "partition_table": "table",
    "print_summary": "table",
    "report_html": "html",
    "rounds_figure": "figures",
    "save_figures": "figures",
    "sites_figure": "figures",
    "survival_figure": "assessment_figures",
    "without_curves": "assessment",
    "write_model_card": "model_card",
    "write_report": "html",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
