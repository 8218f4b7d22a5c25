"""`fedecg explain`, `fedecg draw`, and the pages of `fedecg predict --explain`.

In:  parsed options. Out: pages and pictures, an exit status. Hooked in by `fedecg.cli`.
Torch and matplotlib are loaded when a command runs, so that --help needs neither.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedecg.progress import Progress

if TYPE_CHECKING:
    from fedecg.prediction.files import FileRow
    from fedecg.prediction.predictor import Model

__all__ = ["add_draw", "add_explain", "explain_rows"]

Commands = argparse._SubParsersAction  # argparse has no public name for it

EXPLAIN_HELP = """The page (.html) holds the risk, time attention on ECG paper, what hiding each stretch and each lead
does, attention across leads and the median beat; a picture (.png, .pdf, .svg) is the ECG paper with time attention.

  fedecg explain runs/demo/model records/00001_hr --out explained.html
  fedecg explain runs/demo/model records/00001_hr --out explained.pdf --layout 12x1 --speed 50
  fedecg explain runs/demo/model records/00001_hr --out explained.html --json

The file names neither the record nor the patient. Many records at once: fedecg predict MODEL FILES... --explain DIR
"""
DRAW_HELP = """The ECG as it was recorded, unfiltered, true to scale in a .pdf or .svg printed at 100 %.

  fedecg draw records/00001_hr --out ecg.pdf
  fedecg draw records/00001_hr --out ecg.svg --layout 12x1 --speed 50 --order cabrera

The file names neither the record nor the patient.
"""


def add_explain(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg explain`."""
    command = _add(commands, "explain", "what the network looked at in one ECG", EXPLAIN_HELP)
    command.add_argument("model", type=Path, metavar="MODEL", help="model folder")
    command.add_argument("ecg", type=Path, metavar="ECG", help="a record, with or without ending")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .html, .png, .pdf or .svg file"
    )
    _add_paper(command)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(command=_explain)


def add_draw(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg draw`."""
    command = _add(commands, "draw", "one ECG on paper, without a model", DRAW_HELP)
    command.add_argument("ecg", type=Path, metavar="RECORD", help="a record, with or without ending")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .pdf, .svg or .png file")
    _add_paper(command)
    command.set_defaults(command=_draw)


def explain_rows(
    model: Model, model_folder: Path, rows: Sequence[FileRow], folder: Path, progress: Progress
) -> list[FileRow]:
    """The pages of `fedecg predict --explain`; see `explained_rows.write_row_pages`."""
    from fedecg.report.explained_rows import write_row_pages

    return write_row_pages(model, model_folder, rows, folder, progress)


def _add(
    commands: Commands[argparse.ArgumentParser], name: str, what: str, epilog: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=what, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _add_paper(command: argparse.ArgumentParser) -> None:
    paper = command.add_argument_group("ECG paper")
    paper.add_argument("--layout", choices=("3x4", "6x2", "12x1"), default="3x4", help="(default: 3x4)")
    paper.add_argument("--speed", type=int, choices=(25, 50), default=25, help="mm/s (default: 25)")
    paper.add_argument("--gain", type=int, choices=(5, 10, 20), default=10, help="mm/mV (default: 10)")
    paper.add_argument(
        "--order",
        choices=("standard", "cabrera"),
        default="standard",
        help="of the limb leads (default: standard)",
    )


def _explain(options: argparse.Namespace) -> int:
    from fedecg.report.ecg_layout import PaperOptions
    from fedecg.report.explain import explain_record

    paper = PaperOptions(options.layout, options.speed, options.gain, options.order)
    return explain_record(options.model, options.ecg, options.out, paper, as_json=options.json)


def _draw(options: argparse.Namespace) -> int:
    from fedecg.report.ecg_paper import draw_ecg, save_ecg
    from fedecg.signals import read_recording

    figure = draw_ecg(
        read_recording(options.ecg),
        layout=options.layout,
        speed_mm_s=options.speed,
        gain_mm_mv=options.gain,
        order=options.order,
    )
    save_ecg(figure, options.out)
    Progress().say(f"written: {options.out}")
    return 0
