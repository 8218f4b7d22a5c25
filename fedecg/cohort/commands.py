"""`fedecg cohort build`, `flow` and `codes`: the command line of this room.

In:  parsed options. Out: a cohort's files; text or JSON on stdout, notes on stderr, an exit status. Hooked in by
     `fedecg.cli`, which brings what draws and what makes the version for outside: that is a later room than this one.
pyarrow and numpy do the work when the command runs; --help needs neither.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedecg.command_line import Commands, add_command, add_group, add_json, named

if TYPE_CHECKING:
    from fedecg.cohort.flow import Flow

__all__ = ["add_cohort"]

Document = dict[str, Any]
Draw = Callable[[Mapping[str, Any], Path], None]
Outside = Callable[["Flow"], Document]

FIGURES = (".pdf", ".svg", ".png")
NO_STATEMENTS = (
    "no statements: alignment learns nothing from these ECGs; does the table of ECGs have a column of codes? Name it: "
    '[columns] ecgs = { codes = "..." }'
)
BUILD_HELP = """From a hospital's tables to one index ECG a patient with the time to heart failure. COHORT.toml says
which tables (CSV, TSV or Parquet, also .gz; paths start from its folder), what their columns are called, and the rules:

  [rules]
  base = "paper-hyp"            # or paper-mi, or nothing; what follows overrides it

  [ecgs]
  table = "ecgs.csv"            # a row an ECG: patient, date, file
  store = "store"               # what fedecg data ingest made; leave it out to get file names in place of its rows
  people = "patients.csv"       # birth or age, sex; may be left out

  [diagnoses]
  table = "diagnoses.csv.gz"    # a row a diagnosis: patient, code, version, and a date or an admission
  admissions = "admissions.csv" # dates them; leave it out where diagnoses have a date
  dated-by = "admission"        # or "discharge"
  version = "column"            # or "9", "10" for all

  [follow-up]
  end-table = "contacts.csv"    # last contact; of several rows a patient the latest counts
  end-date = "2024-06-30"       # administrative end; either of the two, or the earlier of both
  death-table = "deaths.csv"    # death before the event is a competing one

  [include]                     # at least one dated on or before the day of the index ECG
  lists = ["hypertension"]
  [exclude]                     # none before the ECG or on its day
  lists = ["heart-failure"]
  faults = "stop"               # or "leave-out": go on without patients whose rows cannot be used
  [event]                       # the first after the day of the ECG
  lists = ["heart-failure"]
  wash-out-days = 0

  [patients]
  key = "/safe/patients.key"    # makes their numbers; made once, 0600 (default: patients.key in --out)

  [columns]                     # names differ from these? say so: columns.TABLE.NAME = "yours"
  ecgs = { date = "taken", codes = "scp_codes" }   # codes: what the ECGs show, for alignment, if you have it
  dates = "iso"                 # 2020-03-04; or "day-first" 04.03.2020, "month-first" 03/04/2020
  diagnoses = { patient = "subject_id", admission = "hadm_id", code = "icd_code", version = "icd_version" }

  [split]                       # by patient, the same shares with and without an event
  validation = 0.1
  test = 0.2                    # or folds = 2
  seed = 0

  fedecg cohort build cohort.toml --out cohort
  fedecg cohort codes           # the lists of codes, with their source

Written to --out: cohort.csv, which site.toml names and fedecg-client preflight checks, and cohort.json, by which
another store than this one is refused: keep them together (without a store cohort-files.csv, for fedecg evaluate
--records); flow.json with every count; flow.pdf and flow.svg; and in outside/ the same flow with small counts merged or
withheld, which may be shown. With folds there is a fold-K/cohort.csv for each. Tables of an earlier build in --out go.
docs/cohort.md has every rule and every column. Faults are counted, all at once; no message holds a patient or a date.
Exit status: 0; 3 nothing written.
"""
FLOW_HELP = """FLOW is the flow.json that fedecg cohort build wrote.

  fedecg cohort flow cohort/flow.json
  fedecg cohort flow cohort/flow.json --figure flow.png
  fedecg cohort flow cohort/flow.json --outside --figure for-the-paper.pdf --json
"""
CODES_HELP = """  fedecg cohort codes
  fedecg cohort codes heart-failure

