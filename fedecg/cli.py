"""`fedecg`: what whoever has a finished model does with it. The other roles have commands of their own.

In:  the command line. Out: text, tables, files, an exit status.
Exit status: 0 done, 2 wrong use, 3 bad input, 4 refused by policy, 5 done for some of the input only, 1 anything else.
Each command lives with its room, in a module that loads torch only when the command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedecg.cohort.commands import add_cohort
from fedecg.command_line import program, run
from fedecg.prediction.commands import add_evaluate, add_export, add_predict, add_verify
from fedecg.prediction.import_command import add_import_checkpoint
from fedecg.report.commands import add_report
from fedecg.report.data_commands import add_data
from fedecg.report.ecg_commands import add_draw, add_explain, explain_rows
from fedecg.representation.commands import add_probe
from fedecg.text.commands import add_bank

if TYPE_CHECKING:
    from fedecg.cohort.flow import Flow
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
  fedecg probe runs/demo/model --data runs/demo/sites
  fedecg cohort build cohort.toml --out cohort
  fedecg data ingest /data/ecgs --out store --powerline 50
  fedecg data report store --cohort cohort.csv --out look

A model folder holds model.json, weights.safetensors and SHA256SUMS; a study writes one (RUN/model). A run of before
there was a SHA256SUMS gets one by fedecg report RUN.
Research use only: not a medical device.

other commands: researchers with public data: fedecg-simulate --help.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser, commands = program("fedecg", DESCRIPTION, EXAMPLES)
    add_predict(commands, explain_rows)
    add_explain(commands)
    add_draw(commands)
    add_evaluate(commands)
    add_verify(commands)
    add_export(commands)
    add_import_checkpoint(commands)
    add_report(commands)
    add_bank(commands, _draw_bank)
    add_cohort(commands, _draw_flow, _flow_for_outside)
    add_data(commands)
    add_probe(commands)
    return run(parser, arguments)


def _draw_flow(document: Mapping[str, Any], path: Path) -> None:
    from fedecg.report.flow_figure import write_flow_figure

    write_flow_figure(document, path)


def _flow_for_outside(flow: Flow) -> dict[str, Any]:
    from fedecg.report.flow_outside import outside_document

    return outside_document(flow)


def _draw_bank(bank: Bank, path: Path) -> None:
    from fedecg.report.bank_figure import write_similarities

    write_similarities(bank, path)


if __name__ == "__main__":
    sys.exit(main())
