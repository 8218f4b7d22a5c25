"""`fedecg probe`: what a model's embeddings know, beside a random encoder and other models.

In:  parsed options. Out: tables or JSON on stdout, notes on stderr. Hooked in by `fedecg.cli`.
Torch is loaded when the command runs, so that --help needs none.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedecg.errors import ModelError, TextError
from fedecg.progress import Progress

if TYPE_CHECKING:
    from fedecg.model import SavedModel
    from fedecg.representation.document import Candidate
    from fedecg.text.bank import Bank

__all__ = ["add_probe"]

Commands = argparse._SubParsersAction  # argparse has no public name for it
RANDOM = "random encoder"
DEFAULT_BANK = "minilm-demo"

HELP = """PATH is PTB-XL as published (its sites are those of its column site), a site's folder (with site.toml), or
the sites of a simulation (RUN/sites).

  fedecg probe runs/demo/model --data runs/demo/sites
  fedecg probe bank/model --data /data/ptbxl --beside shuffled=shuffled/model --beside none=none/model --json

Linear probes: logistic regressions on the frozen embeddings, for the diagnostic superclasses and subclasses, rhythm and
form codes of PTB-XL, with 1, 10 and 100 % of the training patients' labels; the penalty is chosen on the validation
part, figures are of the test part. They are fitted from sums over the sites, and so are those of the pooled records.
Zero-shot: cosine of the projected ECG to each code's statement (of the bank that the model was aligned to).
Figures are macro AUCs with 95 % bootstrap intervals (patients drawn within their site). Classes with fewer than 10
positives or negatives in the test part are left out of them and listed. With fewer than 50 labels nothing is shown.
Beside the model stands the same network with random weights; --beside adds others, such as controls of a study.
Nothing is sent anywhere. Exit status: 0 done, 3 a model or data that cannot be used.
"""


def add_probe(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg probe`."""
    command = commands.add_parser(
        "probe",
        help="what a model's embeddings know, beside controls",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=_probe)
    command.add_argument("model", type=Path, metavar="MODEL", help="model folder")
    command.add_argument("--data", type=Path, required=True, metavar="PATH", help="PTB-XL, or site folders")
    command.add_argument(
        "--beside",
        type=_named,
        action="append",
        default=[],
        metavar="NAME=MODEL",
        help="another model folder",
    )
    command.add_argument("--bank", metavar="BANK", help=f"of the model (default: {DEFAULT_BANK}, if it fits)")
    command.add_argument(
        "--left-out", default="", metavar="CODES", help="that alignment was not shown, with commas: AFIB,LVH"
    )
    command.add_argument("--records-hz", type=int, choices=(100, 500), default=100, help="of PTB-XL")
    command.add_argument("--store", type=Path, metavar="FOLDER", help="keep PTB-XL's preprocessed ECGs here")
    command.add_argument("--bootstrap", type=_replicates, default=1000, metavar="N", help="default: 1000")
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of draws and of the random encoder"
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON")


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError("expected NAME=MODEL: shuffled=runs/shuffled/model")
    return name, Path(folder)


def _replicates(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text):
        raise argparse.ArgumentTypeError("expected a number, 0 to 99999")
    return int(text)


def _probe(options: argparse.Namespace) -> int:
    from fedecg.model import load_model
    from fedecg.representation.document import ProbePlan, judge, probe_document
    from fedecg.representation.families import FAMILIES
    from fedecg.representation.records import read_sites
    from fedecg.text import load_bank

    progress = Progress()
    saved = load_model(options.model)
    beside = {name: load_model(folder) for name, folder in options.beside}
    _refuse_other_input(saved, beside)
    bank = load_bank(options.bank or DEFAULT_BANK)
    left_out = _left_out(options.left_out, bank)
    plan = ProbePlan(bootstrap=options.bootstrap, seed=options.seed, left_out=left_out)
    candidates = _candidates(saved, beside, bank, options)
    with tempfile.TemporaryDirectory(prefix="fedecg-probe-") as temporary:
        store = options.store or Path(temporary)
        sites = read_sites(options.data, saved.signals, store, options.records_hz, progress)
        questions = len(candidates) * len(FAMILIES) * len(plan.fractions)
        with progress.task("probing", questions) as advance:
            asked = iter(range(1, questions + 1))
            judged = {one.name: judge(one, sites, plan, lambda: advance(next(asked))) for one in candidates}
    document = probe_document(judged, sites, plan)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        _print(document)
    return 0


