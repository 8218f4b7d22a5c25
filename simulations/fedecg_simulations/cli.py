"""`fedecg-simulate`: studies on public or synthetic data, split over virtual sites.

In:  a settings file and overrides. Out: a run folder, a table on stdout, an exit status.
Exit status: 0 finished, 2 wrong use, 3 bad input, 4 refused by policy, 5 finished without some sites (or cells of a
grid), 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedecg.command_line import Commands, add_command, add_json, program, run
from fedecg.config import StudySettings, load_study
from fedecg.progress import Progress
from fedecg_simulations.cox import add_cox
from fedecg_simulations.published.commands import add_data

if TYPE_CHECKING:
    from fedecg_simulations.grid_cells import Outcome

__all__ = ["main"]

DESCRIPTION = "Simulate a federated ECG survival study on one machine, with the apps that real sites run."
EXAMPLES = """examples:
  fedecg-simulate run configs/demo.toml
  fedecg-simulate run configs/ptbxl.toml --data /data/ptb-xl --out runs/ptbxl
  fedecg-simulate run configs/demo.toml --set seed=3 survival.loss=cox-batch federation.algorithm=fedprox
  fedecg-simulate grid configs/grids/losses.toml --jobs 2
  fedecg-simulate partition configs/ptbxl.toml --data /data/ptb-xl --set partition.by=dirichlet partition.alpha=0.1
  fedecg-simulate partition configs/demo.toml --set partition.follow-up=disjoint drift.gain=0.1 --out runs/split
  fedecg-simulate hospitals configs/two-hospitals.toml --out hospitals
  fedecg-simulate cox patients.csv --time days --event hf --site hospital
  fedecg-simulate data fetch ptbxl /data/ptb-xl --only records100 '*.csv'
  fedecg-simulate data check ptbxl /data/ptb-xl
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser, commands = program("fedecg-simulate", DESCRIPTION, EXAMPLES)
    _add_studies(commands)
    _add_grid(commands)
    add_cox(commands)
    add_data(commands)
    return run(parser, arguments)


def _add_studies(commands: Commands[argparse.ArgumentParser]) -> None:
    study = add_command(commands, "run", _run, "train and compare: federated, pooled, local, controls")
    study.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder (default: runs/ + the file's name)"
    )
    study.add_argument(
        "--no-report",
        action="store_true",
        help="draw no page and no figures; `fedecg report RUN` draws them at any time",
    )
    split = add_command(
        commands, "partition", _partition, "show how records fall to virtual sites, and draw it"
    )
    split.add_argument(
        "--out", type=Path, metavar="DIR", help="also write partition.json and a figure into this folder"
    )
    hospitals = add_command(
        commands, "hospitals", _hospitals, "write virtual sites as folders, to try a real deployment with"
    )
    hospitals.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    for command in (study, split, hospitals):
        command.add_argument("config", type=Path, metavar="CONFIG", help="settings (TOML); see configs/")
        command.add_argument("--data", metavar="PATH", help="folder of the data set as published (data.path)")
        command.add_argument(
            "--set",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY=VALUE",
            dest="overrides",
            help="override settings, e.g. survival.loss=cox-batch",
        )
        add_json(command, "print the result as JSON")


def _add_grid(commands: Commands[argparse.ArgumentParser]) -> None:
    grid = add_command(commands, "grid", _grid, "run many studies and compare them; finished ones are kept")
    grid.add_argument("config", type=Path, metavar="CONFIG", help="grid file (TOML); see configs/grids/")
    grid.add_argument(
        "--out", type=Path, metavar="DIR", help="grid folder (default: runs/ + the file's name)"
    )
    grid.add_argument("--jobs", type=number, default=1, metavar="N", help="studies at once (default: 1)")
    grid.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="AXIS=VARIANT[,VARIANT]",
        help="run these studies of the grid only, e.g. loss=cox-site seed=0,1; the tables are of all",
    )
    grid.add_argument(
        "--replace", action="store_true", help="run studies again that were finished with other settings"
    )
    grid.add_argument("--dry-run", action="store_true", help="check and list the studies, run nothing")
    add_json(grid, "print the rows of the table as JSON")


