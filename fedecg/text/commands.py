"""`fedecg bank build` and `fedecg bank show`: the command line of this room.

In:  parsed options. Out: a bank's two files; text or JSON on stdout, notes on stderr, an exit status. Hooked in by
     `fedecg.cli`, which brings the function that draws: figures are made in a later room than this one.
Torch is loaded when a bank is built, so that --help and `bank show` need none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedecg.errors import TextError
from fedecg.progress import Progress
from fedecg.text.bank import Bank, load_bank
from fedecg.text.prompts import unexpanded
from fedecg.text.separation import APART_BELOW, Pair, effective_rank, neighbours, opposites
from fedecg.text.statements import TABLES, statement_table
from fedecg.text.whitening import WHITENINGS

__all__ = ["add_bank"]

Commands = argparse._SubParsersAction  # argparse has no public name for it
Draw = Callable[[Bank, Path], None]

POOLINGS = ("mean", "cls", "last-token")  # of fedecg.text.encoder, which loads torch; a test holds them equal
FIGURES = (".png", ".svg", ".pdf")
LONGEST_NAME = 80
BUILD_HELP = """DIR holds a model of the transformers library: config.json, a tokenizer, safetensors weights. Nothing is
fetched, no code of the model's is run (never trust_remote_code), pickled weights are not read.

  pip install 'fedecg[text]'
  fedecg bank build --model /models/all-MiniLM-L6-v2 --name our-bank --out our-bank.safetensors
  fedecg bank build --model /models/Bio_ClinicalBERT --codes snomed-ct --name cinc --out cinc.safetensors
  fedecg bank build --model /models/Llama-3.2-1B --pooling last-token --codes our.csv --name our --out our.safetensors

--pooling: encoders (BERT, MPNet) mean, or cls where their authors say so (MedCPT); decoders (Llama, Qwen)
  last-token or mean. Weights are used in float32: 4 bytes a parameter of memory.
--codes: scp-ecg (71 statements of PTB-XL), snomed-ct (133 codes of the PhysioNet/CinC headers), or a table of your own:

  code,description,category
  K12,complete LBBB,Conduction
  K13,complete RBBB,Conduction

  category may be left out. Abbreviations are written out in the prompts (fedecg bank show prints them); what the list
  does not know is named, to be written out in the table.
--whiten: none centres only; half (default) takes square roots of the singular values; full makes them equal, and all
  statements equally unlike each other where the model has more dimensions than there are statements.

A model that comes with pickled weights (pytorch_model.bin) only is converted once, outside the hospital:

  hf download emilyalsentzer/Bio_ClinicalBERT --local-dir downloaded
  python -c "from transformers import AutoModel, AutoTokenizer as T; d = 'downloaded'; o = 'bio-clinicalbert'; \\
             AutoModel.from_pretrained(d).save_pretrained(o); T.from_pretrained(d).save_pretrained(o)"

A study takes the bank by [align] bank = "our-bank.safetensors"; the .json beside it goes with it.
Exit status: 0; 5 written, but statements of opposite meaning are not told apart; 3 nothing written.
"""
SHOW_HELP = """BANK is a bank of the package (minilm-demo) or a .safetensors file with its .json beside it.

  fedecg bank show minilm-demo
  fedecg bank show our-bank.safetensors --code CLBBB --neighbours 10
  fedecg bank show our-bank.safetensors --figure similarities.pdf --json

