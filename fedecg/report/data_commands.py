"""`fedecg data ingest` and `fedecg data report`: from a hospital's files to its store, and a look at what it has.

In:  parsed options. Out: a signal store; two pages and their documents; text or JSON on stdout, an exit status.
Hooked in by `fedecg.cli`. Readers and figures are loaded when a command runs, so that --help needs none.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedecg.codes import CODES
from fedecg.command_line import Commands, add_command, add_group, add_json, named
from fedecg.config import SignalSettings, load_study, parse_settings
from fedecg.errors import SettingsError
from fedecg.progress import Progress

if TYPE_CHECKING:
    from fedecg.signals.ingest import Ingested

__all__ = ["add_data"]

MOST_JOBS = 64
INGEST_HELP = """SOURCES: folders (searched at any depth), patterns in quotes, records, a .txt list of files, or a .csv
table (, ; tab |) with a column of file names. Names in a list or a table start from its folder. Which formats are
read: docs/formats.md. A file is known by its content, not by its ending.

  fedecg data ingest /data/ecgs --out store --powerline 50
  fedecg data ingest ecgs.csv --column file --out store --settings study.toml --jobs 8
  fedecg data ingest "records/**/*.hea" more/one.dcm --out store --json

STORE then holds signals.npy, manifest.csv (a row an ECG, in the order of the files, with its file's name as it stands
in SOURCES), store.json and refused.csv (what cannot be used, and why). The names of files stay in these two tables.
The [signals] of the study decide rate, length and band: give its file, or the same values; powerline is your own.

Stopped or killed, the same command goes on where it was. A file that cannot be read is a row of zeros with its code;
a file that ends its process is read once more and then refused, and so is a folder that cannot be looked through.
Files of a folder that are no ECGs are left out. A SOURCE that is not there is told before anything is written.
Exit status: 0; 5 some files were refused; 3 nothing to ingest, or STORE holds something else.
"""
REPORT_HELP = """DATA: a site folder (site.toml), a signal store (with --cohort FILE.csv or without), or a folder
of ECGs as they are, which is read but not stored.

  fedecg data report /srv/fedecg/site --out look
  fedecg data report store --cohort cohort.csv --table ecgs.csv --out look
  fedecg data report /data/ecgs --out look

Written into DIR: inside.html and inside.json with everything, the worst ECGs drawn: for the site, it stays there; and
outside.html and outside.json, with binned counts only, none of fewer than --patients patients (or --events events),
no ECG, no name, no date: for the study's office, once somebody at the site has read them.

--table: a .csv with a column `file` (or --column) and any of `patient`, `device`, `report`, `age_years`, `female`;
  other names by --columns, e.g. --columns patient=patient_id age_years=age. Of a report only its language is counted.
  Separated by , ; tab or |. A file is found by its whole name, else by the last part of it where that is unambiguous.
  How many files the table speaks of is said; one that speaks of none is refused. female: 1 or F, 0 or M.
--bank: the code bank whose coverage of the stated codes is counted (default: minilm-demo).
"""


def add_data(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg data ingest` and `fedecg data report`."""
    of_data = add_group(
        commands, "data", "make a signal store of a hospital's files, or look at what there is"
    )
    _add_ingest(of_data)
    _add_report(of_data)


def _add_ingest(commands: Commands[argparse.ArgumentParser]) -> None:
    words = "read, judge and filter ECG files into a signal store"
    command = add_command(commands, "ingest", _ingest, words, INGEST_HELP)
    command.add_argument(
        "sources", nargs="+", metavar="SOURCES", help="folders, patterns, lists, tables, records"
    )
    command.add_argument(
        "--out", type=named, required=True, metavar="STORE", help="folder of the store, a new one"
    )
    command.add_argument(
        "--column", default="file", help="of a table, that holds the file names (default: file)"
    )
    command.add_argument(
        "--jobs",
        type=_number,
        default=_default_jobs(),
        metavar="N",
        help=f"processes (default here: {_default_jobs()})",
    )
    signals = command.add_argument_group("signals")
    signals.add_argument(
        "--settings", type=Path, metavar="STUDY.toml", help="take [signals] from the study's file"
    )
    signals.add_argument(
        "--rate-hz", type=_number, metavar="N", help="samples a second, 50 to 1000 (default: 100)"
    )
    signals.add_argument(
        "--samples",
        type=_number,
        metavar="N",
        help="samples of a stored ECG, seconds x rate: 64 to 16384, a multiple of 32 (default: 1024, "
        "at 100 Hz 10.24 s)",
    )
    signals.add_argument(
        "--highpass-hz", type=_number, metavar="HZ", help="below --lowpass-hz (default: 0.5)"
    )
    signals.add_argument("--lowpass-hz", type=_number, metavar="HZ", help="below half the rate (default: 40)")
    signals.add_argument(
        "--powerline", choices=("50", "60", "none"), help="notch of this site (default: none)"
    )
    add_json(command)