def _left_out(text: str, bank: Bank) -> tuple[str, ...]:
    """The codes of --left-out, each of which the bank must have: a figure of other codes would be taken for theirs."""
    codes = tuple(code for code in (one.strip() for one in text.split(",")) if code)
    unknown = sum(code not in bank.codes for code in codes)
    if unknown:
        raise TextError(
            "FECG-378",
            "--left-out",
            found=f"{unknown} of {len(codes)} codes that the bank does not have",
            expected=f"codes of the bank {bank.name}, with commas",
            fix="fedecg bank show BANK prints its codes.",
        )
    return codes


def _candidates(
    saved: SavedModel, beside: dict[str, SavedModel], bank: Bank, options: argparse.Namespace
) -> list[Candidate]:
    """The model, the same network with random weights, and whatever was named."""
    from fedecg.model import build_network
    from fedecg.representation.document import Candidate

    if options.bank and saved.bank_sha256 != bank.sha256:
        raise ModelError(
            "FECG-372",
            "--bank",
            found=f"sha256 {bank.sha256[:12]}...",
            expected=f"{saved.bank_sha256[:12]}... (model.json)"
            if saved.bank_sha256
            else "none: not aligned",
            fix="Name the bank of the model's study (align.bank).",
        )
    name = options.model.resolve().parent.name if options.model.name == "model" else options.model.name
    network = saved.network
    random = build_network(network.settings, network.samples, network.bank_dim, options.seed).eval()
    fits, reason = _bank_of(saved, bank)
    candidates = [
        Candidate(name or "model", network, fits, reason),
        Candidate(RANDOM, random, fits, reason),
    ]
    for other, one in beside.items():
        candidates.append(Candidate(other, one.network, *_bank_of(one, bank)))
    return _refuse_same_names(candidates)


def _bank_of(saved: SavedModel, bank: Bank) -> tuple[Bank | None, str]:
    if saved.bank_sha256 == bank.sha256:
        return bank, ""
    return None, "aligned to another bank" if saved.bank_sha256 else "not aligned to a bank"


def _refuse_same_names(candidates: list[Candidate]) -> list[Candidate]:
    names = {one.name for one in candidates}
    if len(names) < len(candidates):
        raise ModelError(
            "FECG-373",
            "--beside",
            found=f"{len(candidates)} models with {len(names)} different names",
            expected=f"a name of its own for each, other than {candidates[0].name} and {RANDOM}",
        )
    return candidates


def _refuse_other_input(saved: SavedModel, beside: dict[str, SavedModel]) -> None:
    other = sum(one.signals != saved.signals for one in beside.values())
    if other:
        raise ModelError(
            "FECG-374",
            "--beside",
            found=f"{other} of {len(beside)} models with other [signals] settings",
            expected="those of the model in question: the same input for all",
            fix="Probe them apart.",
        )


def _print(document: dict[str, Any]) -> None:
    from fedecg.representation.tables import apart_lines, federated_rows, main_rows, retrieval_rows

    sites = document["sites"]
    parts = ", ".join(f"{name} ({sum(found.values())})" for name, found in sites.items())
    print(
        f"{len(sites)} site(s): {parts}. Macro AUC of the test part (95 % bootstrap interval, {document['bootstrap']})."
    )
    _print_table(main_rows(document))
    print("\nFrom the sites' sums and counts alone:")
    _print_table(federated_rows(document))
    if rows := retrieval_rows(document):
        print("\nRetrieval: recall.")
        _print_table(rows)
    if lines := apart_lines(document):
        print(
            f"\nLeft out, with fewer than {document['fewest-test-positives']} test positives (or negatives):"
        )
        print("\n".join(f"  {line}" for line in lines))
    reasons = {name: one["without-bank"] for name, one in document["models"].items() if one["without-bank"]}
    for name, reason in reasons.items():
        print(f"{name}: no zero-shot ({reason}).")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    head, *body = rows
    table = Table(*head)
    for row in body:
        table.add_row(*row)
    console = Console()
    Console(width=None if console.is_terminal else 200).print(table)
