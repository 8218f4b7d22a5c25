"""Reports of a study: the table that says whether federation was worth it, figures, and an HTML page.

In:  plain data as in summary.json and rounds.json. Out: terminal tables, Markdown, PNG, SVG, HTML.
Called by the command lines of the simulation and, later, of `fedecg report`.
"""

from fedecg.report.figures import comparison_figure, rounds_figure, save_figures, sites_figure
from fedecg.report.html import report_html, write_report
from fedecg.report.table import comparison_markdown, comparison_table, partition_table, print_summary

__all__ = [
    "comparison_figure",
    "comparison_markdown",
    "comparison_table",
    "partition_table",
    "print_summary",
    "report_html",
    "rounds_figure",
    "save_figures",
    "sites_figure",
    "write_report",
]
