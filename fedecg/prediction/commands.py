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

from fedecg.codes import CODES
from fedecg.files import write_whole
from fedecg.intended_use import INTENDED_USE, NOT_INTENDED
from fedecg.progress import Progress

if TYPE_CHECKING:
    from fedecg.prediction.files import FileRow
    from fedecg.prediction.predictor import Model
    from fedecg.prediction.risk import HorizonRisk

__all__ = ["add_evaluate", "add_export", "add_predict", "add_verify"]

Commands = argparse._SubParsersAction  # argparse has no public name for it
# (model, its folder, rows, folder of pages, progress) -> the rows with their pages, made in a later room than this one.
Explainer = Callable[["Model", Path, "Sequence[FileRow]", Path, Progress], "list[FileRow]"]


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"  - {line}" for line in lines)


MANY = 256  # files from which progress is shown
MODEL_HELP = "model folder (model.json, weights.safetensors, SHA256SUMS)"
PREDICT_HELP = f"""FILES are ECGs of any format that fedecg reads (docs/formats.md), WFDB with or without ending;
FILE#3 is the ECG at place 3, from 0, of a file with many.
@list.txt takes the names from a text file, one a line; - takes them from stdin.

  fedecg predict runs/demo/model records/*.hea
  fedecg predict runs/demo/model @records.txt --out risks.csv
  find records -name '*.hea' | fedecg predict runs/demo/model - --horizons 1,5 --json
  fedecg predict runs/demo/model records/*.hea --out risks.csv --explain pages

Columns: file, log-hazard, risk-1y, risk-1y-low, risk-1y-high, ..., percentile, percentile-bound, warnings, code;
with --explain: explanation, the page of the row, named by the row's number; in a CSV also outcomes and note.
The interval is the uncertainty of the baseline hazard alone, not of the network. No risk, 0 and an upper limit
(97.5 %): no event was seen by then in the validation patients. The percentile is that among the study's validation
patients; percentile-bound says "at least" or "at most" where the log hazard lies beyond almost all of theirs.
A record that cannot be used has its code; the others are predicted.
Exit status: 0 all predicted, 5 some, 3 none.

Intended use:
{_listed(INTENDED_USE)}
Not intended:
{_listed(NOT_INTENDED)}
"""
EVALUATE_HELP = """COHORT is a table (csv) of one row a patient, whose ECGs are files in the folder --records:

  patient,file,event,follow_up_days,age_years,female
  a17,2019/a17_ecg,1,412,71,1
  b03,2020/b03_ecg,0,1830,58,0

event: 1 = heart failure, 0 = censored; follow_up_days: from the ECG to it, or to the last contact. part, entry_days,
died, age_years, female may be left out. Files are of any format that fedecg predict reads; they are preprocessed as the
model says. A patient whose ECG cannot be used is left out, by code. With --store instead of --records, the column
record is the row of a signal store that was made with the model's [signals] settings.
COHORT may also be a folder with site.toml (name, store, cohort), as a site of a study has.

  fedecg evaluate runs/demo/model cohort.csv --records /data/ecgs
  fedecg evaluate runs/demo/model cohort.csv --records /data/ecgs --part test --json > evaluation.json
  fedecg evaluate runs/demo/model cohort.csv --records /data/ecgs --recalibrate our-model
  fedecg evaluate runs/demo/model /data/our-hospital

Nothing is sent anywhere. The figures and a recalibrated model tell of your patients: they stay with you.
Exit status: 0 all patients evaluated, 5 some left out, 3 none, or a table or model that cannot be used.
"""
VERIFY_HELP = """Checks format, hashes and numbers, and says what the model is and is for. Exit status: 0 sound, 3 not.

  fedecg verify runs/demo/model

SHA256SUMS lists the model's files. Its own sha256, the last line, stands for the whole model: compare it with the one
that the study's coordinator tells you by another way. Models of before there was a SHA256SUMS: fedecg report RUN
writes it.
"""
EXPORT_HELP = """Input of the program: preprocessed ECGs (N, 12, samples) float32 in mV; output: log hazards (N,).
It is compared with the network on random signals before it is written.

  fedecg export runs/demo/model --format torch-export --out model.pt2
  fedecg export runs/demo/model --format onnx --out model.onnx     # needs pip install 'fedecg[onnx]'
"""


