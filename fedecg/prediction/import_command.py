"""`fedecg import-checkpoint`: published weights become a model folder.

In:  parsed options. Out: a model folder, what was taken on stdout, notes on stderr. Hooked in by `fedecg.cli`.
Torch is loaded when the command runs, so that --help needs none.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from fedecg.progress import Progress

__all__ = ["add_import_checkpoint"]

Commands = argparse._SubParsersAction  # argparse has no public name for it

HELP = """AUTHORS.ckpt holds the weights that Chen et al. 2025 publish (cherise215/LLM-ECG-Dual-Attention): a Lightning
checkpoint, a state dict of torch.save, or .safetensors; names may have any prefix. It is read as data: a file that
would have to run code is refused. The encoder becomes that of the preset paper, and so does a decoder of its layout;
same input, same output. All other heads are listed and left.

  fedecg import-checkpoint checkpoint_best_loss-v2.ckpt --out authors
  fedecg import-checkpoint weights.pt --out authors --rate-hz 500 --lowpass-hz 100 --json

  encoder = fedecg.load("authors").encoder        # in Python: z-scores of 12 leads (N, 12, T) -> embeddings (N, 512)
  fedecg-simulate run CONFIG --set model.preset=paper model.size=base align.start=authors   # a study that begins so

T is read off the weights. Their T = 608 is a median beat (1.2 s at 500 Hz, zeros around it): fedecg makes it of whole
recordings (signals.input = "median"); T = 1024 is 10 s at 100 Hz. Such a model has no trained risk head
and no baseline hazard: fedecg predict refuses it. The weights do not tell whether the network
was built with apply_subsequent_attention; the published one was not.
Exit status: 0 imported, 3 a checkpoint that cannot be used.
"""
SIGNALS = ("input", "rate_hz", "samples", "highpass_hz", "lowpass_hz")


def add_import_checkpoint(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in `fedecg import-checkpoint`."""
    command = commands.add_parser(
        "import-checkpoint",
        help="the authors' published weights as a model folder",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=_import)
    command.add_argument("checkpoint", type=Path, metavar="AUTHORS.ckpt", help="published weights")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder, new or empty")
    command.add_argument(
        "--input",
        choices=("rhythm", "median"),
        help="the middle of a recording, or its median beat (default: median for T = 608 at 500 Hz, else rhythm)",
    )
    command.add_argument(
        "--rate-hz",
        type=int,
        metavar="HZ",
        help="of the network's input (default: 500 for T = 608, else 100)",
    )
    command.add_argument("--samples", type=int, metavar="T", help="refuse weights of any other length")
    command.add_argument("--highpass-hz", type=float, metavar="HZ", help="of the input (default: 0.5)")
    command.add_argument("--lowpass-hz", type=float, metavar="HZ", help="of the input (default: 40)")
    command.add_argument("--json", action="store_true", help="print the result as JSON")


def _import(options: argparse.Namespace) -> int:
    from fedecg.model import import_checkpoint

    wanted = {name: getattr(options, name) for name in SIGNALS if getattr(options, name) is not None}
    taken = import_checkpoint(options.checkpoint, options.out, wanted)
    if options.json:
        print(json.dumps({name.replace("_", "-"): value for name, value in asdict(taken).items()}, indent=2))
    else:
        print(
            f"{taken.tensors} tensors ({' and '.join(taken.parts)}) for {taken.samples} samples at "
            f"{taken.rate_hz} Hz: {options.out}"
        )
        for group, tensors in taken.left.items():
            print(f"not imported: {group} ({tensors} tensor{'s' if tensors > 1 else ''})")
    progress = Progress()
    progress.say("No trained risk head, no baseline hazard: for fedecg.load(DIR).encoder and align.start.")
    if any(group.endswith("encoder.linear") or group == "linear" for group in taken.left):
        progress.warn(
            "Their encoder ends in a linear layer that the preset has not: embeddings are those that go into it."
        )
    return 0