Statements of opposite meaning (normal or not, left or right, complete or incomplete, ...; the list is
fedecg/text/opposites.csv, and any two prompts that differ in nothing but such a word) must have a cosine below 0.9.
The effective rank says how many directions the statements fill (exp of the entropy of the squared singular values).
Exit status: 0; 5 some opposites are not told apart; 3 no such bank or code.
"""


def add_bank(commands: Commands[argparse.ArgumentParser], draw: Draw) -> None:
    """Hook in `fedecg bank build` and `fedecg bank show`.

    Args:
        draw: writes the figure of a bank's similarities to a path (.png, .svg, .pdf).
    """
    what = "build a code bank with a language model, or look at one"
    bank = commands.add_parser("bank", help=what, description=what)
    of_bank = bank.add_subparsers(metavar="build|show", dest="bank_command", required=True)
    _add_build(of_bank)
    _add_show(of_bank, draw)


def _add_build(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _add(commands, "build", "embed a list of statements with a local language model", BUILD_HELP)
    command.add_argument("--model", type=Path, required=True, metavar="DIR", help="folder of a local model")
    command.add_argument("--name", type=_name, required=True, help="name of the bank")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE.safetensors", help="file to write; a .json beside it"
    )
    command.add_argument(
        "--codes", default="scp-ecg", metavar="LIST", help=f"{', '.join(TABLES)} or a csv (default: scp-ecg)"
    )
    command.add_argument("--pooling", choices=POOLINGS, default="mean", help="(default: mean)")
    command.add_argument("--whiten", choices=tuple(WHITENINGS), default="half", help="(default: half)")
    command.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="cut longer prompts (default: what the model takes, <= 512)",
    )
    command.add_argument("--batch", type=int, default=16, metavar="N", help="prompts at once (default: 16)")
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="(default: auto, a GPU if there is one)",
    )
    command.add_argument(
        "--model-name", default="", metavar="NAME", help="the model's public name, for the record"
    )
    command.set_defaults(command=_build)


def _add_show(commands: Commands[argparse.ArgumentParser], draw: Draw) -> None:
    command = _add(commands, "show", "codes, prompts, neighbours, and the check of opposites", SHOW_HELP)
    command.add_argument("bank", metavar="BANK", help="name or .safetensors file")
    command.add_argument("--code", help="this statement only")
    command.add_argument(
        "--neighbours", type=_count, default=3, metavar="N", help="nearest statements of each (default: 3)"
    )
    command.add_argument(
        "--figure", type=_figure, metavar="FILE", help="draw the similarities (.png, .svg or .pdf)"
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(command=lambda options: _show(options, draw))


def _add(
    commands: Commands[argparse.ArgumentParser], name: str, what: str, epilog: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=what,
        description=what,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"expected 1 to {LONGEST_NAME} letters that can be printed")
    return text


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("expected a whole number, 0 or more")
    return int(text)


def _figure(text: str) -> Path:
    if Path(text).suffix not in FIGURES:
        raise argparse.ArgumentTypeError(f"expected a file that ends in {', '.join(FIGURES)}")
    return Path(text)


def _build(options: argparse.Namespace) -> int:
    from fedecg.text.build import BuildOptions, build_bank
    from fedecg.text.encoder import EncoderOptions

    encoder = EncoderOptions(options.pooling, options.max_tokens, options.batch, options.device)
    wanted = BuildOptions(options.codes, options.whiten, encoder, options.model_name)
    progress = Progress()
    with progress.task("prompts embedded", len(statement_table(options.codes)[0])) as advance:
        bank = build_bank(options.model, options.name, options.out, wanted, lambda done: advance(done))
    progress.say(f"written: {options.out}, {options.out.with_suffix('.json')}")
    print(_head(bank))
    pairs = opposites(bank)
    print(_checked(bank, pairs))
    return _warned(progress, bank, pairs)


def _show(options: argparse.Namespace, draw: Draw) -> int:
    bank = load_bank(options.bank)
    codes = _asked(bank, options.code)
    if options.figure is not None:
        draw(bank, options.figure)
    pairs = opposites(bank)
    if options.json:
        print(json.dumps(_as_json(bank, codes, options.neighbours, pairs), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_as_text(bank, codes, options.neighbours, pairs)))
    progress = Progress()
    if options.figure is not None:
        progress.say(f"written: {options.figure}")
    return _warned(progress, bank, pairs)


def _asked(bank: Bank, code: str | None) -> Sequence[str]:
    if code is None:
        return bank.codes
    if code not in bank.codes:
        raise TextError(
            "FECG-245",
            "--code",
            found="a code that the bank has no statement for",
            expected=f"one of the {len(bank.codes)} codes of the bank {bank.name}",
            fix="fedecg bank show without --code lists them.",
        )
    return [code]


def _head(bank: Bank) -> str:
    rows, dimensions = bank.vectors.shape
    return f"{bank.name}: {rows} codes x {dimensions}, sha256 {bank.sha256}"


def _as_text(bank: Bank, codes: Sequence[str], count: int, pairs: Sequence[Pair]) -> list[str]:
    lines = [_head(bank)]
    for key, value in bank.provenance.items():
        if key not in ("name", "sha256", "shape", "prompts"):
            shown = (
                ", ".join(f"{file} {sha}" for file, sha in value.items())
                if isinstance(value, dict)
                else value
            )
            lines.append(f"  {key}: {shown}")
    lines += [f"  effective-rank: {effective_rank(bank.vectors):.1f} of {_most_directions(bank)}", ""]
    width = max(map(len, codes))
    for code in codes:
        lines.append(
            f"{code:<{width}}  {bank.provenance.get('prompts', {}).get(code, '(prompt not recorded)')}"
        )
        near = ", ".join(f"{other} {cosine:.2f}" for other, cosine in neighbours(bank, code, count))
        lines += [f"{'':<{width}}    near: {near}"] if near else []
    return [*lines, "", _checked(bank, pairs)]


def _as_json(bank: Bank, codes: Sequence[str], count: int, pairs: Sequence[Pair]) -> dict[str, Any]:
    prompt_of = bank.provenance.get("prompts", {})
    return {
        "name": bank.name,
        "sha256": bank.sha256,
        "shape": list(bank.vectors.shape),
        "provenance": {key: value for key, value in bank.provenance.items() if key != "prompts"},
        "effective-rank": effective_rank(bank.vectors),
        "codes": [
            {
                "code": code,
                "prompt": prompt_of.get(code),
                "neighbours": [
                    {"code": other, "cosine": cosine} for other, cosine in neighbours(bank, code, count)
                ],
            }
            for code in codes
        ],
        "opposites": [
            {"one": pair.one, "other": pair.other, "cosine": pair.cosine, "apart": pair.apart}
            for pair in pairs
        ],
        "notes": _notes(bank),
    }


def _checked(bank: Bank, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "opposites: no pair of statements that is known to be of opposite meaning; nothing was checked"
    prompt_of = bank.provenance.get("prompts", {})
    lines = [
        f"opposites: {sum(pair.apart for pair in pairs)} of {len(pairs)} pairs told apart (cosine < {APART_BELOW})"
    ]
    # Those that are not, and the nearest of those that are.
    shown = [pair for pair in pairs if not pair.apart] or pairs[:1]
    for pair in shown:
        said = " / ".join(str(prompt_of.get(code, "")).partition(": ")[2] for code in (pair.one, pair.other))
        lines.append(
            f"  {pair.cosine:.3f}  {pair.one} and {pair.other}  {said if prompt_of else ''}".rstrip()
        )
    return "\n".join(lines)


def _warned(progress: Progress, bank: Bank, pairs: Sequence[Pair]) -> int:
    for note in _notes(bank):
        progress.warn(note)
    near = sum(not pair.apart for pair in pairs)
    if not near:
        return 0
    progress.warn(
        f"{near} of {len(pairs)} pairs of statements with opposite meaning are not told apart "
        f"(cosine >= {APART_BELOW}). {_remedy(bank)}"
    )
    return 5


def _remedy(bank: Bank) -> str:
    transform = bank.provenance.get("transform")
    if transform == WHITENINGS["full"]:
        return "Word their descriptions less alike, or take another model."
    if transform == WHITENINGS["half"]:
        return "Build it again with --whiten full, or take another model."
    return "Build it again with --whiten half or, if that is not enough, full."


def _notes(bank: Bank) -> list[str]:
    """What whoever builds or uses a bank should know of it, from its provenance."""
    prompt_of = bank.provenance.get("prompts", {})
    notes = []
    shared = len(prompt_of) - len(set(prompt_of.values()))
    if shared:
        notes.append(f"{shared} code(s) have the prompt of another code: the bank cannot tell these apart")
    if cut := bank.provenance.get("prompts-cut", 0):
        notes.append(
            f"{cut} prompt(s) are longer than {bank.provenance['max-tokens']} tokens: their end is not read"
        )
    if words := unexpanded(prompt_of):
        shown = ", ".join(words[:10])
        notes.append(f"{len(words)} word(s) look like abbreviations; write them out in the table: {shown}")
    if bank.provenance.get("transform") == WHITENINGS["full"] and bank.vectors.shape[1] >= _most_directions(
        bank
    ):
        notes.append(
            "fully whitened, with more dimensions than statements: all are equally unlike each other"
        )
    return notes


def _most_directions(bank: Bank) -> int:
    rows, dimensions = bank.vectors.shape
    return min(int(rows) - 1, int(dimensions))
