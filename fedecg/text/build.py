"""Build a code bank: embed one prompt a code with a local language model, offline.

In:  a folder with a `transformers` model (safetensors weights only; no code of the model's is ever run).
Out: a `Bank`, as `<file>.safetensors` and `<file>.json`. Run once by a study's coordinator; sites need no model.

    pip install "fedecg[text]"
    python -m fedecg.text.build --model DIR --name minilm-demo --out minilm-demo.safetensors

A bank of the paper's model, Bio_ClinicalBERT. Where a model comes with pickled weights (pytorch_model.bin) only,
its weights are converted once, outside the hospital, by the second command.

    hf download emilyalsentzer/Bio_ClinicalBERT --local-dir downloaded
    python -c "from transformers import AutoModel, AutoTokenizer as T; d = 'downloaded'; o = 'bio-clinicalbert'; \\
               AutoModel.from_pretrained(d).save_pretrained(o); T.from_pretrained(d).save_pretrained(o)"
    python -m fedecg.text.build --model bio-clinicalbert --name bio-clinicalbert \\
               --model-name emilyalsentzer/Bio_ClinicalBERT --out bio-clinicalbert.safetensors

and set `[align] bank = "bio-clinicalbert.safetensors"`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.errors import FedecgError, TextError
from fedecg.text.bank import Bank, half_whiten, make_bank, write_bank
from fedecg.text.prompts import prompts, prompts_sha256
from fedecg.text.statements import scp_statements

__all__ = ["build_bank", "main"]

BATCH = 16
SOURCE = "SCP-ECG statements of PTB-XL (Wagner et al. 2020, doi 10.1038/s41597-020-0495-6), CC BY 4.0"


def build_bank(model_dir: str | Path, name: str, out: str | Path, model_name: str = "") -> Bank:
    """Embed the prompts of the 71 SCP-ECG statements and write the bank.

    A prompt's embedding is the mean of the model's last hidden states over its tokens, the special ones at both
    ends included, padding left out; then `half_whiten`. The same model on the same machine gives the same bits;
    elsewhere, or with other batches, they agree to about 1e-6.

    Args:
        model_dir: folder with config.json, a tokenizer and *.safetensors.
        name: name of the bank.
        out: file to write, `.safetensors`; the provenance goes beside it.
        model_name: the model's public name, for the provenance; the folder's name if empty.

    Raises:
        TextError: FECG-247 no model folder with safetensors weights, or one that cannot be loaded; FECG-248
            transformers is not installed; FECG-241..243 as `make_bank` and `write_bank`.
    """
    folder = Path(model_dir)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        _refuse_model("no *.safetensors file in it")
    tokenizer, model = _load_model(folder)
    prompt_of = prompts(scp_statements().values())
    vectors = half_whiten(_embed(tokenizer, model, list(prompt_of.values())))
    provenance = {
        "name": name,
        "model": model_name or folder.resolve().name,
        "weights-sha256": {file.name: _file_sha256(file) for file in weights},
        "pooling": "mean over the tokens of the last hidden state, special tokens included",
        "transform": "centred over the statements, half-whitened (singular values -> square roots), length 1",
        "statements": SOURCE,
        "prompts-sha256": prompts_sha256(prompt_of),
        "prompts": prompt_of,
        "shape": list(vectors.shape),
    }
    bank = make_bank(name, list(prompt_of), vectors, provenance)
    write_bank(bank, out)
    return bank


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fedecg.text.build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", required=True, help="folder of a local transformers model")
    parser.add_argument("--name", required=True, help="name of the bank")
    parser.add_argument("--out", required=True, help="file to write (.safetensors)")
    parser.add_argument("--model-name", default="", help="public name of the model, for the provenance")
    chosen = parser.parse_args(arguments)
    try:
        bank = build_bank(chosen.model, chosen.name, chosen.out, chosen.model_name)
    except FedecgError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(f"{bank.name}: {bank.vectors.shape[0]} codes x {bank.vectors.shape[1]}, sha256 {bank.sha256}")
    return 0


def _load_model(folder: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise TextError(
            "FECG-248",
            "package transformers",
            found="not installed",
            expected="transformers, which only building a bank needs",
            fix='pip install "fedecg[text]"',
        ) from None
    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **offline)
    except Exception as error:  # transformers raises many kinds, some of the model file's own making
        _refuse_model(f"one that transformers cannot load ({type(error).__name__})")
    return tokenizer, model.eval()


def _refuse_model(found: str) -> None:
    raise TextError(
        "FECG-247",
        "model folder",
        found=found,
        expected="a folder with config.json, a tokenizer and safetensors weights",
        fix="Pickled weights (pytorch_model.bin) are never read here: python -m fedecg.text.build --help.",
    ) from None


def _embed(tokenizer: Any, model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    batches = []
    with torch.inference_mode():
        for batch in _batches(texts):
            tokens = tokenizer(list(batch), padding=True, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            batches.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
    vectors: NDArray[np.float32] = torch.cat(batches).numpy()
    return vectors


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), BATCH):
        yield texts[start : start + BATCH]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