def number(text: str) -> int:
    """A number of at least 1; argparse names this function in its message."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a number of at least 1")
    return value


def _settings(options: argparse.Namespace) -> StudySettings:
    settings = load_study(options.config, options.overrides)
    if options.data is None:
        return settings
    return settings.model_copy(update={"data": settings.data.model_copy(update={"path": options.data})})


def _run(options: argparse.Namespace) -> int:
    settings = _settings(options)  # what is wrong with them is said before torch is loaded
    from fedecg.report import print_summary
    from fedecg_simulations.runner import run_simulation

    out = options.out or Path("runs") / options.config.stem
    progress = Progress()
    summary = run_simulation(settings, out, progress, with_report=not options.no_report)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        print_summary(summary, Console())
    pages = [] if options.no_report else ["report.html", "figures"]
    progress.say(f"written: {', '.join(str(out / name) for name in ('summary.json', *pages, 'model'))}")
    return 0 if summary["status"] == "completed" else 5


def _partition(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from fedecg.report import partition_table as sites_table
    from fedecg_simulations.partition_report import (
        partition_document,
        partition_lines,
        partition_rows,
        write_partition,
    )
    from fedecg_simulations.partitions import virtual_sites
    from fedecg_simulations.sources import load_dataset

    dataset, parts = virtual_sites(
        load_dataset(settings), settings.partition, settings.seed, settings.data.events, settings.drift
    )
    document = partition_document(settings, dataset, parts)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        Console().print(sites_table(partition_rows(document)))
        print("\n".join(partition_lines(document)))
    if options.out is not None:
        written = write_partition(document, options.out)
        Progress().say(f"written: {', '.join(map(str, written))}")
    return 0


def _hospitals(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from fedecg_simulations.hospitals import write_hospitals

    patients = write_hospitals(settings, options.out, Progress())
    if options.json:
        print(json.dumps({"folder": str(options.out), "patients": patients}, indent=2))
    else:
        for name, number_of in patients.items():
            print(f"{options.out / name}: {number_of} patients")
    return 0


def _grid(options: argparse.Namespace) -> int:
    from fedecg_simulations.grid_plan import chosen_cells, load_grid

    plan = load_grid(options.config)  # what is wrong with the file is said before torch is loaded
    chosen = chosen_cells(plan, options.only)
    from fedecg_simulations.grid_report import REPORT_FILES, outcomes_of, summary_text
    from fedecg_simulations.grid_run import check_cells, read_outcomes, run_grid
    from fedecg_simulations.grid_table import grid_rows

    out = options.out or Path("runs") / options.config.stem
    progress = Progress()
    if options.dry_run:
        outcomes = read_outcomes(plan, out)
        check_cells(cell for cell in chosen if not outcomes[cell.name].finished)
    else:
        outcomes = run_grid(plan, out, options.jobs, progress, chosen, options.replace)
        progress.say(f"written: {', '.join(str(out / name) for name in REPORT_FILES)}")
    rows = grid_rows(plan, outcomes)
    if options.json:
        print(json.dumps({"grid": plan.name, "outcomes": outcomes_of(rows), "rows": rows}, indent=2))
    elif options.dry_run:
        print("\n".join(f"{_standing(outcomes[cell.name]):17} {cell.name}" for cell in chosen))
        counted = Counter(_standing(outcomes[cell.name]) for cell in chosen)
        progress.say(f"grid {plan.name}: {', '.join(f'{some} {how}' for how, some in counted.items())}")
    else:
        print(summary_text(plan, rows), end="")
    failed = any(outcome.status == "failed" for outcome in outcomes.values())
    return 5 if failed and not options.dry_run else 0


def _standing(outcome: Outcome) -> str:
    """A cell's status; "changed": finished with other settings, and kept unless --replace is given."""
    return "changed" if outcome.other_settings else outcome.status


if __name__ == "__main__":
    sys.exit(main())
