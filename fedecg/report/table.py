"""Tables of a study: the comparison of ways to train, the sites, the rounds; for terminal, Markdown and HTML.

In:  the summary and the rounds of a study, as in summary.json and rounds.json.
Out: `Grid`s of text, `rich` tables, Markdown. Called by the simulation's command line and by `html`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedecg.report.assessment import cell, compact_horizon_grid, has_horizons, short_line
from fedecg.report.disclosure import NOTHING_WITHHELD, WITHHELD, is_withheld
from fedecg.report.findings import Summary, comparison_rows, is_simulated, notes, result_sentence
from fedecg.report.grid import Grid
from fedecg.report.privacy_section import site_level_lines, spend_grid
from fedecg.report.sites import SiteDisclosure, evaluated, part_sizes
from fedecg.report.wording import (
    DASH,
    byte_size,
    c_index,
    count,
    duration,
    is_known,
    label_mix,
    percent,
    printable,
)

__all__ = [
    "comparison_grid",
    "comparison_markdown",
    "comparison_table",
    "partition_grid",
    "partition_table",
    "print_summary",
    "rounds_grid",
]


def comparison_grid(summary: Summary) -> Grid:
    """The seven columns of the comparison, primary measure first; null columns are dashes."""
    rows = comparison_rows(summary)
    return Grid(
        header=("model", "stratified C (95 % CI)", "global C (95 % CI)", "gain kept"),
        rows=tuple(
            (
                row.label,
                c_index(row.stratified.value, row.stratified.low, row.stratified.high),
                c_index(row.overall.value, row.overall.low, row.overall.high),
                percent(row.share_kept),
            )
            for row in rows
        ),
        numeric=(False, True, True, True),
        emphasis=next(index for index, row in enumerate(rows) if row.key == "federated"),
    )


def partition_grid(sites: Sequence[Mapping[str, Any]], disclosure: SiteDisclosure | None = None) -> Grid:
    """One row a site, from `name` (or `site`), plain values in order of appearance, `label-mix` and `parts`.

    Numbers are added up in the last line. `label-mix` is counts or shares by label; `parts` holds the patients
    of each part, for sites that do not state them as plain values.

    Args:
        disclosure: of which sites what is withheld; None = nothing, for whoever has the data.
    """
    rows = [_site_row(site) for site in sites]
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "name"))
    kinds = {key: _kind(key, [row.get(key) for row in rows]) for key in keys}
    numeric = [key for key in keys if kinds[key] == "number"]
    allowed = disclosure or SiteDisclosure(NOTHING_WITHHELD)
    return Grid(
        header=("site", *(_site_title(key, kinds[key]) for key in keys)),
        rows=tuple(
            (
                printable(row["name"]),
                *(_allowed_cell(row["name"], key, row.get(key), kinds[key], allowed) for key in keys),
            )
            for row in rows
        ),
        numeric=(False, *(key in numeric for key in keys)),
        total=("total", *_totals(rows, keys, numeric, allowed)),
    )


def rounds_grid(rounds: Iterable[Mapping[str, Any]]) -> Grid:
    """One row a round: who answered, who did not, what came of it."""
    return Grid(
        header=(
            "stage",
            "round",
            "answered",
            "late",
            "missing",
            "rejected",
            "mean loss",
            "stratified C",
            "sent",
            "time",
        ),
        rows=tuple(_round_cells(entry) for entry in rounds),
        numeric=(False, True, True, False, False, False, True, True, True, True),
    )


def comparison_table(summary: Summary) -> Table:
    """The table that says whether federation was worth it; "SIMULATED" in its title where that is so."""
    return _rich(comparison_grid(summary), _title(summary))


def partition_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Sites with patients, events, parts and label mix, and a total."""
    return _rich(partition_grid(rows), "Sites")


def print_summary(summary: Summary, console: Console) -> None:
    """Print the comparison, the notes below it, the evaluation where there is one, and the result in a sentence."""
    console.print(comparison_table(summary))
    for line in notes(summary):
        console.print(Text(line, style="dim"))
    if (spent := spend_grid(summary)) is not None:
        console.print(_rich(spent, "Epsilon that the sites have spent (unit: the patient)"))
    for line in site_level_lines(summary):
        console.print(Text(line))
    if (assessment := evaluated(summary.get("assessment"))) is not None:
        if has_horizons(assessment):
            console.print(_rich(compact_horizon_grid(assessment), _evaluation_title(summary)))
        console.print(Text(short_line(assessment), style="dim"))
    console.print(Text(result_sentence(summary), style="bold"))


