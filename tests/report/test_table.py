"""Tables on a terminal and in Markdown."""

import io
from typing import Any

from rich.console import Console
from rich.table import Table

from fedecg.report.table import (
    comparison_markdown,
    comparison_table,
    partition_grid,
    partition_table,
    print_summary,
    rounds_grid,
)

Summary = dict[str, Any]


def _printed(table: Table, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def _lines(summary: Summary, width: int = 120) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    print_summary(summary, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_the_comparison_has_seven_rows_primary_measure_first(summary: Summary) -> None:
    text = _printed(comparison_table(summary))
    order = [
        text.index(label) for label in ("true hazard", "pooled", "federated", "local, best", "site only")
    ]
    assert order == sorted(order)
    assert text.index("stratified C (95 % CI)") < text.index("global C (95 % CI)")
    row = next(line for line in text.splitlines() if "federated" in line and "0.712" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "federated",
        "0.712 (0.690–0.734)",
        "0.722 (0.700–0.744)",
        "95 %",
    ]


def test_the_comparison_fits_a_terminal_of_80_columns(summary: Summary) -> None:
    assert all("…" not in line and len(line) <= 80 for line in _lines(summary, width=80))


def test_the_printed_summary_ends_with_the_result(summary: Summary) -> None:
    lines = _lines(summary, width=300)
    assert lines[0].strip() == "demo: was federation worth it? (outcomes SIMULATED)"
    assert lines[-1].startswith("Federated training kept 95 %")


def test_observed_outcomes_carry_no_label(summary: Summary) -> None:
    summary["outcomes"] = "observed"
    text = "\n".join(_lines(summary)) + comparison_markdown(summary)
    assert "simulated" not in text.lower()


def test_null_columns_are_dashes(summary: Summary) -> None:
    summary["columns"]["true-hazard"] = None
    summary["columns"]["local-mean"].update({"ci-low": None, "stratified-ci-high": None})
    markdown = comparison_markdown(summary)
    assert "| true hazard | – | – | – |" in markdown
    assert "| local, mean | 0.612 | 0.622 | 50 % |" in markdown


def test_markdown_is_a_table_with_the_federated_row_stressed(summary: Summary) -> None:
    lines = comparison_markdown(summary).splitlines()
    assert lines[0] == "**demo: was federation worth it? (outcomes SIMULATED)**"
    assert lines[2] == "| model | stratified C (95 % CI) | global C (95 % CI) | gain kept |"
    assert lines[3] == "|---|---:|---:|---:|"
    assert "| **federated** | **0.712 (0.690–0.734)** | **0.722 (0.700–0.744)** | **95 %** |" in lines
    assert any(line.startswith("- Test part: 4,100 patients") for line in lines)


def test_markdown_escapes_what_would_break_the_table(summary: Summary) -> None:
    summary["study"] = "a|b<script>\nc"
    assert comparison_markdown(summary).splitlines()[0].startswith("**a\\|b&lt;script>?c: was")


def test_sites_are_added_up_and_label_mixes_shown(summary: Summary) -> None:
    grid = partition_grid(summary["sites"])
    assert grid.header == ("site", "patients", "events", "train", "validation", "label mix (%)")
    assert grid.rows[0][:5] == ("harbour-general", "2,140", "128", "1,926", "214")
    assert grid.rows[0][5].startswith("NORM ")
    assert grid.total == ("total", "5,715", "318", "5,145", "570", "")
    text = _printed(partition_table(summary["sites"]))
    assert "clinic-hill" in text
    assert "5,715" in text


def test_sites_may_lack_a_column_or_have_words_in_it() -> None:
    grid = partition_grid([{"name": "a", "patients": 3}, {"name": "b", "patients": None, "device": "CS-12"}])
    assert grid.header == ("site", "patients", "device")
    assert grid.rows == (("a", "3", "–"), ("b", "–", "CS-12"))
    assert grid.total == ("total", "3", "")
    assert partition_grid([]).rows == ()


def test_names_are_neither_markup_nor_escape_sequences() -> None:
    text = _printed(partition_table([{"name": "[red]x[/red]\x1b[2J", "patients": 1, "events": 0}]))
    assert "[red]x[/red]?[2J" in text
    assert "\x1b" not in text


def test_rounds_name_the_missing_and_the_rejected(rounds: list[dict[str, Any]]) -> None:
    rows = rounds_grid(rounds).rows
    assert rows[0] == ("align", "1", "7 of 7", "–", "–", "–", "0.6115", "–", "5.1 MB", "11.5 s")
    assert rows[7][:6] == ("survival", "4", "6 of 7", "–", "rural-3", "–")
    assert rows[10][:6] == ("survival", "7", "7 of 7", "–", "–", "clinic-hill")


def test_a_site_that_was_late_is_told_from_one_that_was_missing() -> None:
    entry = {"stage": "survival", "round": 1, "expected": ["a", "b", "c"], "answered": ["a"]}
    grid = rounds_grid([{**entry, "late": ["b"], "missing": ["c"]}])
    assert grid.header[3:5] == ("late", "missing")
    assert grid.rows[0][2:5] == ("1 of 3", "b", "c")


def test_a_round_without_losses_or_score_is_dashes() -> None:
    entry = {"stage": "survival", "round": 1, "expected": ["a"], "answered": [], "missing": ["a"]}
    row = rounds_grid([{**entry, "rejected": [], "loss": {"a": float("nan")}, "validation": None}]).rows[0]
    assert row == ("survival", "1", "0 of 1", "–", "a", "–", "–", "–", "–", "–")


def test_a_site_of_the_partition_or_of_the_server_makes_the_same_columns() -> None:
    parts = {part: {"patients": n, "events": 1} for part, n in (("train", 8), ("validation", 2))}
    of_server = {"name": "a", "patients": 10, "events": 2, "parts": parts}
    of_partition = {"site": "a", "patients": 10, "events": 2, "train": 8, "validation": 2}
    mix = {"label-mix": {"NORM": 1.0}}
    assert partition_grid([of_server]) == partition_grid([of_partition])
    assert partition_grid([of_partition | mix | of_server]).header[-3:] == (
        "train",
        "validation",
        "label mix (%)",
    )
    assert partition_grid([of_partition | mix | of_server]).rows == (("a", "10", "2", "8", "2", "NORM 100"),)


def test_rejections_carry_their_code_and_scores_the_round_they_speak_of() -> None:
    entry = {
        "stage": "survival",
        "round": 3,
        "expected": ["a", "b"],
        "answered": ["a"],
        "missing": [],
        "rejected": {"b": "FECG-505"},
        "weights-evaluated": 2,
        "validation": {"stratified": 0.6412},
        "repeated": True,
    }
    row = rounds_grid([entry]).rows[0]
    assert row[1:6] == ("3, repeated", "1 of 2", "–", "–", "b (FECG-505)")
    assert row[7] == "0.641 (after 2)"
