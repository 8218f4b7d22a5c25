"""`fedecg predict`, `evaluate`, `verify`, `export`: the command line of this room.

In:  parsed options. Out: tables or JSON on stdout, files, notes on stderr, an exit status. Hooked in by `fedecg.cli`.
Torch is loaded when a command runs, so that --help needs none.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedecg.errors import CODES
from fedecg.files import write_whole
from fedecg.progress import Progress

if TYPE_CHECKING:
    from fedecg.prediction.files import FileRow
    from fedecg.prediction.predictor import Model

__all__ = ["add_evaluate", "add_export", "add_predict", "add_verify"]

Commands = argparse._SubParsersAction  # argparse has no public name for it

MANY = 256  # files from which progress is shown
MODEL_HELP = "model folder (model.json, weights.safetensors)"
PREDICT_HELP = """FILES are records of any format that fedecg reads (WFDB, PhysioNet .mat), with or without ending.
@list.txt takes the names from a text file, one a line; - takes them from stdin.

  fedecg predict runs/demo/model records/*.hea
  fedecg predict runs/demo/model @records.txt --out risks.csv
  find records -name '*.hea' | fedecg predict runs/demo/model - --horizons 1,5 --json

Columns: file, log-hazard, risk-1y, risk-1y-low, risk-1y-high, ..., percentile, warnings, code. The interval is the
uncertainty of the baseline hazard alone, not of the network. The percentile is that among the training study's
validation patients. A record that cannot be used has its code; the others are predicted.
Exit status: 0 all predicted, 5 some, 3 none.
"""
EVALUATE_HELP = """COHORT is a folder with site.toml, as a site of a study has:

  name = "our-hospital"
  store = "store/0123456789abcdef"   # ECGs, preprocessed with the model's [signals] settings
  cohort = "cohort.csv"              # record, patient, part, event, follow_up_days, ...

  fedecg evaluate runs/demo/model /data/our-hospital
  fedecg evaluate runs/demo/model /data/our-hospital --part test --json > evaluation.json
  fedecg evaluate runs/demo/model /data/our-hospital --recalibrate our-model

Nothing is sent anywhere. The figures and a recalibrated model tell of your patients: they stay with you.
"""
VERIFY_HELP = """Checks format, hashes and numbers, and says what the model is. Exit status: 0 sound, 3 not.

  fedecg verify runs/demo/model
"""
EXPORT_HELP = """Input of the program: preprocessed ECGs (N, 12, samples) float32 in mV; output: log hazards (N,).
It is compared with the network on random signals before it is written.

  fedecg export runs/demo/model --format torch-export --out model.pt2
  fedecg export runs/demo/model --format onnx --out model.onnx     # needs pip install 'fedecg[onnx]'
"""


def add_predict(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg predict`."""
    command = _add(commands, "predict", "risk of heart failure from ECG files", PREDICT_HELP, _predict)
    command.add_argument("files", nargs="+", metavar="FILES", help="records, @list.txt, or - for stdin")
    command.add_argument("--out", type=_table_file, metavar="FILE", help="write a .csv or .json file")
    command.add_argument(
        "--horizons",
        type=_years,
        default=(1.0, 3.0, 5.0, 10.0),
        metavar="YEARS",
        help="of the risks, rising, with commas (default: 1,3,5,10)",
    )


def add_evaluate(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg evaluate`."""
    command = _add(commands, "evaluate", "how a model does on your own patients", EVALUATE_HELP, _evaluate)
    command.add_argument("cohort", type=Path, metavar="COHORT", help="folder with site.toml")
    command.add_argument(
        "--part",
        choices=("all", "train", "validation", "test"),
        default="all",
        help="patients to evaluate (default: all)",
    )
    command.add_argument(
        "--recalibrate",
        type=Path,
        metavar="OUT",
        help="write a model whose baseline is scaled to your patients (observed / expected events)",
    )


def add_verify(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg verify`."""
    _add(commands, "verify", "check a model folder and say what it is", VERIFY_HELP, _verify)


def add_export(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg export`."""
    command = _add(commands, "export", "write the network as one program", EXPORT_HELP, _export)
    command.add_argument("--format", choices=("onnx", "torch-export"), required=True, help="of the program")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="e.g. model.pt2, model.onnx")


def _add(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    what: str,
    epilog: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=what, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(command=run)
    command.add_argument("model", type=Path, metavar="MODEL", help=MODEL_HELP)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    return command


def _years(text: str) -> tuple[float, ...]:
    try:
        years = tuple(float(word) for word in text.split(","))
    except ValueError:
        years = ()
    if (
        not years
        or not all(math.isfinite(one) and one > 0 for one in years)
        or sorted(set(years)) != [*years]
    ):
        raise argparse.ArgumentTypeError("expected years > 0 in rising order, with commas: 1,3,5,10")
    return years


def _table_file(text: str) -> Path:
    if not text.endswith((".csv", ".json")):
        raise argparse.ArgumentTypeError("expected a name that ends in .csv or .json")
    return Path(text)


def _predict(options: argparse.Namespace) -> int:
    from fedecg.prediction.files import csv_text, predict_files, record_names
    from fedecg.prediction.predictor import load

    progress = Progress()
    model = load(options.model)
    names = record_names(options.files, sys.stdin)
    if len(names) < MANY:
        rows = predict_files(model, names, options.horizons)
    else:
        with progress.task("ECGs", len(names)) as advance:
            rows = predict_files(model, names, options.horizons, advance)
    notes = _prediction_notes(model, options.horizons)
    document = (
        json.dumps(_document(model, rows, options.horizons, [model.disclaimer, *notes]), indent=2) + "\n"
    )
    if options.out:
        as_csv = options.out.suffix == ".csv"
        write_whole(options.out, csv_text(rows, options.horizons) if as_csv else document)
    if options.json:
        print(document, end="")
    elif not options.out:
        _print_rows(rows, options.horizons)
    for note in notes:
        progress.say(note)
    failed = Counter(row.prediction.code for row in rows if row.prediction.code)
    for code, number in sorted(failed.items()):
        progress.warn(f"{number} of {len(rows)} files not predicted: {code} {CODES[code]}")
    progress.say(model.disclaimer)
    if not failed:
        return 0
    return 3 if failed.total() == len(rows) else 5


def _prediction_notes(model: Model, horizons: Sequence[float]) -> list[str]:
    if model.scale is None:
        return ["The model has no baseline hazard yet: log hazards only."]
    beyond = [f"{years:g}" for years in horizons if years not in model.scale.known(horizons)]
    notes = ["Intervals: uncertainty of the baseline hazard alone, not of the network."]
    if beyond:
        notes.append(f"No risk at {', '.join(beyond)} years: the baseline hazard does not reach that far.")
    if model.saved.population is None:
        notes.append("No percentile: the model does not hold its training study's log hazards.")
    if model.saved.recalibration is not None:
        notes.append(f"The baseline was scaled by {model.saved.recalibration.ratio:.3g} to one hospital.")
    return notes


def _document(
    model: Model, rows: Sequence[FileRow], horizons: Sequence[float], notes: Sequence[str]
) -> dict[str, Any]:
    from fedecg.prediction.files import row_fields

    return {
        "model-sha256": model.saved.settings_sha256,
        "horizons-years": list(horizons),
        "notes": list(notes),
        "rows": [row_fields(row, horizons) for row in rows],
    }


def _print_rows(rows: Sequence[FileRow], horizons: Sequence[float]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("file", "log hazard")
    for years in horizons:
        table.add_column(f"risk {years:g} y (95 %)", justify="right")
    table.add_column("percentile", justify="right")
    table.add_column("warnings")
    for row in rows:
        found = row.prediction
        risks = [_risk(one.risk, one.low, one.high) for one in found.risks] or ["–"] * len(horizons)
        table.add_row(
            Text("".join(letter if letter.isprintable() else "?" for letter in row.file)),
            _number(found.log_hazard, "+.3f"),
            *risks,
            _number(found.percentile, ".0f"),
            Text("; ".join([found.code, *found.warnings] if found.code else found.warnings)),
        )
    console = Console()
    # A pipe has no width; a table that wraps its numbers cannot be read by anything.
    Console(width=None if console.is_terminal else 200).print(table)


def _risk(risk: float | None, low: float | None, high: float | None) -> str:
    if risk is None:
        return "–"
    interval = "" if low is None or high is None else f" ({100 * low:.1f}–{100 * high:.1f})"
    return f"{100 * risk:.1f} %{interval}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _evaluate(options: argparse.Namespace) -> int:
    from fedecg.prediction.outside import evaluate_outside, recalibrate
    from fedecg.prediction.predictor import load

    progress = Progress()
    model = load(options.model)
    found = evaluate_outside(model, options.cohort, options.part)
    if options.json:
        print(json.dumps(found.document, indent=2))
    else:
        _print_evaluation(found.document)
    for note in found.notes:
        progress.say(note)
    if options.recalibrate:
        ratio = recalibrate(model, found, options.recalibrate)
        progress.say(
            f"Baseline times {ratio:.3g} ({found.observed} events observed, {found.expected:.1f} expected), "
            f"written: {options.recalibrate}. It tells of your patients: keep it."
        )
    return 0


def _print_evaluation(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    whole, pairs = document["hazard-calibration"], document["concordance"]
    few = "  too few events for a trustworthy interval" if pairs["few-events"] else ""
    print(f"{pairs['patients']} patients, {pairs['events']} events")
    own = [pairs[name] for name in ("stratified", "stratified-ci-low", "stratified-ci-high")]
    print(f"C-index           {_interval(own)}{few}")
    print(f"observed/expected {_interval([whole['ratio'], whole['ratio-low'], whole['ratio-high']])}")
    print(f"slope             {_interval([whole['slope'], whole['slope-low'], whole['slope-high']])}")
    table = Table("years", "patients", "events", "Brier", "scaled", "AUC")
    brier, auc = document["brier"], document["auc"]
    for at, days in enumerate(document["horizons-days"]):
        table.add_row(
            f"{days / 365.25:g}",
            str(brier["patients"][at]),
            str(brier["cases"][at]),
            _number(brier["score"][at], ".4f"),
            _number(brier["scaled"][at], ".3f"),
            _number(auc["auc"][at], ".3f"),
        )
    Console().print(table)


def _interval(values: Sequence[float | None]) -> str:
    middle, low, high = (_number(value, ".3f") for value in values)
    return "– (too little to tell)" if values[0] is None else f"{middle} (95 % {low} to {high})"


def _verify(options: argparse.Namespace) -> int:
    from fedecg.prediction.folder import verify

    facts = verify(options.model)
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    baseline, population, scaled = facts["baseline"], facts["population"], facts["recalibration"]
    low, high = facts["band-hz"]
    lines = {
        "network": f"{facts['preset']} {facts['size']}, {facts['parameters']:,} parameters",
        "outcomes": "SIMULATED" if facts["outcomes"] == "simulated" else facts["outcomes"],
        "input": f"12 leads, {facts['samples']} samples at {facts['rate-hz']} Hz, {low:g} to {high:g} Hz, "
        f"powerline {facts['powerline']}",
        "code bank": f"sha256 {facts['bank-sha256'][:12]}..."
        if facts["bank-sha256"]
        else "none (not aligned)",
        "baseline": f"{baseline['bins']} bins, up to {baseline['follow-up-years']:g} years"
        if baseline
        else "none (log hazards only)",
        "population": f"{population['patients']:,} validation patients"
        if population
        else "none (no percentile)",
        "weights": f"sha256 {facts['weights-sha256'][:12]}... as model.json says",
    }
    if scaled:
        lines["recalibrated"] = (
            f"baseline times {scaled['ratio']:.3g} from {scaled['observed']} events; original model.json "
            f"sha256 {scaled['original-sha256'][:12]}..."
        )
    print("\n".join(f"{name:13}{text}" for name, text in lines.items()))
    return 0


def _export(options: argparse.Namespace) -> int:
    from fedecg.prediction.export import export_network
    from fedecg.prediction.predictor import load

    model = load(options.model)
    apart = export_network(model, options.format, options.out)
    if options.json:
        print(json.dumps({"format": options.format, "largest-difference": apart}))
    else:
        print(f"{options.format}, at most {apart:.1e} from the network on random signals: {options.out}")
    return 0
