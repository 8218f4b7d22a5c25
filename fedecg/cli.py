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
from typing import TYPE_CHECKING

from fedecg.exits import exit_status
from fedecg.prediction.commands import add_evaluate, add_export, add_predict, add_verify
from fedecg.prediction.import_command import add_import_checkpoint
from fedecg.report.commands import add_report
from fedecg.report.ecg_commands import add_draw, add_explain, explain_rows
from fedecg.text.commands import add_bank

if TYPE_CHECKING:
    from fedecg.text.bank import Bank

__all__ = ["main"]

DESCRIPTION = "Federated, multi-site training of ECG heart-failure risk models: the finished model."
EXAMPLES = """examples:
  fedecg verify runs/demo/model
  fedecg predict runs/demo/model records/*.hea --out risks.csv
  fedecg explain runs/demo/model records/00001_hr --out explained.html
  fedecg draw records/00001_hr --out ecg.pdf
  fedecg evaluate runs/demo/model cohort.csv --records /data/ecgs --recalibrate our-model
  fedecg export runs/demo/model --format torch-export --out model.pt2
  fedecg import-checkpoint checkpoint_best_loss-v2.ckpt --out authors
  fedecg report runs/demo
  fedecg bank show minilm-demo --figure similarities.pdf

A model folder holds model.json, weights.safetensors and SHA256SUMS; a study writes one (RUN/model). A run of before
there was a SHA256SUMS gets one by fedecg report RUN.
Research use only: not a medical device.

other commands: researchers with public data: fedecg-simulate --help.
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
    add_predict(commands, explain_rows)
    add_explain(commands)
    add_draw(commands)
    add_evaluate(commands)
    add_verify(commands)
    add_export(commands)
    add_import_checkpoint(commands)
    add_report(commands)
    add_bank(commands, _draw_bank)
    return parser


def _draw_bank(bank: Bank, path: Path) -> None:
    from fedecg.report.bank_figure import write_similarities

    write_similarities(bank, path)


if __name__ == "__main__":
    sys.exit(main())
