"""`fedecg`: what whoever has a finished model does with it. The other roles have commands of their own.

In:  the command line. Out: text, tables, files, an exit status.
Exit status: 0 done, 2 wrong use, 3 bad input, 4 refused by policy, 5 done for some of the input only, 1 anything else.
Each command lives with its room, in a module that loads torch only when the command runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from fedecg.exits import exit_status
from fedecg.prediction.commands import add_evaluate, add_export, add_predict, add_verify
from fedecg.report.commands import add_report

__all__ = ["main"]

DESCRIPTION = "Federated, multi-site training of ECG heart-failure risk models: the finished model."
EXAMPLES = """examples:
  fedecg verify runs/demo/model
  fedecg predict runs/demo/model records/*.hea --out risks.csv
  fedecg explain runs/demo/model records/00001_hr --out explained.html
  fedecg evaluate runs/demo/model /data/our-hospital --recalibrate our-model
  fedecg export runs/demo/model --format torch-export --out model.pt2
  fedecg report runs/demo

A model folder holds model.json and weights.safetensors; a study writes one (RUN/model).
Research use only: not a medical device.

other commands: researchers with public data: fedecg-simulate --help. A code bank: python -m fedecg.text.build --help.
"""

EXPLAIN_HELP = """The page (.html) holds the risk, time attention on ECG paper, what hiding each stretch and each lead
does, attention across leads and the median beat; a picture (.png, .pdf, .svg) is the ECG paper with time attention.

  fedecg explain runs/demo/model records/00001_hr --out explained.html
  fedecg explain runs/demo/model records/00001_hr --out explained.pdf --layout 12x1

The file names neither the record nor the patient.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    return exit_status(lambda: int(options.command(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fedecg",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fedecg {version('fedecg')}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    add_predict(commands)
    _add_explain(commands)
    add_evaluate(commands)
    add_verify(commands)
    add_export(commands)
    add_report(commands)
    return parser


def _add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    # Here and not in its room: fedecg.report loads torch and matplotlib, which --help does not need.
    command = commands.add_parser(
        "explain",
        help="what the network looked at in one ECG",
        epilog=EXPLAIN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("model", type=Path, metavar="MODEL", help="model folder")
    command.add_argument("ecg", type=Path, metavar="ECG", help="a record, with or without ending")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .html, .png, .pdf or .svg file"
    )
    command.add_argument(
        "--layout", choices=("3x4", "6x2", "12x1"), default="3x4", help="of the ECG paper (default: 3x4)"
    )
    command.set_defaults(command=_explain)


def _explain(options: argparse.Namespace) -> int:
    from fedecg.report.explain import explain_record

    return explain_record(options.model, options.ecg, options.out, options.layout)


if __name__ == "__main__":
    sys.exit(main())