def comparison_markdown(summary: Summary) -> str:
    """The same table, notes and sentence as GitHub Markdown, for README and docs; ends with a newline."""
    grid = comparison_grid(summary)
    lines = [
        f"**{_markdown(_title(summary))}**",
        "",
        _markdown_row(grid.header),
        "|" + "|".join("---:" if right else "---" for right in grid.numeric) + "|",
    ]
    for index, row in enumerate(grid.rows):
        stress = "**" if index == grid.emphasis else ""
        lines.append(_markdown_row([f"{stress}{one}{stress}" for one in row]))
    lines += [
        "",
        _markdown(result_sentence(summary)),
        "",
        *(f"- {_markdown(line)}" for line in notes(summary)),
    ]
    return "\n".join(lines) + "\n"


def _title(summary: Summary) -> str:
    return f"{printable(summary.get('study', 'study'))}: was federation worth it?{_suffix(summary)}"


def _evaluation_title(summary: Summary) -> str:
    return f"Federated model by horizon{_suffix(summary)}"


def _suffix(summary: Summary) -> str:
    return " (outcomes SIMULATED)" if is_simulated(summary) else ""


def _rich(grid: Grid, title: str) -> Table:
    # Text, not str: `rich` would read square brackets in a name as markup.
    table = Table(title=Text(title), title_justify="left", show_footer=bool(grid.total))
    totals = grid.total or ("",) * len(grid.header)
    for header, right, total in zip(grid.header, grid.numeric, totals, strict=True):
        table.add_column(Text(header), justify="right" if right else "left", footer=Text(total))
    for index, row in enumerate(grid.rows):
        table.add_row(*(Text(one) for one in row), style="bold" if index == grid.emphasis else None)
    return table


def _site_row(site: Mapping[str, Any]) -> dict[str, Any]:
    parts = part_sizes(site)
    plain = {key: value for key, value in site.items() if not isinstance(value, Mapping) and key != "site"}
    mix = {"label-mix": site["label-mix"]} if site.get("label-mix") else {}
    name = {"name": site.get("name", site.get("site", DASH))}
    return name | plain | {part: number for part, number in parts.items() if part not in plain} | mix


def _kind(key: str, values: Sequence[object]) -> str:
    if key == "label-mix":
        return "mix"
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    return "number" if known and numbers else "text"


def _site_title(key: str, kind: str) -> str:
    return printable(key).replace("-", " ") + (" (%)" if kind == "mix" else "")


def _site_cell(value: Any, kind: str) -> str:
    if value is None:
        return DASH
    if kind == "mix":
        return label_mix(value)
    return count(value) if kind == "number" else printable(value)


def _allowed_cell(site: str, key: str, value: Any, kind: str, allowed: SiteDisclosure) -> str:
    """A cell after disclosure control: numbers are patients but for `events`; a mix of labels tells of few, too."""
    if kind == "number" and is_known(value):
        number = allowed.number_of_events if key == "events" else allowed.number_of_patients
        return cell(number(site, round(value)))
    if kind == "mix" and site in allowed.patients:
        return WITHHELD
    return _site_cell(value, kind)


def _totals(
    sites: Sequence[Mapping[str, Any]], keys: Sequence[str], numeric: Sequence[str], allowed: SiteDisclosure
) -> list[str]:
    """Of each column; a part that is small at all sites together takes the other parts with it."""
    sums = {key: sum(site[key] for site in sites if is_known(site.get(key))) for key in numeric}
    shown = {key: allowed.total(number, "events" if key == "events" else "") for key, number in sums.items()}
    if any(is_withheld(shown[key]) for key in numeric if key not in ("patients", "events")):
        shown |= {
            key: WITHHELD
            for key in numeric
            if key not in ("patients", "events") and not is_withheld(shown[key])
        }
    return [cell(shown[key]) if key in numeric else "" for key in keys]


def _round_cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
    losses = [loss for loss in (entry.get("loss") or {}).values() if is_known(loss)]
    mean_loss = f"{sum(losses) / len(losses):.4g}" if losses else DASH
    return (
        printable(entry["stage"]),
        count(entry["round"]) + (", repeated" if entry.get("repeated") else ""),
        f"{len(entry.get('answered') or [])} of {len(entry.get('expected') or [])}",
        _names(entry.get("late")),
        _names(entry.get("missing")),
        _names(entry.get("rejected")),
        mean_loss,
        _validation_cell(entry),
        byte_size(entry.get("bytes")),
        duration(entry.get("seconds")),
    )


def _validation_cell(entry: Mapping[str, Any]) -> str:
    stratified = (entry.get("validation") or {}).get("stratified")
    trained = entry.get("weights-evaluated")
    after = f" (after {trained})" if is_known(stratified) and trained is not None else ""
    return c_index(stratified) + after


def _names(names: Mapping[str, str] | Sequence[str] | None) -> str:
    """Names in a row; of a mapping, with what stands beside each (the code of a rejection)."""
    if isinstance(names, Mapping):
        return ", ".join(printable(f"{name} ({code})") for name, code in names.items()) or DASH
    return ", ".join(printable(name) for name in names or ()) or DASH


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_markdown(one) for one in cells) + " |"


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
