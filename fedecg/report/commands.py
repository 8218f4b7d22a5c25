"""`fedecg report`: the pages of a finished run, written anew from its folder.

In:  parsed options. Out: report.html, report.json, the model card, notes on stderr, an exit status.
Hooked in by `fedecg.cli`.
Figures are loaded when the command runs, so that --help needs none.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fedecg.progress import Progress

__all__ = ["add_report"]

Commands = argparse._SubParsersAction  # argparse has no public name for it

REPORT_HELP = """RUN is the folder of a finished simulation or of a coordinator: result.json, rounds.json, study.toml,
assessment.json, explanation.json if there is one and, of a simulation, summary.json. Without summary.json the report
has what left the sites: the federated model and its evaluation; the models that only a simulation can train are dashes.

  fedecg report runs/demo
  fedecg report runs/demo --out /media/usb/report.html
  fedecg report /data/coordinator/run --outcomes observed

Beside the page, report.json holds what it is made of: schema "fedecg-report", version 1, described at the head of
fedecg/report/document.py.
Also written, into RUN/model: model_card.md, tripod.md (the checklists TRIPOD+AI and TRIPOD-Cluster: what the run
answers, what is open) and SHA256SUMS.

Numbers of sites and subgroups below 10 patients or 5 events are withheld, and others with them that would give them
away; not in a simulation, whose data are public or generated.
"""


def add_report(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg report`."""
    command = commands.add_parser(
        "report",
        help="write the report of a finished run",
        epilog=REPORT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    command.add_argument("--out", type=Path, metavar="FILE", help="of the page (default: RUN/report.html)")
    command.add_argument(
        "--outcomes",
        choices=("observed", "simulated"),
        help="for a run that does not say it itself (one without summary.json)",
    )
    command.add_argument("--json", action="store_true", help="print the names of what was written as JSON")
    command.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from fedecg.files import write_whole
    from fedecg.report.document import report_json
    from fedecg.report.html import page_html, report_page
    from fedecg.report.model_card import write_model_card
    from fedecg.report.run import read_run

    progress = Progress()
    run = read_run(options.run, options.outcomes)
    page = report_page(run.summary, run.rounds, run.assessment, run.explanation, run.settings)
    target = options.out or options.run / "report.html"
    written = [target, target.with_suffix(".json")]
    for path, text in zip(written, (page_html(page), report_json(page)), strict=True):
        write_whole(path, text)
    if run.model is not None:
        written += write_model_card(run.model, run.summary, run.assessment, run.settings)
    if not run.outcomes_stated:
        progress.warn(
            "the run does not say that outcomes were observed: labelled SIMULATED (--outcomes observed)"
        )
    if run.assessment is None:
        progress.warn("the run has no assessment.json: no calibration, no decision curve, no subgroups")
    if run.model is None:
        progress.warn("the run has no model: no model card")
    if options.json:
        print(json.dumps({"written": [str(path) for path in written]}, indent=2))
    else:
        print(f"written: {', '.join(map(str, written))}")
    return 0
