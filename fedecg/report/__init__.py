"""Reports of a study: the table that says whether federation was worth it, figures, and an HTML page.

In:  plain data as in summary.json, rounds.json and assessment.json. Out: terminal tables, Markdown, PNG, SVG, HTML.
Called by the command lines of the simulation and, later, of `fedecg report`.
"""

from fedecg.report.assessment import without_curves
from fedecg.report.assessment_figures import calibration_figure, survival_figure
from fedecg.report.figures import comparison_figure, rounds_figure, save_figures, sites_figure
from fedecg.report.html import report_html, write_report
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
    "write_report",
]