def _add_report(commands: Commands[argparse.ArgumentParser]) -> None:
    words = "look at a site's ECGs and cohort: one report for the site, one that may leave it"
    command = add_command(commands, "report", _report, words, REPORT_HELP)
    command.add_argument(
        "data", type=named, metavar="DATA", help="a site folder, a store, or a folder of ECGs"
    )
    command.add_argument("--out", type=named, required=True, metavar="DIR", help="folder for the reports")
    command.add_argument("--cohort", type=Path, metavar="FILE.csv", help="cohort table of the store")
    command.add_argument("--table", type=Path, metavar="FILE.csv", help="files with their device and report")
    command.add_argument(
        "--column", default="file", help="of the table, that holds the file names (default: file)"
    )
    command.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=COLUMN",
        help="what the table's columns are: patient, device, report, age_years, female",
    )
    command.add_argument(
        "--jobs", type=_number, default=_default_jobs(), metavar="N", help="processes to read files with"
    )
    command.add_argument("--bank", default="minilm-demo", help="code bank (default: minilm-demo)")
    command.add_argument(
        "--patients",
        type=_number,
        default=10,
        metavar="N",
        help="fewest patients behind a number outside (default: 10)",
    )
    command.add_argument(
        "--events",
        type=_number,
        default=5,
        metavar="N",
        help="fewest events behind a number outside (default: 5)",
    )
    add_json(command)


def _default_jobs() -> int:
    return max(
        1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    )


def _number(text: str) -> int | float | str:
    """A number, or the text itself: what is no number is told with a code, with whatever else is wrong."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _jobs(value: int | float | str) -> int:
    if not isinstance(value, int) or not 1 <= value <= MOST_JOBS:
        raise SettingsError(
            "FECG-103",
            "--jobs",
            found=str(value) if isinstance(value, int) else "no whole number",
            expected=f"1 to {MOST_JOBS} processes",
        )
    return value


def signal_settings(options: argparse.Namespace) -> SignalSettings:
    """[signals] of the study's file, if there is one, with what the options say."""
    base = load_study(options.settings).signals if options.settings else SignalSettings()
    tree = base.model_dump(by_alias=True)
    for name in ("rate-hz", "samples", "highpass-hz", "lowpass-hz", "powerline"):
        value = getattr(options, name.replace("-", "_"))
        if value is not None:
            tree[name] = value
    return parse_settings(SignalSettings, tree)


def _ingest(options: argparse.Namespace) -> int:
    from fedecg.signals.ingest import ingest
    from fedecg.signals.ingest_sources import find_items

    settings, jobs, progress = signal_settings(options), _jobs(options.jobs), Progress()
    items = find_items(options.sources, options.column)
    done = ingest(items, options.out, settings, powerline=settings.powerline, jobs=jobs, progress=progress)
    if options.json:
        print(json.dumps(_as_json(done, options.out), indent=2))
    else:
        print("\n".join(_as_text(done)))
    progress.say(f"written: {options.out}")
    return 5 if done.refused else 0


def _as_json(done: Ingested, out: Path) -> dict[str, Any]:
    return {
        "store": str(out),
        "key": done.store.key,
        "files": done.files,
        "ecgs": len(done.store),
        "usable": len(done.store) - sum(done.refused.values()),
        "refused": done.refused,
        "not-ecgs": done.others,
        "settings": done.store.settings,
    }


def _as_text(done: Ingested) -> list[str]:
    usable = len(done.store) - sum(done.refused.values())
    lines = [f"{done.files} files: {len(done.store)} ECGs, {usable} usable"]
    lines += [f"  {number:>7} refused  {code} {CODES[code]}" for code, number in done.refused.items()]
    if done.others:
        lines.append(f"  {done.others:>7} files that are no ECGs, left out")
    if done.refused or done.others:
        lines.append("  which: refused.csv in the store")
    return lines


def _report(options: argparse.Namespace) -> int:
    from fedecg.files import require_folder
    from fedecg.report.data_disclosure import thresholds
    from fedecg.report.data_facts import gather
    from fedecg.report.data_report import write_data_report
    from fedecg.report.data_said import COLUMNS
    from fedecg.text import load_bank

    limits, jobs = thresholds(options.patients, options.events), _jobs(options.jobs)
    renamed = dict(word.partition("=")[::2] for word in options.columns)
    if not set(renamed) <= set(COLUMNS) or not all(renamed.values()):
        options.parser.error(f"--columns: expected NAME=COLUMN with a NAME of {', '.join(COLUMNS)}")
    require_folder(options.out)
    progress, bank = Progress(), load_bank(options.bank)
    facts = gather(options.data, options.cohort, options.table, options.column, renamed, jobs, progress)
    written = write_data_report(facts, bank.name, bank.codes, limits, options.out)
    if options.json:
        print(json.dumps({"written": [str(path) for path in written]}, indent=2))
    else:
        print(f"written: {', '.join(map(str, written))}")
    progress.say("inside.* stays at the site; read outside.html before it leaves")
    return 0