def add_predict(commands: Commands[argparse.ArgumentParser], explainer: Explainer) -> None:
    """Hook in `fedecg predict`; `explainer` writes the pages of --explain."""
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
    command.add_argument(
        "--explain", type=Path, metavar="DIR", help="write a page for each record: what the network looked at"
    )
    command.set_defaults(explainer=explainer)


def add_evaluate(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg evaluate`."""
    command = _add(commands, "evaluate", "how a model does on your own patients", EVALUATE_HELP, _evaluate)
    command.add_argument("cohort", type=Path, metavar="COHORT", help="cohort.csv, or a folder with site.toml")
    ecgs = command.add_mutually_exclusive_group()
    ecgs.add_argument("--records", type=Path, metavar="FOLDER", help="that the column file starts from")
    ecgs.add_argument("--store", type=Path, metavar="FOLDER", help="signal store of the column record")
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
    from fedecg.prediction.files import csv_text, predict_files, record_names, repeated, would_replace
    from fedecg.prediction.predictor import load

    progress = Progress()
    replaced = options.out is not None and would_replace(options.out)
    model = load(options.model)
    model.check_predicts()
    names = record_names(options.files, sys.stdin)
    if again := repeated(names):
        progress.warn(f"{again} of {len(names)} names are of a record named before: its rows are repeated.")
    if len(names) < MANY:
        rows = predict_files(model, names, options.horizons)
    else:
        with progress.task("ECGs", len(names)) as advance:
            rows = predict_files(model, names, options.horizons, advance)
    if options.explain:
        rows = options.explainer(model, options.model, rows, options.explain, progress)
    notes = _prediction_notes(model, options.horizons)
    document = (
        json.dumps(_document(model, rows, options.horizons, [model.disclaimer, *notes]), indent=2) + "\n"
    )
    if options.out:
        as_csv = options.out.suffix == ".csv"
        beside = {"outcomes": _outcomes(model.saved.outcomes), "note": model.disclaimer}
        write_whole(options.out, csv_text(rows, options.horizons, beside) if as_csv else document)
        progress.say(f"{'replaced' if replaced else 'written'}: {options.out}")
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


# Why a model may be without: a study ships none of noughts.
NO_BASELINE = (
    "Either it is not trained to its end, or no site has told an event of its validation patients: there was none, or "
    "it was withheld, below the site's thresholds."
)


def _prediction_notes(model: Model, horizons: Sequence[float]) -> list[str]:
    if model.scale is None or model.scale.follow_up_days == 0:
        return [f"The model has no baseline hazard: log hazards only, no risks. {NO_BASELINE}"]
    beyond = [f"{years:g}" for years in horizons if years not in model.scale.known(horizons)]
    notes = ["Intervals: uncertainty of the baseline hazard alone, not of the network."]
    if beyond:
        notes.append(f"No risk at {', '.join(beyond)} years: the baseline hazard does not reach that far.")
    if early := [f"{years:g}" for years in model.scale.before_events(horizons)]:
        notes.append(
            f"At {', '.join(early)} years an upper limit (97.5 %) and no risk: no event seen by then in the validation "
            "patients."
        )
    population = model.saved.population
    notes.append(
        "No percentile: the model does not hold its training study's log hazards."
        if population is None
        else f"Percentile: of {sum(population.patients):,} validation patients of the study."
    )
    if model.saved.recalibration is not None:
        notes.append(f"The baseline was scaled by {model.saved.recalibration.ratio:.3g} to one hospital.")
    return notes


def _document(
    model: Model, rows: Sequence[FileRow], horizons: Sequence[float], notes: Sequence[str]
) -> dict[str, Any]:
    from fedecg.prediction.files import row_fields

    return {
        "model-sha256": model.saved.settings_sha256,
        "outcomes": _outcomes(model.saved.outcomes),
        "intended-use": list(model.saved.intended_use),
        "not-intended": list(model.saved.not_intended),
        "horizons-years": list(horizons),
        "notes": list(notes),
        "rows": [row_fields(row, horizons) for row in rows],
    }


def _print_rows(rows: Sequence[FileRow], horizons: Sequence[float]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fedecg.prediction.files import shortened

    table = Table()
    table.add_column("file", overflow="fold")
    table.add_column("log hazard")
    for years in horizons:
        table.add_column(f"risk {years:g} y (95 %)", justify="right", overflow="fold")
    table.add_column("percentile", justify="right")
    table.add_column("warnings", overflow="fold")
    for row in rows:
        found = row.prediction
        risks = [_risk(one) for one in found.risks] or ["–"] * len(horizons)
        table.add_row(
            Text(shortened("".join(letter if letter.isprintable() else "?" for letter in row.file))),
            _number(found.log_hazard, "+.3f"),
            *risks,
            f"{found.percentile_bound} {_number(found.percentile, '.0f')}".strip(),
            Text("; ".join([found.code, *found.warnings] if found.code else found.warnings)),
        )
    console = Console()
    # A pipe has no width; a table that wraps its numbers cannot be read by anything.
    Console(width=None if console.is_terminal else 200).print(table)


def _risk(one: HorizonRisk) -> str:
    if one.risk is None:
        return "–" if one.high is None else f"below {100 * one.high:.1f} %"
    interval = "" if one.low is None or one.high is None else f" ({100 * one.low:.1f}–{100 * one.high:.1f})"
    return f"{100 * one.risk:.1f} %{interval}"


def _outcomes(outcomes: str) -> str:
    return outcomes.upper() if outcomes == "simulated" else outcomes


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _evaluate(options: argparse.Namespace) -> int:
    from fedecg.model.package import EXPLANATION, carry_over
    from fedecg.prediction.outside import evaluate_outside, recalibrate
    from fedecg.prediction.predictor import load

    progress = Progress()
    model = load(options.model)
    places = {"records": options.records, "store": options.store}
    found = evaluate_outside(model, options.cohort, options.part, progress=progress, **places)
    if options.json:
        print(json.dumps(found.document | {"left-out": found.left_out}, indent=2))
    else:
        _print_evaluation(found.document)
    for note in found.notes:
        progress.say(note)
    if options.recalibrate:
        ratio = recalibrate(model, found, options.recalibrate)
        carry_over(EXPLANATION, options.model, options.recalibrate)  # attention is the same: so are its tests
        progress.say(
            f"Baseline times {ratio:.3g} ({found.observed} events observed, {found.expected:.1f} expected), "
            f"written: {options.recalibrate}. It tells of your patients: keep it."
        )
    return 5 if found.left_out else 0


def _print_evaluation(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    whole, pairs = document["hazard-calibration"], document["concordance"]
    few = "  too few events for a trustworthy interval" if pairs["few-events"] else ""
    print(f"{pairs['patients']} patients, {pairs['events']} events (part: {document['part']})")
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
        if baseline and baseline["follow-up-years"]
        else f"none (log hazards only). {NO_BASELINE}",
        "population": f"{population['patients']:,} validation patients"
        if population
        else "none (no percentile)",
        "weights": f"sha256 {facts['weights-sha256'][:12]}... as model.json says",
    }
    if imported := facts["imported"]:
        parts, source = " and ".join(imported["parts"]), imported["source-sha256"]
        lines["baseline"] = "none (the risk head is untrained: fedecg predict refuses this model)"
        lines["imported"] = f"{parts} of {imported['layout']}, source sha256 {source[:12]}..."
    if scaled:
        lines["recalibrated"] = (
            f"baseline times {scaled['ratio']:.3g} from {scaled['observed']} events; original model.json "
            f"sha256 {scaled['original-sha256'][:12]}..."
        )
    rows = [*lines.items(), *(("intended use", line) for line in facts["intended-use"] or ["not stated"])]
    rows += [("not intended", line) for line in facts["not-intended"]]
    rows.append(("SHA256SUMS", f"sha256 {facts['files']['SHA256SUMS']}"))
    print("\n".join(f"{name:13}{text}" for name, text in rows))
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