A code matches an entry that it begins with ("I50": I50.9), or a range ("I10-I15"), whatever its dots and capitals.
"""


def add_cohort(commands: Commands[argparse.ArgumentParser], draw: Draw, outside: Outside) -> None:
    """Hook in the three commands.

    Args:
        draw: writes the figure of a flow's document to a path, by its ending.
        outside: the document of a flow that may leave the hospital: as flow.json, with words for small counts.
    """
    group = add_group(
        commands, "cohort", "make a cohort from a hospital's tables: index ECGs, time to event, parts"
    )
    build = add_command(
        group,
        "build",
        lambda options: _build(options, draw, outside),
        "read tables, apply the rules, write the cohort",
        BUILD_HELP,
    )
    build.add_argument("cohort", type=Path, metavar="COHORT.toml", help="tables, columns and rules")
    build.add_argument(
        "--out", type=named, default=Path("cohort"), metavar="DIR", help="folder to write (default: cohort)"
    )
    add_json(build, "print the flow, and the names of what was written, as JSON")
    flow = add_command(
        group,
        "flow",
        lambda options: _flow(options, draw, outside),
        "print or draw the flow of a cohort again",
        FLOW_HELP,
    )
    flow.add_argument("flow", type=Path, metavar="FLOW", help="flow.json")
    flow.add_argument("--figure", type=_figure, metavar="FILE", help="draw it (.pdf, .svg or .png)")
    flow.add_argument("--outside", action="store_true", help="the version that may be shown outside")
    add_json(flow)
    codes = add_command(group, "codes", _codes, "the lists of ICD codes, with their source", CODES_HELP)
    codes.add_argument("name", nargs="?", metavar="NAME", help="one list (default: all)")
    add_json(codes)


def _figure(text: str) -> Path:
    if Path(text).suffix not in FIGURES:
        raise argparse.ArgumentTypeError(f"expected a file that ends in {', '.join(FIGURES)}")
    return Path(text)


def _build(options: argparse.Namespace, draw: Draw, outside: Outside) -> int:
    from fedecg.cohort.build import build_cohort
    from fedecg.cohort.build_output import write_built
    from fedecg.cohort.build_progress import WHOLE
    from fedecg.cohort.build_settings import load_cohort_settings
    from fedecg.cohort.flow import document_lines, flow_document
    from fedecg.files import require_folder, write_whole
    from fedecg.progress import Progress
    from fedecg.signals import SignalStore

    settings = load_cohort_settings(options.cohort)
    require_folder(options.out)
    # Before the tables are read: a store that is replaced meanwhile is another than the note says, and is refused.
    store_key = SignalStore.open(settings.ecgs.store).key if settings.ecgs.store else None
    progress = Progress()
    with progress.task("reading and checking tables, percent", WHOLE) as advance:
        built = build_cohort(settings, advance)
    written = write_built(built, options.out, store_key, settings.patients.key)
    document, shown = flow_document(built.flow), outside(built.flow)
    figures = {"flow.pdf": document, "flow.svg": document, "outside/flow.pdf": shown}
    for name, drawn in figures.items():
        draw(drawn, options.out / name)
    write_whole(options.out / "outside" / "flow.json", json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
    written += [options.out / name for name in (*figures, "outside/flow.json")]
    for note in (*built.flow.notes, *_fault_notes(built.flow)):
        progress.warn(note)
    progress.say(_of_statements(built.codes))
    if options.json:
        print(
            json.dumps({**document, "written": [str(path) for path in written]}, indent=2, ensure_ascii=False)
        )
    else:
        print("\n".join(document_lines(document)))
        progress.say(f"written: {', '.join(map(str, written))}")
    return 0


def _of_statements(codes: Sequence[Mapping[str, float]]) -> str:
    """How many index ECGs alignment can learn from."""
    said = sum(map(bool, codes))
    return f"statements: {said} of {len(codes)} index ECGs have codes" if said else NO_STATEMENTS


def _fault_notes(flow: Flow) -> list[str]:
    return [f"left out for {one['code']} {one['what']}: {one['found']}" for one in flow.faults]


def _flow(options: argparse.Namespace, draw: Draw, outside: Outside) -> int:
    from fedecg.cohort.flow import document_lines, flow_document, read_flow
    from fedecg.progress import Progress

    flow = read_flow(options.flow)
    document = outside(flow) if options.outside else flow_document(flow)
    if options.figure is not None:
        draw(document, options.figure)
        Progress().say(f"written: {options.figure}")
    if options.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print("\n".join(document_lines(document)))
    return 0


def _codes(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from fedecg.cohort.icd import code_list, code_list_names

    names = code_list_names()
    if options.name is not None and options.name not in names:
        options.parser.error(f"no such list; expected one of {', '.join(names)}")
    chosen = [code_list(name) for name in names if options.name in (None, name)]
    if options.json:
        print(json.dumps([asdict(one) for one in chosen], indent=2, ensure_ascii=False))
        return 0
    for one in chosen:
        print(f"{one.name}\n  ICD-10: {' '.join(one.icd_10)}\n  ICD-9:  {' '.join(one.icd_9)}")
        print(f"  source: {one.source}\n  note:   {one.note}\n")
    return 0
