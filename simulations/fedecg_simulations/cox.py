"""`fedecg-simulate cox`: the federated Cox model of a table, with all its sites in one process.

In:  a table of patients, options. Out: a table on stdout or one JSON object. Called by `cli`.
The baseline against which ECG models are judged: age, sex, heart rate, QRS, QTc, ...
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedecg.errors import SettingsError
from fedecg.report.wording import DASH, c_index, count, printable

__all__ = ["add_cox", "run_cox"]

EXAMPLES = """examples:
  fedecg-simulate cox patients.csv --time days --event hf --site hospital
  fedecg-simulate cox patients.csv --time days --event hf --site hospital --columns age,sex,qrs_ms --strata site
  fedecg-simulate cox patients.csv --time days --event hf --site hospital --test-part fold=test --json
"""


def add_cox(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Hook the command in."""
    cox = commands.add_parser(
        "cox",
        help="federated Cox model of a table, equal to the pooled one",
        description="Fit a Cox model to a table split into sites, from sums over sites alone.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cox.add_argument("table", type=Path, metavar="TABLE", help="CSV or Parquet file, one row a patient")
    cox.add_argument(
        "--time", required=True, metavar="COL", help="days to the event or the last contact, >= 0"
    )
    cox.add_argument("--event", required=True, metavar="COL", help="1 = event seen, 0 = censored")
    cox.add_argument("--site", required=True, metavar="COL", help="label of the patient's site")
    cox.add_argument(
        "--columns",
        metavar="A,B,C",
        help='covariates; "a, b" in quotes (default: all other numeric columns, less those that look like identifiers '
        "by their name, as id or patient_id, or as whole numbers that all differ: a line names what is left out)",
    )
    cox.add_argument(
        "--entry",
        metavar="COL",
        help="days from which the patient is observed (left truncation); for the model: the concordance does not know "
        "entry times, it compares everybody from day 0",
    )
    cox.add_argument("--ties", choices=("efron", "breslow"), default="efron", help="default: efron")
    cox.add_argument(
        "--strata", choices=("site",), help="a baseline hazard for each site (default: one for all)"
    )
    cox.add_argument(
        "--penalty",
        type=float,
        default=0.0,
        metavar="X",
        help="ridge, scaled as lifelines' penalizer (default: 0)",
    )
    cox.add_argument(
        "--grid", default="exact", metavar="DAYS", help="width of the public time bins, or exact (default)"
    )
    cox.add_argument(
        "--robust",
        nargs="?",
        const="patient",
        choices=("patient", "site"),
        help="robust (sandwich) standard errors, clustered by patient (default) or by site",
    )
    cox.add_argument(
        "--test-part", metavar="COL=VALUE", help="keep these rows out of the fit and report their concordance"
    )
    cox.add_argument("--json", action="store_true", help="print the result as JSON")
    cox.set_defaults(command=run_cox)


def run_cox(options: argparse.Namespace) -> int:
    """Fit, judge and print; returns the exit status.

    Raises:
        SettingsError: FECG-108, FECG-109. CohortError: FECG-239, FECG-254..260. ModelError: FECG-331..336.
    """
    penalty, grid_days = _penalty(options.penalty), _grid_days(options.grid)
    covariates, part = _covariates(options.columns), _test_part(options.test_part)
    from fedecg.objectives.linear_cox import CoxSettings  # torch is not needed to say --help
    from fedecg_simulations.cox_analysis import analyse_table
    from fedecg_simulations.cox_table import CoxColumns, read_cox_table

    settings = CoxSettings(options.ties, "site" if options.strata else "shared", penalty)
    columns = CoxColumns(options.time, options.event, options.site, covariates, options.entry, part)
    result = analyse_table(read_cox_table(options.table, columns), settings, grid_days, options.robust)
    if options.json:
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        _print(result, Console())
    return 0


def _penalty(penalty: float) -> float:
    if math.isfinite(penalty) and penalty >= 0:
        return penalty
    raise SettingsError(
        "FECG-108", "--penalty", found="a negative or infinite number", expected="a finite number >= 0"
    )


def _grid_days(text: str) -> float | None:
    """Width of the bins in days; None for the exact grid."""
    if text == "exact":
        return None
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if math.isfinite(days) and days > 0:
        return days
    raise SettingsError("FECG-108", "--grid", found="no width of a bin", expected="exact, or days > 0")


def _covariates(text: str | None) -> tuple[str, ...]:
    """Names as in a line of CSV; none where the option is not given."""
    if text is None:
        return ()
    try:
        names = tuple(next(csv.reader([text], skipinitialspace=True)))
    except csv.Error:  # a line break outside quotes
        names = ()
    if names and all(name.strip() for name in names):
        return names
    raise SettingsError("FECG-108", "--columns", found="no line of names, or an empty one", expected="A,B,C")


def _test_part(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    column, _, value = text.partition("=")
    if column and value:
        return column, value
    raise SettingsError(
        "FECG-109", "--test-part", found="no column and value", expected="COL=VALUE, e.g. fold=test"
    )


def _print(result: dict[str, Any], console: Console) -> None:
    from fedecg.report import partition_table

    console.print(partition_table(result["sites"]))
    console.print(_coefficient_table(result))
    for line in _notes(result):
        console.print(Text(line))
    console.print(Text(result["disclosure"], style="dim"))


def _coefficient_table(result: dict[str, Any]) -> Table:
    strata = "a baseline for each site" if result["baseline"] == "site" else "one baseline"
    title = f"Federated Cox model: {strata}, {result['ties']} ties, penalty {result['penalty']:g}"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("covariate")
    for header in ("log HR", "se", "HR (95 % CI)", "p", "PH p"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in result["coefficients"]:
        low, high = (DASH if row["se"] is None else _ratio(row[key]) for key in ("ci-low", "ci-high"))
        interval = f"{_ratio(row['hazard-ratio'])} ({low}–{high})"
        figures = (f"{row['log-hazard-ratio']:.4g}", _figure(row["se"]), interval)
        cells = (printable(row["name"]), *figures, _p(row["p"]), _p(row["proportional-hazards-p"]))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _notes(result: dict[str, Any]) -> list[str]:
    lines = [_concordance_line("concordance", result)]
    if result["test"] is not None:
        lines.append(_concordance_line("concordance of the test part", result["test"]))
    overall = _p(result["proportional-hazards"]["p"])
    lines.append(f"PH p: a small one says that the hazard ratio changes with time; all covariates: {overall}")
    if result["penalty"]:
        lines.append("with a penalty coefficients are pulled to 0: se, p and intervals are approximate")
    lines.append(
        f"{count(result['patients'])} patients, {count(result['events'])} events, standard errors: "
        f"{result['standard-errors']}, {result['newton-steps']} Newton steps, {count(result['bins'])} time bins"
    )
    if result["concordance-note"]:
        lines.append(result["concordance-note"])
    if result["covariates-by-default"]:
        taken = [row["name"] for row in result["coefficients"]]
        lines.append(
            "covariates taken by default, as all other numeric columns: " + ", ".join(map(printable, taken))
        )
    if result["identifiers"]:
        names = ", ".join(map(printable, result["identifiers"]))
        lines.append(f"warning: left out, as they look like identifiers: {names} (--columns takes them)")
    if result["gap-to-exact"] is not None:
        lines.append(f"gap to the exact grid: {result['gap-to-exact']:.3g} standard errors")
    if result["left-out"]:
        lines.append("not numeric, left out: " + ", ".join(map(printable, result["left-out"])))
    return lines


def _concordance_line(title: str, figures: dict[str, Any]) -> str:
    everybody, within = (
        c_index(*(figures[f"{prefix}concordance{end}"] for end in ("", "-ci-low", "-ci-high")))
        for prefix in ("", "stratified-")
    )
    return f"{title}: {everybody}, within sites {within} (95 % CI)"


def _ratio(value: float | None) -> str:
    if value is None:
        return "∞"
    return f"{value:.3f}" if 0.01 <= value < 1000 else f"{value:.2e}"


def _figure(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g}"


def _p(value: float | None) -> str:
    if value is None:
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"
